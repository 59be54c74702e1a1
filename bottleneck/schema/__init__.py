"""Nouns: pydantic models for options and headers, an Arrow table for rows.

One file a subject; import them from here.
"""

from bottleneck.schema.base import (
    TASK_BYTES,
    TASK_ROWS,
    AskedPrecision,
    BaseRequest,
    BaseSpec,
    CutPoint,
    Pooling,
    Precision,
    Recipe,
    RowType,
    StoreSpec,
)
from bottleneck.schema.certificate import (
    Accuracy,
    Bound,
    Certificate,
    Comparison,
    Difference,
    ScoreFacts,
    Stillness,
)
from bottleneck.schema.images import Entry, ImageRecord, Inventory, Rejection, Signature, Split, Task
from bottleneck.schema.limits import Limits, parse_size
from bottleneck.schema.pixels import PREPROCESSINGS, Channels, Pixels, Preprocessing, Resize
from bottleneck.schema.record import FORMAT, RECORD_FORMAT, Cache, Drift, Record, RejectedContent, Rounding
from bottleneck.schema.run import NAMED_BY_SOURCE, FitFacts, HeadSpec, Run, Score, SplitPolicy
from bottleneck.schema.team import WorkerConfig
from bottleneck.schema.tuning import (
    StageDone,
    Tuned,
    TunePrecision,
    TuneSettings,
    TuneStage,
    parse_rates,
    parse_tune,
)
from bottleneck.schema.values import (
    Frozen,
    canonical_json,
    explain_errors,
    json_fields,
    json_value,
    parse,
    safe_name,
)
from bottleneck.schema.views import DEFAULT_VIEWS, MOST_VIEWS, ViewPolicy, Views

__all__ = [
    "DEFAULT_VIEWS",
    "FORMAT",
    "MOST_VIEWS",
    "NAMED_BY_SOURCE",
    "PREPROCESSINGS",
    "RECORD_FORMAT",
    "TASK_BYTES",
    "TASK_ROWS",
    "Accuracy",
    "AskedPrecision",
    "BaseRequest",
    "BaseSpec",
    "Bound",
    "Cache",
    "Certificate",
    "Channels",
    "Comparison",
    "CutPoint",
    "Difference",
    "Drift",
    "Entry",
    "FitFacts",
    "Frozen",
    "HeadSpec",
    "ImageRecord",
    "Inventory",
    "Limits",
    "Pixels",
    "Pooling",
    "Precision",
    "Preprocessing",
    "Recipe",
    "Record",
    "RejectedContent",
    "Rejection",
    "Resize",
    "Rounding",
    "RowType",
    "Run",
    "Score",
    "ScoreFacts",
    "Signature",
    "Split",
    "SplitPolicy",
    "StageDone",
    "Stillness",
    "StoreSpec",
    "Task",
    "TunePrecision",
    "TuneSettings",
    "TuneStage",
    "Tuned",
    "ViewPolicy",
    "Views",
    "WorkerConfig",
    "canonical_json",
    "explain_errors",
    "json_fields",
    "json_value",
    "parse",
    "parse_rates",
    "parse_size",
    "parse_tune",
    "safe_name",
]
