"""Give tasks to who computes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Protocol

from bottleneck.errors import BaseError
from bottleneck.extraction.worker.messages import Proof
from bottleneck.extraction.worker.task import TaskOutcome
from bottleneck.schema import Cache, StoreSpec, Task
from bottleneck.store.canary import DECODER, NO_CANARY, prove_unchanged
from bottleneck.store.read import Store


class TaskWorker(Protocol):
    """A worker, here or in a process of its own."""

    @property
    def specs(self) -> tuple[StoreSpec, ...]:
        """The rows of each cut."""

    def prove(self) -> Proof:
        """Compute the canary pictures at each cut."""

    def compute(self, task: Task, on_progress: Callable[[int], None]) -> tuple[TaskOutcome, ...]:
        """Run one task: an outcome for each of its cuts."""


class TaskExecutor(Protocol):
    """Takes tasks, `room` of them at once."""

    @property
    def room(self) -> int:
        """How many tasks may be begun and not ended."""

    def begin(self, task: Task, on_progress: Callable[[int], None]) -> Future[tuple[TaskOutcome, ...]]:
        """Start a task; `on_progress` counts images, from any thread."""


class SingleWorker:
    """Runs each task at once, in the one worker."""

    room = 1

    def __init__(self, worker: TaskWorker) -> None:
        self._worker = worker

    def begin(self, task: Task, on_progress: Callable[[int], None]) -> Future[tuple[TaskOutcome, ...]]:
        """Run it now; what goes wrong is raised here."""
        future: Future[tuple[TaskOutcome, ...]] = Future()
        future.set_result(self._worker.compute(task, on_progress))
        return future


def prove(computing: TaskWorker, stores: Sequence[Store]) -> None:
    """Compare the canary pictures of `computing` with those of `stores`.

    Raises
    ------
    ChangedBase
        The base computes other features than it did when the rows were made.
    ForeignEnvironment
        It does so here, where none of the rows was made.
    """
    if not any(map(len, stores)):
        return
    proof = computing.prove()
    for canary, store in zip(proof.canaries, stores, strict=True):
        if len(store):
            records = [file.record for file in store.shards.files]
            here = {record.canary for record in records if _alike(record.environment, proof.environment)}
            prove_unchanged(store.folder, canary, store.spec, here - {NO_CANARY})


def check_recalled(recalled: StoreSpec, built: StoreSpec, cache: Cache) -> None:
    """Refuse rows for another store than planned. Raises `BaseError`."""
    if recalled.recipe != built.recipe:
        raise BaseError(
            f"{recalled.base} was known here under recipe {recalled.recipe.fingerprint[:16]}, but as built now it "
            f"has {built.recipe.fingerprint[:16]}: its weights changed behind an unchanged name. Remove the .json "
            f"files in {cache.bases}, and it is looked at anew"
        )


def _alike(first: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Compare two environments; the canary pictures pass no decoder."""
    return {**first, DECODER: ""} == {**other, DECODER: ""}
