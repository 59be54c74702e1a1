"""Keep one worker process on a machine, for an engine."""

from __future__ import annotations

import os
import platform
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue

from bottleneck import __version__
from bottleneck.contracts import Source
from bottleneck.errors import BaseError, BottleneckError, EngineError
from bottleneck.extraction.resources import WorkerSlot, cores_here, gpus_here, worker_resources
from bottleneck.extraction.worker.channel import WorkerDied
from bottleneck.extraction.worker.messages import Failure, Open
from bottleneck.extraction.worker.process import WorkerProcess
from bottleneck.extraction.worker.task import TaskOutcome
from bottleneck.inventory.source_probe import SourceProbe, probe_problem, probe_source
from bottleneck.schema import Cache, Inventory, Limits, StoreSpec, Task

#: Seconds without a task after which a supervisor lets its worker go: whoever asked may have died.
_IDLE = 300.0


@dataclass(frozen=True)
class SharedProbe:
    """What every worker must see: an image and a file."""

    image: SourceProbe | None
    path: Path
    token: str


@dataclass(frozen=True)
class Assignment:
    """What a supervisor is there for. It travels to other machines, pickled.

    Attributes
    ----------
    specs : tuple of StoreSpec
        What the rows of each cut were planned to be.
    probe : SharedProbe, optional
        What is checked before anything is computed.
    threads : int, optional
        Of each worker; by default its share of the machine's.
    version : str
        Of this package, where the run was started.
    token : str
        Names the run.
    """

    opening: Open
    limits: Limits
    specs: tuple[StoreSpec, ...]
    probe: SharedProbe | None = None
    threads: int | None = None
    version: str = __version__
    token: str = field(default_factory=lambda: secrets.token_hex(8))


@contextmanager
def shared_probe(source: Source, inventory: Inventory, cache: Cache) -> Iterator[SharedProbe]:
    """Write the file that workers must see, while some may start."""
    image = probe_source(source, (inventory[row].path for row in range(len(inventory))))
    token = secrets.token_hex(16)
    path = cache.root / f".probe-{token[:16]}.tmp"
    path.write_text(token, encoding="ascii")
    try:
        yield SharedProbe(image, path, token)
    finally:
        path.unlink(missing_ok=True)


def check_machine(assignment: Assignment) -> None:
    """Check that this machine can do its part.

    Raises
    ------
    EngineError
        It names the machine, and what it does not see.
    """
    probe, host = assignment.probe, f"{platform.node()} (process {os.getpid()})"
    if __version__ != assignment.version:
        raise EngineError(
            f"the worker on {host} has bottleneck-features {__version__}, this run {assignment.version}: "
            "install the same version there"
        )
    if probe is None:
        return
    root = assignment.opening.cache.root
    try:
        seen = probe.path.read_text(encoding="ascii")
        mine = probe.path.with_name(f"{probe.path.stem}.{platform.node()}.{os.getpid()}.tmp")
        mine.write_text(seen, encoding="ascii")
        mine.unlink()
    except OSError as error:
        raise EngineError(
            f"the worker on {host} does not see the cache {root} of this run, or cannot write to it "
            f"({error.strerror or error}): give a --cache on a file system that all workers share"
        ) from error
    if seen != probe.token:
        raise EngineError(f"the worker on {host} sees another cache at {root} than this run does")
    if probe.image is not None and (problem := probe_problem(assignment.opening.source, probe.image)):
        raise EngineError(problem)


class Supervisor:
    """One worker process and the one thread that starts it.

    The kernel ends a worker when the *thread* that started it ends, so that thread is the supervisor's own and lives
    as long; whoever calls may come from any thread.

    Parameters
    ----------
    assignment : Assignment
    slot : WorkerSlot
        Its place among the workers of this machine.

    Raises
    ------
    EngineError
        This machine does not see what it must.
    """

    def __init__(self, assignment: Assignment, slot: WorkerSlot) -> None:
        check_machine(assignment)
        self._assignment = assignment
        share = worker_resources(slot, cores_here(), gpus_here(), assignment.threads)
        self._worker = WorkerProcess(assignment.opening, assignment.limits, share)
        self._jobs: SimpleQueue[
            tuple[Future[tuple[TaskOutcome, ...]], Task, Callable[[int], None]] | None
        ] = SimpleQueue()
        self._asking, self._is_over = threading.Lock(), False
        self._thread = threading.Thread(target=self._serve, daemon=True, name="supervisor")
        self._thread.start()

    def compute(self, task: Task, done: Callable[[int], None]) -> tuple[TaskOutcome, ...]:
        """Run one task; `done` gets how many images are done so far."""
        future: Future[tuple[TaskOutcome, ...]] = Future()
        with self._asking:
            if self._is_over:
                raise EngineError("the worker was ended with its run")
            self._jobs.put((future, task, done))
        return future.result()

    def end(self) -> None:
        """End the worker at once, even in a task; later tasks fail."""
        self._worker.end()
        with self._asking:
            self._is_over = True
            self._jobs.put(None)
        self._thread.join()

    def _serve(self) -> None:
        with self._worker:
            while True:
                try:
                    job = self._jobs.get(timeout=_IDLE)
                except Empty:
                    self._worker.rest()
                    continue
                if job is None:
                    return
                future, task, done = job
                try:
                    future.set_result(self._compute(task, done))
                except Exception as error:
                    future.set_exception(error)

    def _compute(self, task: Task, done: Callable[[int], None]) -> tuple[TaskOutcome, ...]:
        for built, planned in zip(self._worker.specs, self._assignment.specs, strict=True):
            if built.recipe != planned.recipe:
                raise BaseError(
                    f"{planned.base} as built on {platform.node()} has recipe {built.recipe.fingerprint[:16]}, "
                    f"this run was planned for {planned.recipe.fingerprint[:16]}: the base's weights or code differ "
                    "there"
                )
        count = 0

        def on_progress(images: int) -> None:
            nonlocal count
            count += images
            done(count)

        return self._worker.compute(task, on_progress)


def compute_or_failure(
    supervisor: Callable[[], Supervisor], task: Task, done: Callable[[int], None]
) -> tuple[TaskOutcome, ...] | Failure:
    """Compute a task; give errors as values that any scheduler carries.

    A dead worker is raised, so that the scheduler tries again.
    """
    try:
        return supervisor().compute(task, done)
    except WorkerDied:
        raise
    except BottleneckError as error:
        return Failure(type(error), str(error))


def outcomes_or_raise(answered: tuple[TaskOutcome, ...] | Failure) -> tuple[TaskOutcome, ...]:
    """Undo `compute_or_failure`."""
    if isinstance(answered, Failure):
        raise answered.error()
    return answered
