"""Data in partitions, of which a few are in memory at a time."""

from keepfit.data.partitioned.partitions import Partitions, Side, load_code, partitions
from keepfit.data.partitioned.sides import rows_of_side
from keepfit.data.partitioned.source import PartitionSource
from keepfit.readers.memory_tables import is_table

__all__ = ["PartitionSource", "Partitions", "Side", "is_table", "load_code", "partitions", "rows_of_side"]
