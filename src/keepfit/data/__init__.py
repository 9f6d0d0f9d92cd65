"""What can give batches, and in which order: one file per kind of source."""

from keepfit.data.adapters import evaluation_source, training_source
from keepfit.data.checks import check_lengths, named_leaves
from keepfit.data.fingerprint import describe_difference, fingerprint
from keepfit.data.memory import ObjectMemory
from keepfit.data.order import Permutation, batch_order, epoch_order, order_at
from keepfit.data.partitioned import Partitions, PartitionSource, load_code, partitions
from keepfit.data.partitioned import Side as PartitionSide
from keepfit.data.rehearsed import RehearsedSource
from keepfit.data.row_hashes import batch_hashes, content_digest, row_arrays, row_hashes
from keepfit.data.samples import SampleRows, SampleSource
from keepfit.data.sampling import EVERY, Sample, bound_of, sample_of
from keepfit.data.source import BatchSource, IndexedSource, Source, StreamSource
from keepfit.data.split import split_validation
from keepfit.data.weights import class_weighted

__all__ = [
    "EVERY",
    "BatchSource",
    "IndexedSource",
    "ObjectMemory",
    "PartitionSide",
    "PartitionSource",
    "Partitions",
    "Permutation",
    "RehearsedSource",
    "Sample",
    "SampleRows",
    "SampleSource",
    "Source",
    "StreamSource",
    "batch_hashes",
    "batch_order",
    "bound_of",
    "check_lengths",
    "class_weighted",
    "content_digest",
    "describe_difference",
    "epoch_order",
    "evaluation_source",
    "fingerprint",
    "load_code",
    "named_leaves",
    "order_at",
    "partitions",
    "row_arrays",
    "row_hashes",
    "sample_of",
    "split_validation",
    "training_source",
]
