"""Data in partitions, of which a few are in memory at a time."""

from keepfit.data.partitioned.memory_tables import is_table
from keepfit.data.partitioned.partitions import Partitions, Side, partitions
from keepfit.data.partitioned.sides import rows_of_side
from keepfit.data.partitioned.source import PartitionSource

__all__ = ["PartitionSource", "Partitions", "Side", "is_table", "partitions", "rows_of_side"]
