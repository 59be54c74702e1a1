"""The nouns. Options and file headers are pydantic models; rows never are (an `Inventory` is a table).

One file a subject; import them from here.
"""

from bottleneck.schema.base import (
    TASK_BYTES,
    TASK_ROWS,
    BaseRequest,
    BaseSpec,
    CutPoint,
    Pooling,
    Precision,
    Recipe,
    RowType,
    StoreSpec,
)
from bottleneck.schema.images import Entry, ImageRecord, Inventory, Rejection, Split, Task
from bottleneck.schema.pixels import PREPROCESSINGS, Channels, Pixels, Preprocessing, Resize
from bottleneck.schema.record import FORMAT, Cache, Record, RejectedContent
from bottleneck.schema.run import Certificate, Comparison, Difference, HeadSpec, Run, SplitPolicy
from bottleneck.schema.values import Frozen, canonical_json, explain, parse

__all__ = [
    "FORMAT",
    "PREPROCESSINGS",
    "TASK_BYTES",
    "TASK_ROWS",
    "BaseRequest",
    "BaseSpec",
    "Cache",
    "Certificate",
    "Channels",
    "Comparison",
    "CutPoint",
    "Difference",
    "Entry",
    "Frozen",
    "HeadSpec",
    "ImageRecord",
    "Inventory",
    "Pixels",
    "Pooling",
    "Precision",
    "Preprocessing",
    "Recipe",
    "Record",
    "RejectedContent",
    "Rejection",
    "Resize",
    "RowType",
    "Run",
    "Split",
    "SplitPolicy",
    "StoreSpec",
    "Task",
    "canonical_json",
    "explain",
    "parse",
]
