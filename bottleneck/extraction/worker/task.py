"""Run one task, from files to one committed shard."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from bottleneck.contracts import Forward
from bottleneck.errors import Rejected
from bottleneck.extraction.profile import Clock, Stopwatch
from bottleneck.extraction.worker.image_reader import FileChanged, ImageReader, Watch
from bottleneck.extraction.worker.messages import Care
from bottleneck.extraction.worker.row_writer import RowTarget, RowWriter
from bottleneck.forward.cuts import forward_rows
from bottleneck.schema import Rejection, Task
from bottleneck.store.commit import read_sound_record


@dataclass(frozen=True)
class TaskOutcome:
    """What became of a task.

    Attributes
    ----------
    task : str
    computed : int
        Rows committed.
    rejections : tuple of Rejection
        Images without a row, with path and reason; in the record too, where their content is certain.
    moved : tuple of bytes
        Paths whose file vanished or holds other bytes than planned: to be scanned and planned again.
    clock : Clock
        Where the time went.
    """

    task: str
    computed: int
    rejections: tuple[Rejection, ...] = ()
    moved: tuple[bytes, ...] = ()
    clock: Clock = field(default_factory=Clock)


#: Forward passes under way at once: while one ends in its small last layers, the next fills the processor.
IN_FLIGHT = 2


@dataclass(frozen=True)
class Pools:
    """Threads that decode ahead, and threads that await forward passes."""

    decode: ThreadPoolExecutor
    forward: ThreadPoolExecutor


def recorded_outcome(task: Task, target: RowTarget, care: Care) -> TaskOutcome | None:
    """Read the outcome from a record of all its contents, or None.

    One that blames circumstances in another way than `care` is of an earlier run: this one looks at it again.
    """
    refused = {(why.content, why.circumstances, why.final) for why in care.refused.values()}
    for attempt in itertools.count():
        name = f"{task.id}.{attempt}.json" if attempt else f"{task.id}.json"
        if not (target.shards / name).exists():
            return None
        record = read_sound_record(target.shards, name, target.spec)
        unsure = record is not None and any(
            why.retry and (why.content, why.circumstances, why.final) not in refused
            for why in record.rejected
        )
        if record is not None and not unsure and record.rows + len(record.rejected) == len(task.keys):
            paths = {key.tobytes().hex(): path for key, path in zip(task.keys, task.paths, strict=True)}
            rejections = tuple(
                Rejection(**why.model_dump(), path=paths[why.content].decode("utf-8", "backslashreplace"))
                for why in record.rejected
            )
            return TaskOutcome(task.id, record.rows, rejections)
    raise AssertionError("unreachable")


def run_task(
    forward: Forward,
    read: Callable[[bytes], bytes],
    task: Task,
    targets: Sequence[RowTarget],
    pools: Pools,
    watch: Watch,
    care: Care = Care(),  # noqa: B008 - frozen
) -> tuple[TaskOutcome, ...]:
    """Compute the rows of `task` and commit them.

    Bits do not depend on order, neighbours or care: every forward pass has one constant, padded batch shape.

    `targets` has one for each cut that rows are wanted of, and so has what is returned. The first one is committed
    last: its record ends the task.
    """
    pace = targets[0].pace
    stopwatch = Stopwatch(forward.batch / pace if pace else None)
    rows = _TaskRows(forward, task, targets, pools, watch, care, stopwatch)
    moved: list[bytes] = []
    for index, result in ImageReader(forward, read, task, pools.decode, stopwatch, watch, care):
        if isinstance(result, FileChanged):
            moved.append(task.paths[index])
            watch.on_progress(1)
        elif isinstance(result, Rejected):
            rows.refuse(index, result)
            watch.on_progress(1)
        else:
            rows.add(index, result)
    rows.finish()

    started = time.perf_counter()
    watch.touch("write", ())
    for writer in reversed(rows.writers):
        writer.commit(task)
    stopwatch.waited["write"] += time.perf_counter() - started
    clock = stopwatch.clock()
    return tuple(
        TaskOutcome(task.id, len(writer.kept), tuple(writer.rejections), tuple(moved), clock)
        for writer in rows.writers
    )


class _TaskRows:
    """Turns pixels into the rows of each cut."""

    def __init__(
        self,
        forward: Forward,
        task: Task,
        targets: Sequence[RowTarget],
        pools: Pools,
        watch: Watch,
        care: Care,
        stopwatch: Stopwatch,
    ) -> None:
        self._forward, self._task, self._watch, self._care = forward, task, watch, care
        self._stopwatch = stopwatch
        self._pool = pools.forward
        self.writers = [RowWriter(task, target, care) for target in targets]
        self._waiting: list[tuple[int, np.ndarray]] = []
        self._running: deque[tuple[list[int], np.ndarray, Future[tuple[np.ndarray, ...]]]] = deque()
        size = forward.spec.recipe.pixels
        self._shape = (forward.batch, size.height, size.width, 3)
        # A batch of photographs is 20 MB: memory that is fresh each time costs more to fault in than to fill.
        self._idle: list[np.ndarray] = []

    def refuse(self, index: int, why: Rejected) -> None:
        for writer in self.writers:
            writer.rejections.append(self._rejection(index, why))

    def add(self, index: int, pixels: np.ndarray) -> None:
        """Take an image; a full batch starts a forward pass."""
        if index in self._care.alone:
            self._launch()
        self._waiting.append((index, pixels))
        if len(self._waiting) == self._forward.batch or index in self._care.alone:
            self._launch()

    def finish(self) -> None:
        self._launch()
        while self._running:
            self._collect()

    def _launch(self) -> None:
        if not self._waiting:
            return
        pixels = self._idle.pop() if self._idle else np.empty(self._shape, np.float32)
        for slot, (_, image) in enumerate(self._waiting):
            pixels[slot] = image
        pixels[len(self._waiting) :] = 0
        indices = [index for index, _ in self._waiting]
        self._waiting.clear()
        self._stopwatch.first_pass(len(indices))
        if self._care.careful:
            self._watch.touch("forward", tuple(indices))
        self._running.append((indices, pixels, self._pool.submit(forward_rows, self._forward, pixels)))
        while len(self._running) > (0 if self._care.careful else IN_FLIGHT):
            self._collect()

    def _collect(self) -> None:
        started = time.perf_counter()
        indices, pixels, future = self._running.popleft()
        rows = future.result()
        self._idle.append(pixels)
        self._stopwatch.waited["forward"] += time.perf_counter() - started
        for writer in self.writers:
            for index, row in zip(indices, rows[writer.target.cut], strict=False):  # the padding has no index
                why = writer.add(index, row)
                if why is not None:
                    writer.rejections.append(self._rejection(index, why))
        self._watch.on_progress(len(indices))

    def _rejection(self, index: int, why: Rejected) -> Rejection:
        path = self._task.paths[index].decode("utf-8", "backslashreplace")
        # A file that could not be read may hold anything by now.
        content = self._task.keys[index].tobytes().hex() if why.stage != "read" else ""
        return Rejection(
            content=content,
            path=path,
            stage=why.stage,
            reason=why.reason[:500],
            retry=why.retry,
            circumstances=why.circumstances,
            final=bool(why.circumstances),
        )
