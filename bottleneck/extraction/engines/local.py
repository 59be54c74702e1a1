"""Several workers on this machine, one a GPU where there are any."""

from __future__ import annotations

from collections.abc import Sequence

from bottleneck.contracts import Seat
from bottleneck.extraction.engines.supervisor import Assignment, Supervisor
from bottleneck.extraction.resources import Post, gpus_here
from bottleneck.schema import Team


class LocalEngine:
    """A thread here for each worker process.

    Parameters
    ----------
    team : Team
    assignment : Assignment
    """

    def __init__(self, team: Team, assignment: Assignment) -> None:
        self._workers = team.workers or len(gpus_here()) or 1
        self._assignment = assignment
        self._supervisors: list[Supervisor] = []

    def __enter__(self) -> Sequence[Seat]:
        for index in range(self._workers):
            self._supervisors.append(Supervisor(self._assignment, Post(index, self._workers)))
        return self._supervisors

    def __exit__(self, *_: object) -> None:
        for supervisor in self._supervisors:
            supervisor.end()
