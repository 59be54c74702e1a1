"""Decide what the rows of a run are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import get_args

from bottleneck.bases import digest_cache
from bottleneck.bases.custom import is_function
from bottleneck.extraction.executor import TaskWorker, check_recalled, prove
from bottleneck.extraction.worker.channel import WorkerDied
from bottleneck.extraction.worker.process import WorkerProcess
from bottleneck.forward.batch_size import FEWEST
from bottleneck.schema import (
    BaseRequest,
    Cache,
    Inventory,
    Limits,
    Precision,
    StoreSpec,
    ViewPolicy,
    WorkerConfig,
)
from bottleneck.store.header import begin_store, find_store
from bottleneck.store.read import Store, open_store
from bottleneck.system.progress import Progress


@dataclass(frozen=True)
class RunOptions:
    """The choices of one run.

    Attributes
    ----------
    worker : TaskWorker, optional
        A worker in this process (for a model object); by default one is started, if there is work.
    limits : Limits
        What one image may cost; a worker in this process cannot be limited.
    workers : WorkerConfig, optional
        Several workers, or some elsewhere; by default there is one, on this machine.
    views : ViewPolicy, optional
        The inventory's keys are those of views, made by this policy.
    """

    worker: TaskWorker | None = None
    limits: Limits = field(default_factory=Limits)
    workers: WorkerConfig | None = None
    views: ViewPolicy | None = None


def find_complete(cache: Cache, spec: StoreSpec, inventory: Inventory) -> StoreSpec | None:
    """Find the most exact precision whose store has all of `inventory`."""
    for precision in get_args(Precision):
        recipe = spec.recipe.model_copy(update={"precision": precision})
        other = spec.model_copy(update={"recipe": recipe})
        if len(inventory) and open_store(cache, other).known(inventory.keys).all():
            return other
    return None


class RunSetup:
    """How the base is asked for, and what its rows are."""

    def __init__(
        self,
        requests: Sequence[BaseRequest],
        cache: Cache,
        progress: Progress,
        options: RunOptions,
        worker: TaskWorker,
    ) -> None:
        self.requests = requests
        self.specs: list[StoreSpec] = []
        self.worker = worker
        self.in_process = options.worker is not None
        self._cache, self._progress = cache, progress
        self._options = options
        self._recalled = [
            None if self.in_process else digest_cache.recall_digests(request, cache) for request in requests
        ]
        if None in self._recalled and isinstance(worker, WorkerProcess):
            worker.begin()  # the base has to be built in any case: beside the scan

    def specify(self, inventory: Inventory) -> None:
        """Take the specs from memory, else from the base as built."""
        for number, (request, recalled) in enumerate(zip(self.requests, self._recalled, strict=True)):
            spec = recalled
            if spec is None:
                spec = self.worker.specs[number]
                digest_cache.remember_digests(request, spec, self._cache)
            if request.precision == "auto" and not self.in_process:
                spec = find_complete(self._cache, spec, inventory) or spec
            self.specs.append(spec.model_copy(update={"views": self._options.views}))

    @property
    def needs_proof(self) -> bool:
        """Whether the base may be code, which no digest covers wholly."""
        return self.in_process or is_function(self.requests[0].base)

    def prove(self, stores: Sequence[Store]) -> None:
        """Check that the base still computes the rows of `stores`."""
        if isinstance(self.worker, WorkerProcess):
            built = [spec.recipe.precision for spec in self.worker.specs]
            if built != [spec.recipe.precision for spec in self.specs]:
                self.worker.reopen(self.resolved())  # `auto` took a store of another precision
        prove(self.worker, stores)

    def agree_on_batch(self, images: int) -> None:
        """Search a batch shape for a long run; publish it."""
        worker = self.worker
        # Several workers have other threads and maybe other machines than the one that could be asked here.
        if not isinstance(worker, WorkerProcess) or self._options.workers is not None:
            return
        if images < FEWEST or self.requests[0].batch or self._options.views is not None:
            return
        if any(find_store(self._cache, spec)[1].batch for spec in self.specs):
            return
        with self._progress.bar("batch shape", None, "tried") as bar:
            try:
                batch = worker.best_batch(images, bar.update)
            except WorkerDied:
                return  # of a batch that memory did not hold: the usual one is tried by a new worker
        if batch is None:
            return
        # Whoever was first decides, here and in every later run.
        headers = [
            begin_store(self._cache, spec, batch, request)[1]
            for spec, request in zip(self.specs, self.resolved(), strict=True)
        ]
        agreed = headers[0].batch
        self.requests = [request.model_copy(update={"batch": agreed}) for request in self.requests]
        worker.reopen(self.requests)

    def check_recalled(self) -> None:
        """Check the specs from memory against the base as built."""
        for planned, built in zip(self.specs, self.worker.specs, strict=True):
            check_recalled(planned, built, self._cache)

    def resolved(self) -> tuple[BaseRequest, ...]:
        """Ask for the base so that any machine computes these rows."""
        return tuple(
            request.computed_in(spec.recipe.precision)
            for request, spec in zip(self.requests, self.specs, strict=True)
        )
