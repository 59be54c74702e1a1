"""What can go wrong, by kind; each kind knows its exit status.

A message says what was expected, what came, and what to do next, and names the file, layer or column.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BottleneckError(Exception):
    """Anything that this package refuses or fails to do."""

    exit_status = 1


class UsageError(BottleneckError):
    """An option, a name or a combination of them that cannot be."""

    exit_status = 2


class UnknownName(UsageError):
    """A name that is not known; the message lists the nearest."""

    def __init__(self, what: str, name: str, known: Iterable[str], hint: str = "") -> None:
        names = sorted(set(known))
        near = difflib.get_close_matches(name.lower(), [n.lower() for n in names], n=5, cutoff=0.5)
        nearest = sorted((n for n in names if n.lower() in near), key=lambda n: (-_likeness(name, n), n))
        lines = [f"there is no {what} called {name!r}"]
        if nearest:
            lines.append("nearest: " + ", ".join(nearest))
        shown = names if len(names) <= 60 else [*names[:60], f"… {len(names) - 60} more"]
        lines.append("known: " + (", ".join(shown) or "none"))
        if hint:
            lines.append(hint)
        super().__init__("; ".join(lines))
        self.name, self.known, self.nearest = name, names, nearest


class Untrusted(UsageError):
    """Code that a run or a store names, and nobody trusts."""


def _likeness(name: str, other: str) -> float:
    return difflib.SequenceMatcher(None, name.lower(), other.lower()).ratio()


class SourceError(BottleneckError):
    """A source of images that cannot be used as it stands."""


class RemoteError(BottleneckError):
    """Something behind a URL that cannot be reached."""


class BaseError(BottleneckError):
    """A base that cannot be built, loaded, cut or fed."""


class WeightsError(BaseError):
    """A weight file that cannot be read or does not fit."""


class UnsteadyBase(BaseError):
    """A base whose rows depend on their batch, or on the call."""


class ChangedBase(BaseError):
    """A base that is code and computes other features than its store."""


class NotReducible(BaseError):
    """A base that cannot be computed in the precision asked for."""


class HeadError(BottleneckError):
    """A head that cannot be fitted, read or put on this base."""


class StoreError(BottleneckError):
    """A feature store that cannot be read or written."""


class NewerFormat(StoreError):
    """A store that a newer version wrote; it is left alone."""


class DamagedShard(StoreError):
    """Bytes on disk that are not the bytes that were committed.

    Attributes
    ----------
    shard : str
        The shard's id.
    rows : tuple of int
        Its rows from the first to before the second.
    """

    def __init__(self, message: str, *, shard: str = "", rows: tuple[int, int] = (0, 0)) -> None:
        super().__init__(message)
        self.shard, self.rows = shard, rows


class ReadFailure(StoreError):
    """A file of the store that the system refused to read.

    This proves nothing about its bytes: they are left alone.
    """

    @classmethod
    def of(cls, path: object, error: OSError) -> ReadFailure:
        """Make the error of this file, for that reason."""
        return cls(
            f"{path} cannot be read ({error.strerror or error}): nothing was changed, and nothing is computed anew "
            "for it; look at the disk, its mount or its permissions, and try again"
        )


class EngineError(BottleneckError):
    """Workers elsewhere that are missing, or miss source, cache or version."""


class ForeignEnvironment(StoreError):
    """This machine's numbers differ from the store's by more than rounding."""


class ParityError(BottleneckError):
    """Two forms of one model that disagree, or cannot be compared."""


class TuningError(BottleneckError):
    """A fine-tuning that cannot go on."""


class ExportError(BottleneckError):
    """An artefact that cannot be made, written or run."""


class TooManyBadImages(BottleneckError):
    """More images were rejected than ``--max-bad`` allows; everything good is stored already."""

    exit_status = 3


class Rejected(Exception):
    """One image cannot have a row.

    Parameters
    ----------
    stage : str
        Where it happened: ``read``, ``header``, ``decode``, ``forward``.
    reason : str
        Why, for a person.
    retry : bool
        True when circumstances and not the bytes are to blame: under others it may be tried again.
    circumstances : str
        With `retry`: what would have to be otherwise for another outcome; empty where that cannot be told.
    """

    def __init__(self, stage: str, reason: str, *, retry: bool = False, circumstances: str = "") -> None:
        super().__init__(f"{stage}: {reason}")
        self.stage, self.reason, self.retry = stage, reason, retry
        self.circumstances = circumstances
