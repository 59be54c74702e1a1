"""Time a sample of images, run as a task is run."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bottleneck.contracts import Forward, Source
from bottleneck.extraction.profile import Clock
from bottleneck.extraction.worker.image_reader import Watch
from bottleneck.extraction.worker.row_writer import RowTarget
from bottleneck.extraction.worker.task import Pools, run_task
from bottleneck.forward.cuts import forward_rows
from bottleneck.schema import Task

#: Seconds of forward passes that a sample may take, unless its fewest passes take longer.
_SECONDS = 10.0

#: Two passes are under way at once; fewer than these say little.
_FEWEST_PASSES = 3


@dataclass(frozen=True)
class Trial:
    """What a sample took.

    Attributes
    ----------
    images : int
        How many were run.
    start : float
        Seconds until the first of them could be: the base built, where it was not yet, and the first forward pass.
    seconds : float
        Of these images, from files to rows.
    write : float
        Seconds to commit them.
    overhead : int
        Bytes on disk besides the rows and their 32-byte keys.
    batch : int
    clock : Clock
    """

    images: int
    start: float
    seconds: float
    write: float
    overhead: int
    batch: int
    clock: Clock = field(default_factory=Clock)


def sample_size(pass_seconds: float, batch: int, most: int) -> int:
    """Count the images of a sample: whole passes, about ten seconds.

    Examples
    --------
    >>> sample_size(0.1, 32, 1024), sample_size(0.5, 32, 1024), sample_size(9.0, 32, 1024), sample_size(9.0, 32, 10)
    (1024, 640, 96, 10)
    """
    passes = max(_FEWEST_PASSES, int(_SECONDS / max(pass_seconds, 1e-6)))
    return min(most, passes * batch)


def timed_pass(forward: Forward, pixels: np.ndarray) -> tuple[float, tuple[np.ndarray, ...]]:
    """Time one forward pass; give its seconds and its rows."""
    started = time.perf_counter()
    rows = forward_rows(forward, pixels)
    return time.perf_counter() - started, rows


def run_trial(
    forward: Forward, source: Source, task: Task, pools: Pools, watch: Watch, pass_seconds: float
) -> Trial:
    """Run the first images of `task` into a temporary folder.

    `forward` is warm, and any beginning of `task` is a fair sample. The trial lacks its `start`.
    """
    count = sample_size(pass_seconds, forward.batch, len(task.keys))
    part = task._replace(keys=task.keys[:count], paths=task.paths[:count])
    with tempfile.TemporaryDirectory(prefix="bottleneck-trial-") as name:
        target = RowTarget(Path(name), forward.spec, forward.environment, "0" * 64, pass_seconds)
        started = time.perf_counter()
        (outcome,) = run_task(forward, source.read, part, [target], pools, watch)
        seconds = time.perf_counter() - started
        stored = sum(path.stat().st_size for path in Path(name).iterdir())
    write = outcome.clock.waited["write"]
    overhead = stored - outcome.computed * (forward.spec.row_bytes + 32)
    return Trial(count, 0.0, seconds - write, write, overhead, forward.batch, outcome.clock)
