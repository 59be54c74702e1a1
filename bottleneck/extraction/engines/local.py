"""Several workers on this machine, one a GPU where there are any."""

from __future__ import annotations

from collections.abc import Sequence

from bottleneck.contracts import EngineWorker
from bottleneck.extraction.engines.supervisor import Assignment, Supervisor
from bottleneck.extraction.resources import WorkerSlot, gpus_here
from bottleneck.schema import WorkerConfig


class LocalEngine:
    """A thread here for each worker process."""

    def __init__(self, config: WorkerConfig, assignment: Assignment) -> None:
        self._workers = config.workers or len(gpus_here()) or 1
        self._assignment = assignment
        self._supervisors: list[Supervisor] = []

    def __enter__(self) -> Sequence[EngineWorker]:
        for index in range(self._workers):
            self._supervisors.append(Supervisor(self._assignment, WorkerSlot(index, self._workers)))
        return self._supervisors

    def __exit__(self, *_: object) -> None:
        for supervisor in self._supervisors:
            supervisor.end()
