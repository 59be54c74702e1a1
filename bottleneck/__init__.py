"""Bottleneck features for transfer learning on images.

Run the frozen base once, train heads in seconds, merge, prove. This face is pure standard library and loads what is
asked for: pandas and xarray import whatever is called ``bottleneck``, look for `__version__`, and must find something
light that they then leave alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bottleneck.errors import BottleneckError as BottleneckError
    from bottleneck.heads.dense import DenseHead as DenseHead
    from bottleneck.heads.logistic import LogisticHead as LogisticHead
    from bottleneck.pipeline.evaluate import evaluate as evaluate
    from bottleneck.pipeline.export import export as export
    from bottleneck.pipeline.export import merge as merge
    from bottleneck.pipeline.extract import extract as extract
    from bottleneck.pipeline.extract import features as features
    from bottleneck.pipeline.finetune import finetune as finetune
    from bottleneck.pipeline.lookup import list_bases as list_bases
    from bottleneck.pipeline.lookup import scan as scan
    from bottleneck.pipeline.predict import predict as predict
    from bottleneck.pipeline.train import train as train

__version__ = "0.1.0"

#: Public name -> where it lives. Never `nan*`, `move_*`, `push`, `rankdata`, `median`, `ss`, `replace` or
#: `partition`: those are the other package's, and pandas would call them.
_FACE = {
    "list_bases": "bottleneck.pipeline.lookup",
    "scan": "bottleneck.pipeline.lookup",
    "extract": "bottleneck.pipeline.extract",
    "features": "bottleneck.pipeline.extract",
    "train": "bottleneck.pipeline.train",
    "evaluate": "bottleneck.pipeline.evaluate",
    "predict": "bottleneck.pipeline.predict",
    "finetune": "bottleneck.pipeline.finetune",
    "merge": "bottleneck.pipeline.export",
    "export": "bottleneck.pipeline.export",
    "BottleneckError": "bottleneck.errors",
    "DenseHead": "bottleneck.heads.dense",
    "LogisticHead": "bottleneck.heads.logistic",
}

__all__ = ["BottleneckError", "DenseHead", "LogisticHead", "__version__"]


def __getattr__(name: str) -> object:
    home = _FACE.get(name)
    if home is None:
        raise AttributeError(f"module 'bottleneck' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted([*_FACE, "__version__"])
