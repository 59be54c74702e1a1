"""The batch shape of a new store: 32 or, for a long run, the best of a short search."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

DEFAULT_BATCH = 32

#: Seconds that a run must be going to take for a search, which builds the base once more.
LONG = 1800.0

#: Of fewer images nobody is asked how long they take: a base that needs `LONG` for them is beyond what a batch changes.
FEWEST = 1000

_LEAST, _MOST = 8, 512

#: What another shape must bring: less than this is noise, and smaller shapes waste less on a last, padded batch.
_GAIN = 1.03


def climb(rate: Callable[[int], float], start: int = DEFAULT_BATCH) -> int:
    """The batch shape near `start` with the highest rate: doubled while that pays, else halved while that does.

    Parameters
    ----------
    rate : callable
        Images a second at a batch shape. Raises MemoryError where it does not fit.
    start : int

    Returns
    -------
    int

    Examples
    --------
    >>> climb({16: 90.0, 32: 100.0, 64: 120.0, 128: 121.0}.__getitem__)
    64
    """
    best, fastest = start, rate(start)
    for step in (lambda batch: batch * 2, lambda batch: batch // 2):
        batch = step(start)
        while _LEAST <= batch <= _MOST:
            try:
                found = rate(batch)
            except MemoryError:
                break
            if found < _GAIN * fastest:
                break
            best, fastest, batch = batch, found, step(batch)
        if best != start:
            break
    return best


def within_memory(rate: Callable[[int], float]) -> Callable[[int], float]:
    """`rate`, which refuses a larger batch where what this process takes might not fit once more, and half of it."""
    largest = 0

    def refusing(batch: int) -> float:
        nonlocal largest
        if largest and batch > largest and 1.5 * _peak() > _available():
            raise MemoryError(f"a batch of {batch} may not fit")
        found = rate(batch)
        largest = max(largest, batch)
        return found

    return refusing


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _available() -> int:
    """Bytes that programs may still take; 0 where the system does not tell."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return 0
