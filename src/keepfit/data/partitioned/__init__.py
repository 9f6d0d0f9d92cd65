"""Data in partitions, of which a few are in memory at a time."""

from keepfit.data.partitioned.partitions import Partitions, Side, loader_of, partitions
from keepfit.data.partitioned.sides import rows_of_side
from keepfit.data.partitioned.source import PartitionSource
from keepfit.readers.memory_tables import is_table

__all__ = ["PartitionSource", "Partitions", "Side", "is_table", "loader_of", "partitions", "rows_of_side"]
