"""The workers of an engine as hands that tasks are given to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from queue import SimpleQueue

from bottleneck import catalog
from bottleneck.contracts import Engine, Seat
from bottleneck.extraction.engines.supervisor import Assignment, in_sight
from bottleneck.extraction.worker.task import Outcome
from bottleneck.schema import Inventory, Task, Team


@contextmanager
def crew(team: Team, assignment: Assignment, inventory: Inventory) -> Iterator[Crew]:
    """Start the engine of `team`, and end it at once when left.

    Raises
    ------
    EngineError
        Its workers cannot be had, or do not see the source and the cache.
    """
    made = catalog.load("engine", catalog.ENGINES, team.engine)
    with in_sight(assignment.source, inventory, assignment.cache) as sight:
        engine: Engine = made(team, replace(assignment, sight=sight, threads=team.threads))
        gathered: Crew | None = None
        try:
            with engine as seats:
                gathered = Crew(seats)
                yield gathered
        finally:
            if gathered is not None:
                gathered.dismiss()


class Crew:
    """Seats: a task goes to whichever is free."""

    def __init__(self, seats: Sequence[Seat]) -> None:
        # One task more than there are workers, so that none waits for us; yet each holds a lock that others want.
        self.room = len(seats) + 1
        self._free: SimpleQueue[Seat] = SimpleQueue()
        for seat in seats:
            self._free.put(seat)
        self._threads = ThreadPoolExecutor(len(seats), thread_name_prefix="seat")
        self._counting = threading.Lock()

    def begin(self, task: Task, moved_on: Callable[[int], None]) -> Future[tuple[Outcome, ...]]:
        """Queue a task for the next free seat."""
        return self._threads.submit(self._run, task, moved_on)

    def dismiss(self) -> None:
        """Forget what has not begun and wait for the rest, which the end of its engine cuts short."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _run(self, task: Task, moved_on: Callable[[int], None]) -> tuple[Outcome, ...]:
        counted = 0

        def done(images: int) -> None:
            nonlocal counted
            with self._counting:  # several seats tell one bar
                moved_on(images - counted)
                counted = images

        seat = self._free.get()
        try:
            outcomes: tuple[Outcome, ...] = seat.compute(task, done)
        finally:
            self._free.put(seat)
        # What a seat tells on the way may come late or never.
        done(len(task.keys))
        return outcomes
