"""What a parent and its worker say to each other, pickled. In a module of its own: the worker's own is `__main__`."""

from __future__ import annotations

from dataclasses import dataclass

from bottleneck.contracts import Source
from bottleneck.errors import BottleneckError
from bottleneck.schema import BaseRequest, Cache, Task


@dataclass(frozen=True)
class Open:
    """Ask: build this base. Answer: `StoreSpec`."""

    request: BaseRequest
    cache: Cache


@dataclass(frozen=True)
class Compute:
    """Ask: run this task. Answers: any number of `Moved`, then an `Outcome`."""

    source: Source
    task: Task


@dataclass(frozen=True)
class Moved:
    """So many images are done."""

    images: int


@dataclass(frozen=True)
class Failure:
    """What was asked for ended in an error of this kind, with this text."""

    kind: type[BottleneckError]
    text: str

    def error(self) -> BottleneckError:
        """The error, to raise on the asking side."""
        # Past `__init__`, which takes more than the text in some kinds.
        error = self.kind.__new__(self.kind)
        error.args = (self.text,)
        return error
