"""Workers in the processes of a Dask cluster: one that is there, or one started here for the run.

A task is sent when a worker is free for it; the scheduler chooses which, and sends it again where a process dies.
What has the base is a worker process below Dask's own, held by the one supervisor that a process has of a run.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from typing import Any

from bottleneck.contracts import Seat
from bottleneck.errors import BottleneckError, EngineError
from bottleneck.extraction.engines.relay import relayed
from bottleneck.extraction.engines.supervisor import Assignment, Supervisor, answer, outcome_of
from bottleneck.extraction.resources import Post, gpus_here, posts
from bottleneck.extraction.worker.channel import WorkerDied
from bottleneck.extraction.worker.messages import Failure
from bottleneck.extraction.worker.task import Outcome
from bottleneck.schema import Task, Team

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
    team : Team
        With an address, `workers` bounds how many tasks are there at once; without, so many processes are started.
    assignment : Assignment
    """

    def __init__(self, team: Team, assignment: Assignment) -> None:
        self._team, self._assignment = team, assignment
        self._topic = f"bottleneck-{assignment.token}"
        self._open = ExitStack()
        self._told: dict[str, Callable[[int], None]] = {}

    def __enter__(self) -> Sequence[Seat]:
        with ExitStack() as opening:
            client = opening.enter_context(_connected(self._team, opening))
            # The last to be entered is the first to go: no worker goes on for a parent that has left.
            opening.callback(self._end_supervisors, client)
            places = self._start_supervisors(client)
            client.subscribe_topic(self._topic, self._news)
            self._open = opening.pop_all()
        count = min(self._team.workers or len(places), len(places))
        return [_Seat(client, self._assignment, places, self._told) for _ in range(count)]

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _start_supervisors(self, client: Any) -> dict[str, Post]:
        """Every process looks round before any computes; by its nanny, which outlives it, or itself: its place."""
        workers = client.scheduler_info()["workers"]
        if not workers:
            raise _no_workers(self._team)
        names = [str(worker.get("nanny") or address) for address, worker in workers.items()]
        places = dict(zip(names, posts([worker["host"] for worker in workers.values()]), strict=True))
        said = client.run(_start, self._assignment, places, workers=list(workers), on_error="return")
        for address, came in said.items():
            if isinstance(came, Failure):
                raise came.error()
            if isinstance(came, Exception):
                raise EngineError(
                    f"the Dask worker at {address} cannot start ({type(came).__name__}: {came}): "
                    f"it needs bottleneck-features {self._assignment.version} too"
                )
        return places

    def _end_supervisors(self, client: Any) -> None:
        with suppress(Exception):  # whoever is gone has ended its worker already
            client.run(_end, self._assignment.token, on_error="ignore")

    def _news(self, event: tuple[float, Mapping[str, Any]]) -> None:
        _, news = event
        told = self._told.get(news["call"])
        if told is not None:
            told(news["done"])


class DaskReaders:
    """The processes of a Dask cluster as readers of files; a call whose process dies goes to another.

    Parameters
    ----------
    team : Team
        With an address.
    """

    def __init__(self, team: Team) -> None:
        self.room = 0
        self._team = team
        self._open = ExitStack()
        self._pool: Any = None

    def __enter__(self) -> DaskReaders:
        with ExitStack() as opening:
            client = opening.enter_context(_connected(self._team, opening))
            threads = sum(client.nthreads().values())
            if not threads:
                raise _no_workers(self._team)
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
        return relayed(self._pool.submit(work, *arguments), "dask")


class _Seat:
    """One task at a time, on whichever worker the scheduler finds free."""

    def __init__(
        self,
        client: Any,
        assignment: Assignment,
        places: dict[str, Post],
        told: dict[str, Callable[[int], None]],
    ) -> None:
        self._client, self._assignment, self._places, self._told = client, assignment, places, told

    def compute(self, task: Task, done: Callable[[int], None]) -> tuple[Outcome, ...]:
        from distributed import CancelledError, KilledWorker

        call = secrets.token_hex(8)
        self._told[call] = done
        try:
            future = self._client.submit(
                _compute, self._assignment, self._places, task, call, pure=False, retries=_RETRIES
            )
            return outcome_of(future.result())
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
            del self._told[call]


def _connected(team: Team, opening: ExitStack) -> Any:
    """A client of the team's scheduler, or of one that ends with `opening`. Raises `EngineError`."""
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise EngineError(f'--engine dask: {error}: pip install "bottleneck-features[dask]"') from error
    try:
        if team.address:
            return Client(team.address, timeout=_CONNECT)
        cluster = opening.enter_context(
            LocalCluster(
                n_workers=team.workers or len(gpus_here()) or 1,
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
            f"--engine dask: no scheduler answers at {team.address or 'this machine'} ({error}); "
            "expected the address that `dask scheduler` prints, such as tcp://host:8786"
        ) from error


def _no_workers(team: Team) -> EngineError:
    return EngineError(f"--engine dask: the scheduler at {team.address} has no workers yet")


def _supervisor(worker: Any, assignment: Assignment, places: Mapping[str, Post]) -> Supervisor:
    """This process's own, made at the first call: a process that was started in place of a dead one makes its own."""
    with _making:
        if assignment.token in _over:
            raise EngineError("the run was ended")
        if assignment.token not in _supervisors:
            # One that joined later shares with those that were there.
            post = places.get(
                str(worker.nanny or worker.address), Post(0, max(p.of for p in places.values()))
            )
            _supervisors[assignment.token] = Supervisor(assignment, post)
        return _supervisors[assignment.token]


def _start(assignment: Assignment, places: Mapping[str, Post], dask_worker: Any) -> Failure | None:
    try:
        _supervisor(dask_worker, assignment, places)
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
    assignment: Assignment, places: Mapping[str, Post], task: Task, call: str
) -> tuple[Outcome, ...] | Failure:
    from distributed import get_worker

    worker, topic, said = get_worker(), f"bottleneck-{assignment.token}", 0.0

    def done(images: int) -> None:
        nonlocal said
        if time.monotonic() - said > _NEWS:
            said = time.monotonic()
            worker.log_event(topic, {"call": call, "done": images})

    return answer(lambda: _supervisor(worker, assignment, places), task, done)
