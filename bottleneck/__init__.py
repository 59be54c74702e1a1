"""Bottleneck features for transfer learning on images: run the frozen base once, train heads in seconds, merge, prove.

This face is pure standard library and loads what is asked for: pandas and xarray import whatever is called
``bottleneck``, look for `__version__`, and must find something light that they then leave alone.
"""

from __future__ import annotations

from importlib import import_module

__version__ = "0.1.0"

#: Public name -> where it lives. Never `nan*`, `move_*`, `push`, `rankdata`, `median`, `ss`, `replace` or
#: `partition`: those are the other package's, and pandas would call them.
_FACE = {
    "list_bases": "bottleneck.pipeline",
    "scan": "bottleneck.pipeline",
    "extract": "bottleneck.pipeline",
    "features": "bottleneck.pipeline",
    "train": "bottleneck.pipeline",
    "evaluate": "bottleneck.pipeline",
    "predict": "bottleneck.pipeline",
    "finetune": "bottleneck.pipeline",
    "merge": "bottleneck.pipeline",
    "export": "bottleneck.pipeline",
    "BottleneckError": "bottleneck.errors",
    "DenseHead": "bottleneck.heads.dense",
    "LogisticHead": "bottleneck.heads.linear",
}

__all__ = ["BottleneckError", "DenseHead", "LogisticHead", "__version__"]


def __getattr__(name: str) -> object:
    home = _FACE.get(name)
    if home is None:
        raise AttributeError(f"module 'bottleneck' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted([*_FACE, "__version__"])
