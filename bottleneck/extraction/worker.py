"""The worker: holds the base, runs tasks. In a process of its own it talks by pickles on its standard streams."""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bottleneck.contracts import Forward, Source
from bottleneck.errors import BottleneckError, ForeignEnvironment, StoreError
from bottleneck.extraction.messages import Compute, Failure, Moved, Open
from bottleneck.extraction.task import IN_FLIGHT, Outcome, Place, Pools, run_task
from bottleneck.files import publish
from bottleneck.images.probes import probes
from bottleneck.schema import Cache, StoreSpec, Task
from bottleneck.store.header import found

CANARY_IMAGES = 8
_CANARY_VALUES = 4096
_CANARY_TOLERANCE = 1e-4


class Worker:
    """A base, opened once, and the place where its rows go, founded once.

    Parameters
    ----------
    forward : Forward
    cache : Cache
    """

    def __init__(self, forward: Forward, cache: Cache) -> None:
        self.forward = forward
        self._cache = cache
        self._place: Place | None = None
        # One more than there are processors: each waits for its file now and then.
        self._pools = Pools(
            ThreadPoolExecutor(1 + (os.cpu_count() or 1), thread_name_prefix="decode"),
            ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="forward"),
        )

    @property
    def spec(self) -> StoreSpec:
        """What the rows are."""
        return self.forward.spec

    def compute(self, source: Source, task: Task, moved_on: Callable[[int], None]) -> Outcome:
        """Run one task; the first founds the store and checks that this machine's numbers belong there."""
        if self._place is None:
            self._place = self._found()
        return run_task(self.forward, source, task, self._place, self._pools, moved_on)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._pools.decode.shutdown(cancel_futures=True)
        self._pools.forward.shutdown(cancel_futures=True)

    def _found(self) -> Place:
        folder, header = found(self._cache, self.spec, self.forward.batch)
        rows = self._canary()
        _compare_canary(folder, rows, self.spec)
        # The names in the files are the first builder's, so that all builders write the same bytes.
        return Place(
            folder / "shards",
            header.spec,
            {**self.forward.environment, "batch": str(self.forward.batch)},
            hashlib.sha256(rows.tobytes()).hexdigest(),
        )

    def _canary(self) -> np.ndarray:
        pixels = self.spec.recipe.pixels
        seen: list[np.ndarray] = []
        pictures = probes(CANARY_IMAGES, pixels.height, pixels.width)
        for start in range(0, CANARY_IMAGES, self.forward.batch):
            part = pictures[start : start + self.forward.batch]
            padded = np.zeros((self.forward.batch, *part.shape[1:]), np.float32)
            padded[: len(part)] = part
            seen.append(np.array(self.forward.features(padded)[: len(part)], np.float32))
        flat = np.concatenate(seen).reshape(CANARY_IMAGES, -1)
        # Large maps are sampled evenly: a store should not open with tens of megabytes of canary.
        return np.ascontiguousarray(flat[:, :: max(1, -(-flat.shape[1] // _CANARY_VALUES))])


def _compare_canary(folder: Path, rows: np.ndarray, spec: StoreSpec) -> None:
    path = folder / "canary.f32"
    if publish(path, rows.astype("<f4").tobytes()):
        return
    first = np.frombuffer(path.read_bytes(), "<f4")
    if first.size != rows.size:
        raise ForeignEnvironment(
            f"{path} holds {first.size} values where {rows.size} were expected: it is damaged; remove that one file"
        )
    first = first.reshape(rows.shape)
    spread = float(np.sqrt(first.var(axis=0).mean())) or 1.0
    largest = float(np.abs(first - rows).max()) / spread
    if not largest <= _CANARY_TOLERANCE:
        raise ForeignEnvironment(
            f"this machine computes other features for {spec.base} than the ones in {folder}: the canary images "
            f"differ by {largest:.2g} of their spread ({_CANARY_TOLERANCE:g} is rounding). Mixing them would not be "
            "one set of features: use another --cache, or the machine and versions that began this store"
        )


def serve(asks: BinaryIO, answers: BinaryIO) -> None:
    """Answer what is asked until the asking side closes."""
    worker: Worker | None = None

    def answer(value: Any) -> None:
        pickle.dump(value, answers, protocol=pickle.HIGHEST_PROTOCOL)
        answers.flush()

    while True:
        try:
            ask = pickle.load(asks)
        except EOFError:
            return
        try:
            if isinstance(ask, Open):
                from bottleneck.extraction.forward import open_forward

                worker = Worker(open_forward(ask.request, ask.cache), ask.cache)
                answer(worker.spec)
            elif isinstance(ask, Compute) and worker is not None:
                answer(worker.compute(ask.source, ask.task, lambda count: answer(Moved(count))))
            else:
                raise TypeError(f"asked for {type(ask).__name__} with{'' if worker else 'out'} a base")
        except BrokenPipeError:
            return  # the parent is gone; so is the reason to go on
        except Exception as error:
            answer(_failure(error))


def _failure(error: Exception) -> Failure:
    if isinstance(error, BottleneckError):
        return Failure(type(error), str(error))
    if isinstance(error, OSError):
        where = f" ({os.fsdecode(error.filename)})" if error.filename else ""
        return Failure(
            StoreError,
            f"{error.strerror or error}{where}. Finished shards are kept: once that is put right, "
            "the same command goes on",
        )
    import traceback

    traceback.print_exc()  # to the worker's log
    return Failure(BottleneckError, f"the worker failed: {type(error).__name__}: {error}")


def main() -> None:
    """Entry point of the process."""
    # Libraries print on standard output; the pickles must not meet them there.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    asks = os.fdopen(os.dup(0), "rb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin = None
    serve(asks, answers)


if __name__ == "__main__":
    main()
