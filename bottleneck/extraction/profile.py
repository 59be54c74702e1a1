"""Tell which stage bounds an extraction, and what would help.

Two kinds of evidence. Where the thread that feeds the forward passes waits tells which stage holds up the others: for
pixels, for rows, or for the disk. What the stages could do alone is seen at the two ends of a task: before its first
forward pass only decoding runs, after its last image only forward passes do.
"""

from __future__ import annotations

import importlib.util
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from bottleneck.extraction.resources import cores_here

#: Reading takes the greater part of what it takes to come from a file to pixels: the source is what is waited for.
_MOSTLY = 0.5

_WHAT_HELPS: Mapping[str, str] = MappingProxyType(
    {
        "read": "bring the images nearer (a local disk, or one tar or zip file instead of many small files)",
        "decode": "give it more processors, or store the images at about twice the base's size",
        "forward": "a lower --precision, a smaller --size, an earlier --cut, or a GPU",
        "write": "a faster disk for --cache, --pooling avg, or --dtype float16",
    }
)

_NUMBA = "install Numba (pip install numba), JPEG files then take half the time; "


@dataclass(frozen=True)
class Clock:
    """What one task, or several, saw of its time.

    Attributes
    ----------
    waited : mapping of str to float
        Seconds of the feeding thread: ``decode`` (for pixels), ``forward`` (for rows), ``write`` (for the disk).
    alone : mapping of str to float
        Images a second of ``read and decode`` and of ``forward`` while nothing else ran; lacks what was not seen.
    reading : float
        Share of reading in the time from a file to its pixels, 0 to 1.
    processors : int
        How many the worker could use; 0 where nothing was measured.
    has_numba : bool
        Whether it is installed where the worker is.
    """

    waited: Mapping[str, float] = field(default_factory=dict)
    alone: Mapping[str, float] = field(default_factory=dict)
    reading: float = 0.0
    processors: int = 0
    has_numba: bool = True


class Stopwatch:
    """Measures the time of a task, from its own threads."""

    def __init__(self, base: float | None) -> None:
        self.waited = {"decode": 0.0, "forward": 0.0, "write": 0.0}
        self.got: list[tuple[float, float]] = []  # of each file: seconds to read it, and to its pixels
        self._started = time.perf_counter()
        self._alone: dict[str, float] = {} if base is None else {"forward": base}

    def first_pass(self, images: int) -> None:
        """Note the rate of decoding: until now nothing else ran."""
        self._alone.setdefault("decode", images / max(time.perf_counter() - self._started, 1e-9))

    def clock(self) -> Clock:
        """Sum up what was seen."""
        read, whole = (sum(part) for part in zip(*self.got, strict=True)) if self.got else (0.0, 0.0)
        reading, has_numba = read / whole if whole else 0.0, importlib.util.find_spec("numba") is not None
        return Clock(self.waited, self._alone, reading, cores_here(), has_numba)


def combine_clocks(clocks: Sequence[Clock]) -> Clock:
    """Combine the clocks of several tasks: waits add up, rates are medians.

    Examples
    --------
    >>> both = combine_clocks([Clock({"decode": 1.0}, {"forward": 90.0}), Clock({"decode": 2.0}, {"forward": 110.0})])
    >>> dict(both.waited), dict(both.alone)
    ({'decode': 3.0}, {'forward': 100.0})
    """
    waited: dict[str, float] = {}
    rates: dict[str, list[float]] = {}
    for clock in clocks:
        for stage, seconds in clock.waited.items():
            waited[stage] = waited.get(stage, 0.0) + seconds
        for stage, rate in clock.alone.items():
            rates.setdefault(stage, []).append(rate)
    alone = {stage: statistics.median(seen) for stage, seen in rates.items()}
    if not clocks:
        return Clock()
    reading = statistics.median([clock.reading for clock in clocks])
    processors = max(clock.processors for clock in clocks)
    return Clock(waited, alone, reading, processors, all(clock.has_numba for clock in clocks))


def bottleneck_stage(clock: Clock) -> str:
    """Name the stage waited for: ``read``, ``decode``, ``forward`` or ``write``.

    Where decoding is waited for that alone would be faster than the base, the base takes its processors: then it is
    ``forward``.

    Examples
    --------
    >>> bottleneck_stage(Clock({"decode": 9.0, "forward": 1.0, "write": 0.1}, reading=0.9))
    'read'
    >>> bottleneck_stage(Clock())
    'nothing to compute'
    """
    if not clock.waited:
        return "nothing to compute"
    stage = max(clock.waited, key=lambda name: clock.waited[name])
    if stage != "decode":
        return stage
    if clock.reading > _MOSTLY:
        return "read"
    is_crowded_out = clock.alone.get("decode", 0.0) > clock.alone.get("forward", math.inf)
    return "forward" if is_crowded_out else "decode"


def explain_profile(clock: Clock) -> str:
    """Describe the bottleneck in one line, with what would help.

    Examples
    --------
    >>> line = explain_profile(Clock({"decode": 9.0, "forward": 1.0}, {"decode": 850.0, "forward": 1400.0}, 0.1, 2))
    >>> print(line.partition(". ")[0])
    decode-bound: 2 processors decode 850 images/s, the base could take 1,400
    >>> explain_profile(Clock())
    ''
    """
    stage, processors = bottleneck_stage(clock), clock.processors
    if stage not in _WHAT_HELPS:
        return ""
    facts: list[str] = []
    decode, forward = clock.alone.get("decode"), clock.alone.get("forward")
    if decode is not None:
        what = "reading and decoding give" if stage == "read" else f"{processors} processors decode"
        if processors == 1 and stage != "read":
            what = "1 processor decodes"
        facts.append(f"{what} {_rate(decode)} images/s")
    if forward is not None:
        facts.append(
            f"the base could take {_rate(forward)}" if facts else f"the base takes {_rate(forward)} images/s"
        )
    details = f": {', '.join(facts)}" if facts else ""
    sooner = _NUMBA if stage == "decode" and not clock.has_numba else ""
    return f"{stage}-bound{details}. What would help: {sooner}{_WHAT_HELPS[stage]}"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 20 else f"{value:.1f}"
