"""One task: bytes read, hashed, decoded, passed through the base, and committed as one shard."""

from __future__ import annotations

import errno
import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bottleneck.contracts import Forward, Source
from bottleneck.errors import Rejected
from bottleneck.schema import RejectedContent, Rejection, StoreSpec, Task
from bottleneck.store.record import commit


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes
    ----------
    task : str
    computed : int
        Rows committed.
    rejections : tuple of Rejection
        Images without a row, with path and reason; those that concern the bytes are in the record too.
    moved : tuple of bytes
        Paths whose file vanished or holds other bytes than planned: to be scanned and planned again.
    seconds : mapping of str to float
        Where this thread's time went: ``decode`` (waiting for pixels), ``forward``, ``write``.
    """

    task: str
    computed: int
    rejections: tuple[Rejection, ...] = ()
    moved: tuple[bytes, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)


#: Forward passes under way at once: while one ends in its small last layers, the next fills the processor.
IN_FLIGHT = 2


class _Moved(Exception):
    """The file is not what was planned."""


@dataclass(frozen=True)
class Place:
    """Where a task's shard goes and what its record says of this machine."""

    shards: Path
    spec: StoreSpec
    environment: Mapping[str, str]
    canary: str


@dataclass(frozen=True)
class Pools:
    """Threads that read and decode ahead, and threads that wait for forward passes."""

    decode: ThreadPoolExecutor
    forward: ThreadPoolExecutor


def run_task(
    forward: Forward,
    source: Source,
    task: Task,
    place: Place,
    pools: Pools,
    moved_on: Callable[[int], None],
) -> Outcome:
    """Compute the rows of `task` and commit them.

    Bits do not depend on order or neighbours: every forward pass has one constant, padded batch shape.

    Parameters
    ----------
    forward : Forward
    source : Source
    task : Task
    place : Place
    pools : Pools
    moved_on : callable
        Told how many images are done, a batch at a time.

    Returns
    -------
    Outcome
    """
    spec = place.spec
    stored = np.dtype(spec.recipe.dtype)
    features = np.empty((len(task.keys), *spec.shape), stored)
    kept: list[int] = []
    rejections: list[Rejection] = []
    moved: list[bytes] = []
    clock = {"decode": 0.0, "forward": 0.0, "write": 0.0}
    waiting: list[tuple[int, np.ndarray]] = []
    running: deque[tuple[list[int], Future[np.ndarray]]] = deque()

    def refuse(index: int, why: Rejected) -> None:
        path = task.paths[index].decode("utf-8", "backslashreplace")
        content = task.keys[index].tobytes().hex() if why.stage != "read" else ""
        rejections.append(
            Rejection(content=content, path=path, stage=why.stage, reason=why.reason[:500], retry=why.retry)
        )

    def launch() -> None:
        pixels = np.zeros((forward.batch, spec.recipe.pixels.height, spec.recipe.pixels.width, 3), np.float32)
        for slot, (_, image) in enumerate(waiting):
            pixels[slot] = image
        running.append(([index for index, _ in waiting], pools.forward.submit(forward.features, pixels)))
        waiting.clear()
        if len(running) > IN_FLIGHT:
            collect()

    def collect() -> None:
        started = time.perf_counter()
        indices, future = running.popleft()
        rows = future.result()
        clock["forward"] += time.perf_counter() - started
        for index, full in zip(indices, rows, strict=False):  # the padding has no index
            with np.errstate(over="ignore"):
                row = full.astype(stored, copy=False)
            if np.isfinite(row).all():
                features[len(kept)] = row
                kept.append(index)
            else:
                refuse(index, _not_finite(full, spec))
        moved_on(len(indices))

    for index, result in _in_order(forward, source, task, pools.decode, clock):
        if isinstance(result, _Moved):
            moved.append(task.paths[index])
        elif isinstance(result, Rejected):
            refuse(index, result)
        else:
            waiting.append((index, result))
            if len(waiting) == forward.batch:
                launch()
            continue
        moved_on(1)
    if waiting:
        launch()
    while running:
        collect()

    started = time.perf_counter()
    # What circumstances are to blame for is tried again by the next run, so no record holds it.
    bad = [
        RejectedContent(content=r.content, stage=r.stage, reason=r.reason)
        for r in rejections
        if r.content and not r.retry
    ]
    if kept or bad:
        commit(
            place.shards,
            task.id,
            spec,
            np.ascontiguousarray(task.keys[kept]),
            features[: len(kept)],
            rejected=bad,
            environment=place.environment,
            canary=place.canary,
        )
    clock["write"] = time.perf_counter() - started
    return Outcome(task.id, len(kept), tuple(rejections), tuple(moved), clock)


def _in_order(
    forward: Forward, source: Source, task: Task, pool: ThreadPoolExecutor, clock: dict[str, float]
) -> Iterator[tuple[int, np.ndarray | Rejected | _Moved]]:
    """Decoded images in task order, a bounded number of them ahead."""
    ahead: deque[tuple[int, Future[np.ndarray]]] = deque()
    upcoming = iter(enumerate(task.paths))
    bound = 2 * forward.batch + 8
    while True:
        while len(ahead) < bound:
            index, path = next(upcoming, (-1, b""))
            if index < 0:
                break
            ahead.append((index, pool.submit(_pixels, forward, source, path, task.keys[index])))
        if not ahead:
            return
        index, future = ahead.popleft()
        started = time.perf_counter()
        error = future.exception()
        clock["decode"] += time.perf_counter() - started
        if error is None:
            yield index, future.result()
        elif isinstance(error, (Rejected, _Moved)):
            yield index, error
        else:
            raise error


def _pixels(forward: Forward, source: Source, path: bytes, key: np.ndarray) -> np.ndarray:
    """Read once, hash, and decode that very buffer: the key then names what was decoded."""
    try:
        data = source.read(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise _Moved from error
        raise Rejected("read", error.strerror or str(error), retry=True) from error
    if hashlib.sha256(data).digest() != key.tobytes():
        raise _Moved
    return forward.decode(data)


def _not_finite(row: np.ndarray, spec: StoreSpec) -> Rejected:
    if np.isfinite(row).all():
        largest = float(np.abs(row).max())
        return Rejected(
            "forward", f"a feature of {largest:g} does not fit float16 (65504); use --dtype float32"
        )
    return Rejected("forward", f"the base {spec.base} gave NaN or infinity for this image")
