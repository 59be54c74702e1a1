"""Give tasks to the workers of an engine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from queue import SimpleQueue

from bottleneck import catalog
from bottleneck.contracts import Engine, EngineWorker
from bottleneck.extraction.engines.supervisor import Assignment, shared_probe
from bottleneck.extraction.worker.task import TaskOutcome
from bottleneck.schema import Inventory, Task, WorkerConfig


@contextmanager
def start_pool(config: WorkerConfig, assignment: Assignment, inventory: Inventory) -> Iterator[WorkerPool]:
    """Start the engine of `config`, and end it at once when left.

    Raises
    ------
    EngineError
        Its workers cannot be had, or do not see the source and the cache.
    """
    engine_class = catalog.load("engine", catalog.ENGINES, config.engine)
    opening = assignment.opening
    with shared_probe(opening.source, inventory, opening.cache) as probe:
        engine: Engine = engine_class(config, replace(assignment, probe=probe, threads=config.threads))
        gathered: WorkerPool | None = None
        try:
            with engine as workers:
                gathered = WorkerPool(workers)
                yield gathered
        finally:
            if gathered is not None:
                gathered.dismiss()


class WorkerPool:
    """Gives each task to a free worker."""

    def __init__(self, workers: Sequence[EngineWorker]) -> None:
        # One task more than there are workers, so that none waits for us; yet each holds a lock that others want.
        self.room = len(workers) + 1
        self._free: SimpleQueue[EngineWorker] = SimpleQueue()
        for worker in workers:
            self._free.put(worker)
        self._threads = ThreadPoolExecutor(len(workers), thread_name_prefix="engine-worker")
        self._counting = threading.Lock()

    def begin(self, task: Task, on_progress: Callable[[int], None]) -> Future[tuple[TaskOutcome, ...]]:
        """Queue a task for the next free worker."""
        return self._threads.submit(self._run, task, on_progress)

    def dismiss(self) -> None:
        """Forget queued tasks; wait for the rest, which their engine ends."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _run(self, task: Task, on_progress: Callable[[int], None]) -> tuple[TaskOutcome, ...]:
        counted = 0

        def done(images: int) -> None:
            nonlocal counted
            with self._counting:  # several workers tell one bar
                on_progress(images - counted)
                counted = images

        worker = self._free.get()
        try:
            outcomes: tuple[TaskOutcome, ...] = worker.compute(task, done)
        finally:
            self._free.put(worker)
        # What a worker tells on the way may come late or never.
        done(len(task.keys))
        return outcomes
