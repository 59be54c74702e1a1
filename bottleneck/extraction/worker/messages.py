"""What a parent and its worker say to each other, pickled.

In a module of its own, since the worker's own is `__main__`.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from bottleneck.contracts import Source
from bottleneck.errors import BottleneckError, StoreError
from bottleneck.schema import BaseRequest, Cache, Rejection, Task
from bottleneck.system.disk_errors import refusal


@dataclass(frozen=True)
class Open:
    """Ask to build a base for the images of a source.

    The base is asked for at one cut or at several: `requests` differ in nothing else. Answer: a `StoreSpec` for each.
    """

    source: Source
    requests: tuple[BaseRequest, ...]
    cache: Cache
    threads: int | None = None


@dataclass(frozen=True)
class Care:
    """How carefully a task is run.

    With care after a worker died at it, and from the start where it is one image.

    Attributes
    ----------
    careful : bool
        One image at a time, each named before it is touched: the next death names its culprit.
    alone : frozenset of int
        Images, by their place in the task, that get a forward pass each: one of them ended a worker.
    refused : mapping of int to Rejection
        Culprits that were found; the task goes on without them.
    """

    careful: bool = False
    alone: frozenset[int] = frozenset()
    refused: Mapping[int, Rejection] = field(default_factory=dict)


@dataclass(frozen=True)
class Compute:
    """Ask to run a task.

    Answers: any number of `BaseReady`, `ImagesDone` and `Touching`, then a tuple of `TaskOutcome`.
    """

    task: Task
    care: Care = Care()


@dataclass(frozen=True)
class Try:
    """Ask to run a sample of a task and throw it away.

    Answers: `BaseReady`, any number of `ImagesDone`, then a `Trial`.
    """

    task: Task


@dataclass(frozen=True)
class Search:
    """Ask for the best batch shape for some images.

    Answers: `ImagesDone` for each that is tried, then the best; None where they take less than `long` seconds.
    """

    images: int
    long: float


@dataclass(frozen=True)
class Prove:
    """Ask for the rows of the canary pictures. Answer: a `Proof`."""


@dataclass(frozen=True, eq=False)
class Proof:
    """The canary (8, values) of each cut, and the numeric environment."""

    canaries: tuple[np.ndarray, ...]
    environment: Mapping[str, str]


@dataclass(frozen=True)
class BaseReady:
    """Tell the seconds of a forward pass: silence is suspicious now."""

    seconds: float


@dataclass(frozen=True)
class ImagesDone:
    """Tell how many images are done; 0 is a sign of life."""

    images: int


@dataclass(frozen=True)
class Touching:
    """Name the images that come next: to ``decode``, ``forward`` or ``write``."""

    stage: str
    images: tuple[int, ...] = ()


@dataclass(frozen=True)
class Failure:
    """The kind and the text of an error."""

    kind: type[BottleneckError]
    text: str

    @classmethod
    def of(cls, error: Exception, *, filling: bool) -> Failure:
        """Describe an error of a worker; `filling` while a store is filled."""
        if isinstance(error, BottleneckError):
            return cls(type(error), str(error))
        if filling and isinstance(error, FileNotFoundError):
            return cls(
                StoreError,
                f"{os.fsdecode(error.filename or 'a folder of the store')}: the store's folder was removed or moved "
                "away while it was being filled; what lay in it is gone with it. Run the same command again to begin "
                "anew",
            )
        if isinstance(error, OSError):
            return cls(
                StoreError,
                f"{refusal(error)}. Finished shards are kept: once that is put right, the same command goes on",
            )
        traceback.print_exception(error)  # to the worker's log
        return cls(BottleneckError, f"the worker failed: {type(error).__name__}: {error}")

    def error(self) -> BottleneckError:
        """The error, to raise on the asking side."""
        # Past `__init__`, which takes more than the text in some kinds.
        error = self.kind.__new__(self.kind)
        error.args = (self.text,)
        return error
