"""Who computes tasks: one worker, at once; `engines.crew` has those that do several at a time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

from bottleneck.contracts import Source
from bottleneck.extraction.task import Outcome
from bottleneck.schema import StoreSpec, Task


class Computes(Protocol):
    """A worker, here or in a process of its own."""

    @property
    def specs(self) -> tuple[StoreSpec, ...]:
        """What the rows of each cut will be."""

    def compute(self, source: Source, task: Task, moved_on: Callable[[int], None]) -> tuple[Outcome, ...]:
        """Run one task: an outcome for each of its cuts."""


class Hands(Protocol):
    """Takes tasks, `room` of them at once."""

    @property
    def room(self) -> int:
        """How many tasks may be begun and not ended."""

    def begin(self, task: Task, moved_on: Callable[[int], None]) -> Future[tuple[Outcome, ...]]:
        """Have a task run; `moved_on` is told how many images are done, from whichever thread."""


class Lone:
    """One worker: a task that is begun is done."""

    room = 1

    def __init__(self, worker: Computes, source: Source) -> None:
        self._worker, self._source = worker, source

    def begin(self, task: Task, moved_on: Callable[[int], None]) -> Future[tuple[Outcome, ...]]:
        """Run it now; what goes wrong is raised here."""
        future: Future[tuple[Outcome, ...]] = Future()
        future.set_result(self._worker.compute(self._source, task, moved_on))
        return future
