"""Hold the base and run tasks, asked by pickles on standard streams."""

from __future__ import annotations

import contextlib
import copy
import os
import pickle
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from queue import SimpleQueue
from typing import Any, BinaryIO

import numpy as np

from bottleneck.bases import specs as catalogued
from bottleneck.bases.custom import is_function
from bottleneck.contracts import Forward, Preparing, Source, Tunable
from bottleneck.errors import Rejected
from bottleneck.extraction.independence import Canary
from bottleneck.extraction.worker.image_reader import Watch
from bottleneck.extraction.worker.messages import (
    BaseReady,
    Care,
    Compute,
    Failure,
    ImagesDone,
    Open,
    Proof,
    Prove,
    Search,
    Touching,
    Try,
)
from bottleneck.extraction.worker.row_writer import RowTarget
from bottleneck.extraction.worker.task import IN_FLIGHT, Pools, TaskOutcome, recorded_outcome, run_task
from bottleneck.extraction.worker.trial import Trial, run_trial
from bottleneck.forward.batch_size import climb, within_memory
from bottleneck.forward.cuts import specs_of
from bottleneck.forward.drift import probe_drift
from bottleneck.schema import BaseRequest, Cache, Task, ViewPolicy
from bottleneck.store.canary import CANARY, compare_canary, compare_decoder, hash_of
from bottleneck.store.header import begin_store, find_store, publish_drift, read_drift
from bottleneck.system.process import die_with_parent, import_tensorflow, take_streams

#: Seconds that a first file is waited for.
_FIRST_FILE = 10.0


class Worker:
    """A base, opened once, and the stores of its rows.

    Parameters
    ----------
    forward : Forward
    source : Source
        Of the images of its tasks.
    cache : Cache
    requests : sequence of BaseRequest
        How the base was asked for, at each of its cuts: a store that is founded here remembers it.
    threads : int, optional
        How many decode, where the machine is shared with other workers.
    """

    def __init__(
        self,
        forward: Forward,
        source: Source,
        cache: Cache,
        requests: Sequence[BaseRequest] = (),
        threads: int | None = None,
    ) -> None:
        self.forward = forward
        self.pace = 0.0
        self.specs = specs_of(forward)
        self._source, self._cache = source, cache
        self._requests = requests
        self._targets: dict[tuple[ViewPolicy | None, int], RowTarget] = {}
        # What the catalog builds is known to be steady, and a pass of a slow base takes its time.
        self._canaries = Canary(forward, bool(requests) and requests[0].base.lower() in catalogued())
        self._first: Future[None] | None = None
        # One more than there are processors: each waits for its file now and then.
        self._pools = Pools(
            ThreadPoolExecutor(threads or 1 + (os.cpu_count() or 1), thread_name_prefix="decode"),
            ThreadPoolExecutor(min(IN_FLIGHT, threads or IN_FLIGHT), thread_name_prefix="forward"),
        )

    def compute(self, task: Task, on_progress: Callable[[int], None]) -> tuple[TaskOutcome, ...]:
        """Run one task; the first founds and checks the stores."""
        self.see_first(task)
        return self.run(task, Watch(on_progress), Care())

    def reopen_source(self) -> None:
        """Take a new copy of the source: archives may have been replaced."""
        self._source = copy.deepcopy(self._source)

    def run(self, task: Task, watch: Watch, care: Care) -> tuple[TaskOutcome, ...]:
        """Run one task, watched, and with care."""
        targets = self.targets(task)
        if care != Care():
            done = [recorded_outcome(task, target, care) for target in targets]
            if all(done):
                # Committed already: by a worker that died before it could say so, or by another builder.
                watch.on_progress(len(task.keys))
                return tuple(outcome for outcome in done if outcome is not None)
        outcomes = run_task(self.forward, self._source.read, task, targets, self._pools, watch, care)
        if self.specs[0].recipe.precision != "float32" and task.views is None:
            self._tell_drift(task, targets)
        return outcomes

    def attempt(
        self,
        task: Task,
        on_progress: Callable[[int], None],
        warm: Callable[[float], None] = lambda _: None,
    ) -> Trial:
        """Run a sample of `task`, store nothing; `warm` gets seconds a pass."""
        started = time.perf_counter()
        self.see_first(task)
        self._canary()
        if isinstance(self.forward, Preparing):
            # A run would be set up early in its first task; in a sample that is much of the time.
            self.forward.ready(len(task.keys))
        start = time.perf_counter() - started
        warm(self.pace)
        trial = run_trial(self.forward, self._source, task, self._pools, Watch(on_progress), self.pace)
        return replace(trial, start=start)

    def see_first(self, task: Task) -> None:
        """Set up decoding for files like the first of `task`.

        This runs beside the forward pass, which waits for it.
        Not for a task that is run with care: this touches a file that was not named before.
        """
        if self._first is None and not self._canaries.rows and isinstance(self.forward, Preparing):
            self._first = self._pools.decode.submit(_seen, self.forward, self._source, task.paths[0])

    def best_batch(self, images: int, long: float, tried: Callable[[int], None]) -> int | None:
        """Search the best batch shape for a run.

        None where `images` would take less than `long` seconds, or no other shape can be tried.
        """
        self._canary()
        forward = self.forward
        if images * self.pace / forward.batch < long or not isinstance(forward, Tunable):
            return None
        rate = within_memory(forward.rate)

        def rate_and_tell(batch: int) -> float:
            tried(1)
            return rate(batch)

        return climb(rate_and_tell, forward.batch)

    def prove(self) -> Proof:
        """Compute the canary pictures at each cut."""
        return Proof(self._canary(), self._environment)

    def targets(self, task: Task) -> list[RowTarget]:
        """Give where rows go; the first call founds stores, measures `pace`."""
        for cut in task.cuts:
            if (task.views, cut) not in self._targets:
                self._targets[task.views, cut] = self._open_target(cut, task.views)
        return [self._targets[task.views, cut] for cut in task.cuts]

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._pools.decode.shutdown(cancel_futures=True)
        self._pools.forward.shutdown(cancel_futures=True)

    def _open_target(self, cut: int, views: ViewPolicy | None) -> RowTarget:
        spec = self.specs[cut].model_copy(update={"views": views})
        rows = self._canary()[cut]
        if not (find_store(self._cache, spec)[0] / CANARY).exists():
            self._canaries.need_steady()
        folder, header = begin_store(self._cache, spec, self.forward.batch, self._resolved(cut))
        compare_decoder(folder, self._environment)
        compare_canary(folder, rows, spec)
        # The names in the files are the first builder's, so that all builders write the same bytes.
        return RowTarget(folder / "shards", header.spec, self._environment, hash_of(rows), self.pace, cut)

    @property
    def _environment(self) -> dict[str, str]:
        return {**self.forward.environment, "batch": str(self.forward.batch)}

    def _resolved(self, cut: int) -> BaseRequest | None:
        """Ask for the base so that any machine computes these rows."""
        if not self._requests:
            return None
        return self._requests[cut].computed_in(self.specs[cut].recipe.precision)

    def _tell_drift(self, task: Task, targets: Sequence[RowTarget]) -> None:
        """Publish once a store what its precision costs."""
        unmeasured = {
            target.cut: target.shards.parent for target in targets if not read_drift(target.shards.parent)
        }
        drifts = probe_drift(self.forward, self._source, task) if unmeasured else ()
        for cut, drift in enumerate(drifts):
            if drift is not None and cut in unmeasured:
                publish_drift(unmeasured[cut], drift)

    def _canary(self) -> tuple[np.ndarray, ...]:
        """Compute the canary pictures, thinned. Raises `UnsteadyBase`."""

        def meanwhile() -> None:
            if isinstance(self.forward, Preparing):
                if self._first is not None:
                    # Nobody watches the time yet: a file that does not come is left to its turn, which is watched.
                    wait([self._first], _FIRST_FILE)
                self.forward.ready()

        rows = self._canaries.compute(meanwhile)
        self.pace = self._canaries.pace
        return rows


def _seen(forward: Forward, source: Source, path: bytes) -> None:
    # What cannot be read or decoded is reported when its turn comes.
    with contextlib.suppress(OSError, Rejected):
        forward.decode(source.read(path))


def serve(asks: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until the asking side closes; then end at once."""
    worker: Worker | None = None
    asked: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_listen, args=(asks, asked), daemon=True).start()

    def answer(value: Any) -> None:
        pickle.dump(value, answers, protocol=pickle.HIGHEST_PROTOCOL)
        answers.flush()

    def ready(pace: float) -> None:
        answer(BaseReady(pace))

    watch = Watch(
        lambda count: answer(ImagesDone(count)), lambda stage, images: answer(Touching(stage, images))
    )
    while True:
        ask = asked.get()
        try:
            if isinstance(ask, Open):
                worker = Worker(_opened(ask), ask.source, ask.cache, ask.requests, ask.threads)
                answer(worker.specs)
            elif isinstance(ask, Compute) and worker is not None:
                worker.reopen_source()
                if not ask.care.careful:
                    worker.see_first(ask.task)
                worker.targets(ask.task)
                ready(worker.pace)
                answer(worker.run(ask.task, watch, ask.care))
            elif isinstance(ask, Try) and worker is not None:
                answer(worker.attempt(ask.task, watch.on_progress, ready))
            elif isinstance(ask, Prove) and worker is not None:
                answer(worker.prove())
            elif isinstance(ask, Search) and worker is not None:
                answer(worker.best_batch(ask.images, ask.long, watch.on_progress))
            else:
                raise TypeError(f"asked for {type(ask).__name__} with{'' if worker else 'out'} a base")
        except BrokenPipeError:
            return  # the parent is gone; so is the reason to go on
        except Exception as error:
            answer(Failure.of(error, filling=isinstance(ask, Compute)))


def _opened(ask: Open) -> Forward:
    from bottleneck.forward.keras_forward import open_forward

    # A function of the user's may give a base without TensorFlow, and imports what it wants.
    if not is_function(ask.requests[0].base):
        import_tensorflow()
    return open_forward(ask.requests, ask.cache)


def _listen(asks: BinaryIO, asked: SimpleQueue[Any]) -> None:
    """Queue requests; end the process when the asking side is gone."""
    while True:
        try:
            ask = pickle.load(asks)
        except Exception:
            os._exit(0)
        asked.put(ask)


def main() -> None:
    """Run the worker process."""
    die_with_parent()
    serve(*take_streams())


if __name__ == "__main__":
    main()
