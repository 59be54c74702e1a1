"""What a task sees of its time while it runs; `stages` judges it."""

from __future__ import annotations

import importlib.util
import time

from bottleneck.extraction.profile import Clock
from bottleneck.extraction.resources import cores_here


class Stopwatch:
    """What a task's own threads see of the time."""

    def __init__(self, base: float | None) -> None:
        self.waited = {"decode": 0.0, "forward": 0.0, "write": 0.0}
        self.got: list[tuple[float, float]] = []  # of each file: seconds to read it, and to its pixels
        self._started = time.perf_counter()
        self._alone: dict[str, float] = {} if base is None else {"forward": base}

    def first_pass(self, images: int) -> None:
        """Until now nothing but decoding ran, which gave so many images."""
        self._alone.setdefault("decode", images / max(time.perf_counter() - self._started, 1e-9))

    def clock(self) -> Clock:
        """The whole of it."""
        read, whole = (sum(part) for part in zip(*self.got, strict=True)) if self.got else (0.0, 0.0)
        reading, has_numba = read / whole if whole else 0.0, importlib.util.find_spec("numba") is not None
        return Clock(self.waited, self._alone, reading, cores_here(), has_numba)
