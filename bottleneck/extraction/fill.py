"""Filling a store: what is missing is planned, computed and committed; what is there costs nothing."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Callable
from typing import Any, Protocol, get_args

import numpy as np

from bottleneck.bases import known
from bottleneck.contracts import Source
from bottleneck.errors import BaseError, StoreError
from bottleneck.extraction.report import Extraction, report
from bottleneck.extraction.share import PATIENCE, Builder, Shared, cut, suspected
from bottleneck.extraction.stages import together
from bottleneck.extraction.supervise import WorkerProcess
from bottleneck.extraction.task import Outcome
from bottleneck.progress import Bar, Progress
from bottleneck.schema import BaseRequest, Cache, Inventory, Limits, Precision, StoreSpec, Task, ViewPolicy
from bottleneck.store.header import open_for_building
from bottleneck.store.log import write_log
from bottleneck.store.plan import Plan
from bottleneck.store.read import Store, open_store

#: Files may change while they are read; after so many rounds of planning anew they are left for the next run.
_ROUNDS = 3


class Computes(Protocol):
    """A worker, here or in a process of its own."""

    @property
    def spec(self) -> StoreSpec:
        """What the rows will be."""

    def compute(self, source: Source, task: Task, moved_on: Callable[[int], None]) -> Outcome:
        """Run one task."""


def fill(
    source: Source,
    scan: Callable[[], Inventory],
    request: BaseRequest,
    cache: Cache,
    progress: Progress,
    *,
    worker: Computes | None = None,
    limits: Limits | None = None,
    views: ViewPolicy | None = None,
    task_rows: int | None = None,
    patience: float = PATIENCE,
) -> tuple[Extraction, Inventory, Store]:
    """Compute what the store of `request` lacks of `source`, together with whoever else is at it.

    Where nothing is lacking, nothing is written.

    Parameters
    ----------
    source : Source
    scan : callable
        Gives the inventory as it is now; called again when files changed under way.
    request : BaseRequest
    cache : Cache
    progress : Progress
    worker : Computes, optional
        A worker in this process (for a model object); by default one is started, if there is work.
    limits : Limits, optional
        What one image may cost; a worker in this process cannot be limited.
    views : ViewPolicy, optional
        Fill the store of views that this policy makes; `scan` then gives views (`store.views.views_wanted`).
    task_rows : int, optional
        For tests and benchmarks only.
    patience : float, optional
        Seconds after which work that another builder holds is done here too; for tests.

    Returns
    -------
    Extraction, Inventory, Store
        What was done, the images as last scanned, and the store as it is after.

    Raises
    ------
    StoreError
        There is something to compute, and the cache cannot be written to, or was removed meanwhile.
    WorkerDied
        Workers died of something that is no image's fault.
    """
    started = time.perf_counter()
    inventory = scan()
    filling: _Filling | None = None
    ended = "done"
    try:
        with WorkerProcess(request, cache, limits) as process:
            spec = worker.spec if worker else known.recall(request, cache)
            computing: Computes = worker or process
            if spec is None:
                spec = process.spec
                known.remember(request, spec, cache)
            if request.precision == "auto" and worker is None:
                spec = complete(cache, spec, inventory) or spec
            spec = spec.model_copy(update={"views": views})
            store = open_store(cache, spec)
            damaged = dict(store.damaged)
            for again in range(_ROUNDS):
                if not cut(inventory, spec, store, again=again > 0, task_rows=task_rows).images:
                    break
                if filling is None:
                    open_for_building(cache, store.folder)
                    filling = _Filling(Builder(cache, spec, store.folder, patience=patience), progress)
                    filling.builder.sweep()
                    _check_recalled(spec, computing.spec, cache)
                shared, todo = filling.round(source, inventory, computing, again > 0, task_rows)
                store = open_store(cache, spec)
                if not _is_left(todo, shared, store):
                    break
                inventory = scan()
        if filling is not None and not store.folder.is_dir():
            raise StoreError(
                f"{store.folder} was removed while it was being filled; what lay in it is gone with it. "
                "Run the same command again to begin anew"
            )
        outcomes = filling.outcomes if filling else []
        done = report(inventory, store, outcomes, time.perf_counter() - started, damaged)
        if filling is not None:
            filling.builder.settle(store)
        return done, inventory, store
    except BaseException as error:
        ended = type(error).__name__
        if filling is not None:
            # The worker is gone by now; what it was writing has no name.
            filling.builder.sweep()
        raise
    finally:
        if filling is not None:
            seconds = time.perf_counter() - started
            write_log(filling.builder.folder / "log", filling.log(request, ended, seconds))


def complete(cache: Cache, spec: StoreSpec, inventory: Inventory) -> StoreSpec | None:
    """`spec` at a precision whose store has all of `inventory` already, the most exact first."""
    for precision in get_args(Precision):
        recipe = spec.recipe.model_copy(update={"precision": precision})
        other = spec.model_copy(update={"recipe": recipe})
        if len(inventory) and open_store(cache, other).known(inventory.keys).all():
            return other
    return None


class _Filling:
    """One run's own part of the work, counted as it goes."""

    def __init__(self, builder: Builder, progress: Progress) -> None:
        self.builder = builder
        self.outcomes: list[Outcome] = []
        self._progress = progress
        self._by_others = 0

    def round(
        self, source: Source, inventory: Inventory, computing: Computes, again: bool, task_rows: int | None
    ) -> tuple[Shared, Plan]:
        """Plan and bring about what is missing of `inventory`."""
        todo = self.builder.agree(inventory, again=again, task_rows=task_rows)
        with self._progress.bar("views" if todo.views else "extract", todo.images) as bar:
            shared = self.builder.work(
                todo, lambda task: self._compute(source, task, computing, bar), bar.update
            )
        self._by_others += len(shared.by_others)
        return shared, todo

    def _compute(self, source: Source, task: Task, computing: Computes, bar: Bar) -> Outcome:
        outcome = computing.compute(source, task, bar.update)
        self.outcomes.append(outcome)
        bad = sum(len(one.rejections) for one in self.outcomes)
        if bad:
            bar.note(f"{bad} rejected")
        return outcome

    def log(self, request: BaseRequest, ended: str, seconds: float) -> dict[str, Any]:
        """The run in a few figures."""
        clock = together([outcome.clock for outcome in self.outcomes])
        return {
            "ended": ended,
            "seconds": round(seconds, 3),
            "tasks": len(self.outcomes),
            "tasks_by_others": self._by_others,
            "computed": sum(outcome.computed for outcome in self.outcomes),
            "rejected": sum(len(outcome.rejections) for outcome in self.outcomes),
            "stages": {stage: round(took, 3) for stage, took in clock.waited.items()},
            "stages_alone": {stage: round(rate, 2) for stage, rate in clock.alone.items()},
            "request": request.model_dump(mode="json"),
            "environment": {
                "host": platform.node(),
                "system": platform.platform(),
                "python": platform.python_version(),
                **{
                    name: importlib.metadata.version(name)
                    for name in ("tensorflow", "keras", "numpy", "h5py")
                },
            },
        }


def _is_left(todo: Plan, shared: Shared, store: Store) -> bool:
    """Whether files moved on while they were read, here or under another builder's hands."""
    if any(outcome.moved for outcome in shared.outcomes):
        return True
    if not shared.by_others:
        return False
    keys = np.concatenate([todo.keys(number) for number in shared.by_others])
    return not (store.known(keys) | suspected(store, keys)).all()


def _check_recalled(recalled: StoreSpec, built: StoreSpec, cache: Cache) -> None:
    """Rows must go to the store that was planned for."""
    if recalled.recipe != built.recipe:
        raise BaseError(
            f"{recalled.base} was known here under recipe {recalled.recipe.fingerprint[:16]}, but as built now it "
            f"has {built.recipe.fingerprint[:16]}: its weights changed behind an unchanged name. Remove the .json "
            f"files in {cache.bases}, and it is looked at anew"
        )
