"""Run workers in the processes of a Dask cluster.

A task is sent when a worker is free for it; the scheduler chooses which, and sends it again where a process dies. What
has the base is a worker process below Dask's own, held by the one supervisor that a process has of a run.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

from bottleneck.contracts import EngineWorker
from bottleneck.errors import BottleneckError, EngineError
from bottleneck.extraction.engines.relay import relay_errors
from bottleneck.extraction.engines.supervisor import (
    Assignment,
    Supervisor,
    compute_or_failure,
    outcomes_or_raise,
)
from bottleneck.extraction.resources import WorkerSlot, gpus_here, number_slots
from bottleneck.extraction.worker.channel import WorkerDied
from bottleneck.extraction.worker.messages import Failure
from bottleneck.extraction.worker.task import TaskOutcome
from bottleneck.schema import Task, WorkerConfig

#: Tries of a task whose worker process died of something that is no image's fault, or whose own code broke.
_RETRIES = 2
#: Seconds between two words on how far a task is.
_NEWS = 0.5
#: Seconds to reach a scheduler.
_CONNECT = 20

#: In a process of Dask's: the supervisor of each run.
_supervisors: dict[str, Supervisor] = {}
_over: set[str] = set()
_making = threading.Lock()


class DaskEngine:
    """A client of a Dask scheduler.

    Parameters
    ----------
    config : WorkerConfig
        With an address, `workers` bounds how many tasks are there at once; without, as many processes are started.
    assignment : Assignment
    """

    def __init__(self, config: WorkerConfig, assignment: Assignment) -> None:
        self._config, self._assignment = config, assignment
        self._topic = f"bottleneck-{assignment.token}"
        self._open = ExitStack()
        self._listeners: dict[str, Callable[[int], None]] = {}

    def __enter__(self) -> Sequence[EngineWorker]:
        with ExitStack() as opening:
            client = opening.enter_context(_connected(self._config, opening))
            # The last to be entered is the first to go: no worker goes on for a parent that has left.
            opening.callback(self._end_supervisors, client)
            slots = self._start_supervisors(client)
            client.subscribe_topic(self._topic, self._news)
            self._open = opening.pop_all()
        count = min(self._config.workers or len(slots), len(slots))
        return [_DaskWorker(client, self._assignment, slots, self._listeners) for _ in range(count)]

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _start_supervisors(self, client: Any) -> dict[str, WorkerSlot]:
        """Have every process check its machine; give its slot.

        A process is named by its nanny, which outlives it, or else by itself.
        """
        workers = client.scheduler_info()["workers"]
        if not workers:
            raise _no_workers(self._config)
        names = [str(worker.get("nanny") or address) for address, worker in workers.items()]
        slots = dict(zip(names, number_slots([worker["host"] for worker in workers.values()]), strict=True))
        answers = client.run(_start, self._assignment, slots, workers=list(workers), on_error="return")
        for address, came in answers.items():
            if isinstance(came, Failure):
                raise came.error()
            if isinstance(came, Exception):
                raise EngineError(
                    f"the Dask worker at {address} cannot start ({type(came).__name__}: {came}): "
                    f"it needs bottleneck-features {self._assignment.version} too"
                )
        return slots

    def _end_supervisors(self, client: Any) -> None:
        with suppress(Exception):  # whoever is gone has ended its worker already
            client.run(_end, self._assignment.token, on_error="ignore")

    def _news(self, event: tuple[float, Mapping[str, Any]]) -> None:
        _, news = event
        listener = self._listeners.get(news["call"])
        if listener is not None:
            listener(news["done"])


class DaskReaders:
    """Read files in a Dask cluster; again elsewhere where a process dies.

    `config` has an address.
    """

    def __init__(self, config: WorkerConfig) -> None:
        self.room = 0
        self._config = config
        self._open = ExitStack()
        self._pool: Any = None

    def __enter__(self) -> DaskReaders:
        with ExitStack() as opening:
            client = opening.enter_context(_connected(self._config, opening))
            threads = sum(client.nthreads().values())
            if not threads:
                raise _no_workers(self._config)
            # One call in hand and one that waits, for each thread that may read.
            self.room = 2 * threads
            self._pool = client.get_executor(pure=False, retries=_RETRIES)
            opening.callback(self._pool.shutdown, wait=False)
            self._open = opening.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def submit(self, work: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        """As `Readers.submit`."""
        return relay_errors(self._pool.submit(work, *arguments), "dask")


@dataclass(frozen=True, eq=False)
class _DaskWorker:
    """One task at a time, on whichever worker the scheduler finds free."""

    client: Any
    assignment: Assignment
    slots: dict[str, WorkerSlot]
    listeners: dict[str, Callable[[int], None]]

    def compute(self, task: Task, done: Callable[[int], None]) -> tuple[TaskOutcome, ...]:
        from distributed import CancelledError, KilledWorker

        call = secrets.token_hex(8)
        self.listeners[call] = done
        try:
            future = self.client.submit(
                _compute, self.assignment, self.slots, task, call, pure=False, retries=_RETRIES
            )
            return outcomes_or_raise(future.result())
        except BottleneckError:
            raise
        except KilledWorker as error:
            raise WorkerDied(
                f"Dask's worker processes were killed again and again at one task ({error}). Finished shards are "
                "kept; the same command goes on from there"
            ) from error
        except (CancelledError, Exception) as error:
            raise EngineError(f"--engine dask: {type(error).__name__}: {error}") from error
        finally:
            del self.listeners[call]


def _connected(config: WorkerConfig, opening: ExitStack) -> Any:
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise EngineError(f'--engine dask: {error}: pip install "bottleneck-features[dask]"') from error
    try:
        if config.address:
            return Client(config.address, timeout=_CONNECT)
        cluster = opening.enter_context(
            LocalCluster(
                n_workers=config.workers or len(gpus_here()) or 1,
                threads_per_worker=1,
                processes=True,
                dashboard_address="127.0.0.1:0",
                # Its processes hold next to nothing; what our worker may hold is --memory-limit's.
                memory_limit=None,
                # Above CRITICAL: news for a client that has just left is such a line, with a traceback.
                silence_logs=logging.CRITICAL + 1,
            )
        )
        return Client(cluster, timeout=_CONNECT)
    except (OSError, TimeoutError, ValueError) as error:
        raise EngineError(
            f"--engine dask: no scheduler answers at {config.address or 'this machine'} ({error}); "
            "expected the address that `dask scheduler` prints, such as tcp://host:8786"
        ) from error


def _no_workers(config: WorkerConfig) -> EngineError:
    return EngineError(f"--engine dask: the scheduler at {config.address} has no workers yet")


def _supervisor(worker: Any, assignment: Assignment, slots: Mapping[str, WorkerSlot]) -> Supervisor:
    """Get this process's supervisor, made at its first call."""
    with _making:
        if assignment.token in _over:
            raise EngineError("the run was ended")
        if assignment.token not in _supervisors:
            # One that joined later shares with those that were there.
            slot = slots.get(
                str(worker.nanny or worker.address), WorkerSlot(0, max(p.of for p in slots.values()))
            )
            _supervisors[assignment.token] = Supervisor(assignment, slot)
        return _supervisors[assignment.token]


def _start(assignment: Assignment, slots: Mapping[str, WorkerSlot], dask_worker: Any) -> Failure | None:
    try:
        _supervisor(dask_worker, assignment, slots)
    except BottleneckError as error:
        return Failure(type(error), str(error))
    return None


def _end(token: str) -> None:
    with _making:
        _over.add(token)
        supervisor = _supervisors.pop(token, None)
    if supervisor is not None:
        supervisor.end()


def _compute(
    assignment: Assignment, slots: Mapping[str, WorkerSlot], task: Task, call: str
) -> tuple[TaskOutcome, ...] | Failure:
    from distributed import get_worker

    worker, topic, reported = get_worker(), f"bottleneck-{assignment.token}", 0.0

    def done(images: int) -> None:
        nonlocal reported
        if time.monotonic() - reported > _NEWS:
            reported = time.monotonic()
            worker.log_event(topic, {"call": call, "done": images})

    return compute_or_failure(lambda: _supervisor(worker, assignment, slots), task, done)
