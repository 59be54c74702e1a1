"""Choose the batch shape: usual, or the best of a search."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

#: Usual batch shapes. On two cores of a Xeon, images/s at 8, 16 and 32 (as `KerasForward.rate` finds them): VGG16 9.8,
#: 9.6, 9.7 (bfloat16 42.6, 43.0, 43.6), InceptionV3 23.4, 23.3, 23.2 (84, 77, 69), MobileNetV2 146, 144, 137,
#: SqueezeNet 256, 274, 275. On two of an EPYC, at 8 and 16: InceptionV3 in bfloat16 64, 69, the others alike. The
#: larger shape brings nothing where each layer fills the cores anyway; it takes twice the memory, and twice as long for
#: the first pass and for the padding of the last.
ON_CPU, ON_GPU = 16, 32

#: Seconds that a run must be going to take for a search, which builds the base once more.
LONG = 1800.0

#: Of fewer images nobody is asked how long they take: a base that needs `LONG` for them is beyond what a batch changes.
FEWEST = 1000

_LEAST, _MOST = 8, 512

#: What another shape must bring: less than this is noise, and smaller shapes waste less on a last, padded batch.
_GAIN = 1.03


def climb(rate: Callable[[int], float], start: int) -> int:
    """Search the fastest batch shape by doubling, else halving, `start`.

    Parameters
    ----------
    rate : callable
        Images a second at a batch shape. Raises MemoryError where it does not fit.
    start : int

    Examples
    --------
    >>> climb({16: 90.0, 32: 100.0, 64: 120.0, 128: 121.0}.__getitem__, 32)
    64
    """
    best, fastest = start, rate(start)
    for step in (lambda batch: batch * 2, lambda batch: batch // 2):
        batch = step(start)
        while _LEAST <= batch <= _MOST:
            try:
                speed = rate(batch)
            except MemoryError:
                break
            if speed < _GAIN * fastest:
                break
            best, fastest, batch = batch, speed, step(batch)
        if best != start:
            break
    return best


def within_memory(rate: Callable[[int], float]) -> Callable[[int], float]:
    """Make `rate` refuse a larger batch that might not fit."""
    largest = 0

    def refusing(batch: int) -> float:
        nonlocal largest
        if largest and batch > largest and 1.5 * _peak() > _available():
            raise MemoryError(f"a batch of {batch} may not fit")
        speed = rate(batch)
        largest = max(largest, batch)
        return speed

    return refusing


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _available() -> int:
    """Give the bytes that programs may still take; 0 if unknown."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return 0
