"""Run workers in Ray actors.

One actor a worker, and one thread here that waits for it. An actor that dies is replaced, and its task given to the new
one.
"""

from __future__ import annotations

import os
import platform
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from bottleneck.contracts import EngineWorker
from bottleneck.errors import EngineError
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

#: Tries of a task whose actor or worker process died of something that is no image's fault.
_TRIES = 3
#: Seconds between two looks at how far a task is.
_NEWS = 0.5
#: Seconds to reach a cluster.
_KNOCK = 20.0
#: Seconds for an actor to be placed and to check its machine.
_PLACED = 120.0


class RayEngine:
    """A driver of a Ray cluster."""

    def __init__(self, config: WorkerConfig, assignment: Assignment) -> None:
        self._config, self._assignment = config, assignment
        self._open = ExitStack()

    def __enter__(self) -> Sequence[EngineWorker]:
        ray = _imported()
        with ExitStack() as opening:
            _connect(ray, self._config, opening)
            gpus = int(ray.cluster_resources().get("GPU", 0))
            nodes = sum(node["Alive"] for node in ray.nodes())
            count = self._config.workers or gpus or nodes
            # Ray shows an actor the one GPU that it was given, and the actor's worker sees what the actor does.
            needs = {"num_cpus": self._config.threads or 1, "num_gpus": 1 if gpus >= count else 0}
            kind = ray.remote(max_concurrency=4, **needs)(_Actor)
            workers = [_RayWorker(ray, kind, self._assignment) for _ in range(count)]
            for worker in workers:
                opening.callback(worker.end)
            hosts = [worker.host() for worker in workers]
            for worker, slot in zip(workers, number_slots(hosts), strict=True):
                worker.open(slot)
            self._open = opening.pop_all()
        return workers

    def __exit__(self, *_: object) -> None:
        self._open.close()


class RayReaders:
    """Read files in a Ray cluster; again elsewhere where a process dies.

    `config` has an address.
    """

    def __init__(self, config: WorkerConfig) -> None:
        self.room = 0
        self._config = config
        self._open = ExitStack()
        self._remote: Any = None

    def __enter__(self) -> RayReaders:
        ray = _imported()
        with ExitStack() as opening:
            _connect(ray, self._config, opening)
            # One call in hand and one that waits, for each processor.
            self.room = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
            self._remote = ray.remote(num_cpus=1, max_retries=_TRIES)(_called)
            self._open = opening.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def submit(self, work: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        """As `Readers.submit`."""
        return relay_errors(self._remote.remote(work, *arguments).future(), "ray")


def _called(work: Callable[..., Any], *arguments: Any) -> Any:
    return work(*arguments)


def _imported() -> Any:
    # Ray prints what happens to its processes on standard output, which is not its to write on. Read at import.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")
    try:
        import ray
    except ImportError as error:
        raise EngineError(f'--engine ray: {error}: pip install "bottleneck-features[ray]"') from error
    return ray


def _connect(ray: Any, config: WorkerConfig, opening: ExitStack) -> None:
    if ray.is_initialized():
        return  # the caller's own
    # Else Ray hides the GPUs from actors that ask for none, and warns that it will stop doing so.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    with _signals_kept():
        try:
            if config.address:
                _knock(config.address)
                ray.init(address=config.address, **quiet)
            else:
                workers = config.workers or len(gpus_here()) or 1
                cpus = workers * (config.threads or 1)
                ray.init(address="local", num_cpus=cpus, include_dashboard=False, **quiet)
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            raise EngineError(
                f"--engine ray: no cluster at {config.address or 'this machine'} ({error}); expected the "
                "address that `ray start` prints (host:6379), ray://host:10001 or auto"
            ) from error
    opening.callback(ray.shutdown)


def _knock(address: str) -> None:
    """Check that somebody listens there. Raises OSError.

    Ray itself would try for minutes.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK).close()


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Restore the signal handlers, since Ray takes SIGTERM for itself."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _RayWorker:
    """An actor, and another one when it dies."""

    def __init__(self, ray: Any, kind: Any, assignment: Assignment) -> None:
        self._ray, self._kind, self._assignment = ray, kind, assignment
        self._slot = WorkerSlot()
        self._busy = threading.Lock()
        self._is_over = False
        self._actor = kind.remote(assignment)

    def host(self) -> str:
        host: str = self._waited(self._actor.host.remote())
        return host

    def open(self, slot: WorkerSlot) -> None:
        """Have it check its machine. Raises `EngineError`."""
        self._slot = slot
        came = self._waited(self._actor.open.remote(slot))
        if isinstance(came, Failure):
            raise came.error()

    def compute(self, task: Task, done: Callable[[int], None]) -> tuple[TaskOutcome, ...]:
        with self._busy:
            for tried in range(1, _TRIES + 1):
                try:
                    return outcomes_or_raise(self._ask(task, done))
                except (WorkerDied, self._ray.exceptions.RayActorError) as error:
                    if self._is_over:
                        raise EngineError("the run was ended") from error
                    done(0)
                    if tried == _TRIES:
                        raise WorkerDied(
                            f"{error} {tried} times at one task. Finished shards are kept; the same command goes on "
                            "from there"
                        ) from error
                    if not isinstance(error, WorkerDied):
                        self._actor = self._kind.remote(self._assignment)
                        self.open(self._slot)
        raise AssertionError("unreachable")

    def end(self) -> None:
        """End the actor at once; its worker ends with it."""
        self._is_over = True
        with suppress(Exception):
            self._ray.kill(self._actor)
        # Whoever waits for it must have heard before the connection goes.
        if self._busy.acquire(timeout=10):
            self._busy.release()

    def _ask(self, task: Task, done: Callable[[int], None]) -> tuple[TaskOutcome, ...] | Failure:
        asked = self._actor.compute.remote(task)
        while not self._ray.wait([asked], timeout=_NEWS)[0]:
            done(self._ray.get(self._actor.done.remote()))
        answered: tuple[TaskOutcome, ...] | Failure = self._ray.get(asked)
        return answered

    def _waited(self, reference: Any) -> Any:
        try:
            return self._ray.get(reference, timeout=_PLACED)
        except self._ray.exceptions.GetTimeoutError as error:
            raise EngineError(
                f"--engine ray: a worker was not placed within {_PLACED:.0f} s: the cluster has "
                f"{self._ray.available_resources()} left; give fewer --workers or --threads"
            ) from error
        except self._ray.exceptions.RayError as error:
            raise EngineError(f"--engine ray: a worker cannot start: {error}") from error


class _Actor:
    """A supervisor in a process of Ray's, asked from several threads."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._supervisor: Supervisor | None = None
        self._done = 0

    def host(self) -> str:
        return platform.node()

    def process(self) -> int:  # for tests
        return os.getpid()

    def open(self, slot: WorkerSlot) -> Failure | None:
        try:
            self._supervisor = Supervisor(self._assignment, slot)
        except EngineError as error:
            return Failure(EngineError, str(error))
        return None

    def done(self) -> int:
        return self._done

    def compute(self, task: Task) -> tuple[TaskOutcome, ...] | Failure:
        self._done = 0

        def done(images: int) -> None:
            self._done = images

        assert self._supervisor is not None
        supervisor = self._supervisor
        try:
            return compute_or_failure(lambda: supervisor, task, done)
        except WorkerDied as error:
            return Failure(WorkerDied, str(error))
