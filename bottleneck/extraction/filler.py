"""The part of one run in filling stores: planning with other builders, handing tasks to the worker, counting."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypedDict, get_args

import numpy as np

from bottleneck.bases import digest_cache
from bottleneck.bases.custom import is_function
from bottleneck.contracts import Source
from bottleneck.errors import StoreError
from bottleneck.extraction.engines.pool import start_pool
from bottleneck.extraction.engines.supervisor import Assignment
from bottleneck.extraction.executor import SingleWorker, TaskExecutor, TaskWorker, check_recalled, prove
from bottleneck.extraction.profile import combine_clocks
from bottleneck.extraction.report import Extraction, report, unexplained
from bottleneck.extraction.scheduler import PATIENCE, RetryPolicy, TaskScheduler, WorkDone, circumstances
from bottleneck.extraction.worker.channel import WorkerDied
from bottleneck.extraction.worker.process import WorkerProcess
from bottleneck.extraction.worker.task import TaskOutcome
from bottleneck.forward.batch_size import FEWEST
from bottleneck.forward.cuts import group_missing
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
from bottleneck.store.header import begin_store, find_store, open_for_building
from bottleneck.store.log import write_log
from bottleneck.store.read import Store, open_store
from bottleneck.system.progress import Bar, Progress


class FillOptions(TypedDict, total=False):
    """What else may be said of filling stores.

    Attributes
    ----------
    worker : Computes
        A worker in this process (for a model object); by default one is started, if there is work.
    limits : Limits
        What one image may cost; a worker in this process cannot be limited.
    team : Team
        Several workers, or some elsewhere; by default there is one, on this machine.
    views : ViewPolicy
        The inventory's keys are those of views, made by this policy.
    task_rows : int
        For tests and benchmarks only.
    patience : float
        Seconds after which work that another builder holds is done here too; for tests.
    """

    worker: TaskWorker | None
    limits: Limits | None
    team: WorkerConfig | None
    views: ViewPolicy | None
    task_rows: int | None
    patience: float


def complete(cache: Cache, spec: StoreSpec, inventory: Inventory) -> StoreSpec | None:
    """`spec` at a precision whose store has all of `inventory` already, the most exact first."""
    for precision in get_args(Precision):
        recipe = spec.recipe.model_copy(update={"precision": precision})
        other = spec.model_copy(update={"recipe": recipe})
        if len(inventory) and open_store(cache, other).known(inventory.keys).all():
            return other
    return None


class _Filling:
    """One run's own part of the work on one store, counted as it goes."""

    def __init__(self, builder: TaskScheduler) -> None:
        self.builder = builder
        self.outcomes: list[TaskOutcome] = []
        self.by_others = 0

    def log(self, request: BaseRequest, ended: str, seconds: float) -> dict[str, Any]:
        """The run in a few figures."""
        clock = combine_clocks([outcome.clock for outcome in self.outcomes])
        return {
            "ended": ended,
            "seconds": round(seconds, 3),
            "tasks": len(self.outcomes),
            "tasks_by_others": self.by_others,
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


class Filler:
    """One run over one store or several: what they lack is planned, shared out, and counted."""

    def __init__(
        self,
        source: Source,
        requests: Sequence[BaseRequest],
        cache: Cache,
        progress: Progress,
        options: FillOptions,
        engine: contextlib.ExitStack,
    ) -> None:
        self._source, self._requests, self._cache, self._progress = source, requests, cache, progress
        self._options = options
        # What it holds ends with the run.
        self._engine = engine
        self._in_process = options.get("worker") is not None
        self._recalled: list[StoreSpec | None] = []
        self._specs: list[StoreSpec] = []
        self._computing: TaskWorker
        self._executor: TaskExecutor | None = None
        self._fillings: dict[int, _Filling] = {}
        self._limits = options.get("limits") or Limits()
        self._circumstances = circumstances(self._limits)

    def begin(self, computing: TaskWorker) -> None:
        """Before the images are known: where the base has to be built in any case, that begins beside the scan."""
        self._computing = computing
        self._recalled = [
            None if self._in_process else digest_cache.recall_digests(request, self._cache)
            for request in self._requests
        ]
        if None in self._recalled and isinstance(computing, WorkerProcess):
            computing.begin()

    def specify(self, inventory: Inventory) -> None:
        """What the rows are: as a worker in this process says, else as remembered, else as the base is built."""
        for number, (request, recalled) in enumerate(zip(self._requests, self._recalled, strict=True)):
            spec = recalled
            if spec is None:
                spec = self._computing.specs[number]
                digest_cache.remember_digests(request, spec, self._cache)
            if request.precision == "auto" and not self._in_process:
                spec = complete(self._cache, spec, inventory) or spec
            self._specs.append(spec.model_copy(update={"views": self._options.get("views")}))

    def prove(self, inventory: Inventory, stores: Sequence[Store]) -> None:
        """A base that may be code shows that it still computes the rows of `stores`, before one of them is served."""
        if not self._in_process and not is_function(self._requests[0].base):
            return  # of a file or the catalog: all of it is in the digest
        for store in stores:
            if not RetryPolicy.first(self._limits).masks(store, inventory.keys)[0].all():
                open_for_building(self._cache, store.folder)  # refused before anything is built
        computing = self._computing
        if isinstance(computing, WorkerProcess):
            built = [spec.recipe.precision for spec in computing.specs]
            if built != [spec.recipe.precision for spec in self._specs]:
                computing.reopen(self._resolved())  # `auto` took a store of another precision
        prove(computing, stores)

    def open_stores(self) -> list[Store]:
        """As they are now."""
        return [open_store(self._cache, spec) for spec in self._specs]

    def looks(self) -> Iterator[RetryPolicy]:
        """What the first look is for, and those after it: whoever was given up before is tried once a run."""
        yield RetryPolicy.first(self._limits)
        while True:
            yield RetryPolicy(self._circumstances, "fresh")

    def try_again(self, inventory: Inventory, stores: list[Store]) -> list[Store]:
        """Have those that circumstances failed in this run tried once more, last and alone: what comes of it is kept.

        An image that was given up under other circumstances has only now been given up once under these.
        """
        if self._in_process or not self._fillings:
            return stores  # where nothing was missing nobody was due either
        for _ in range(2):
            if self.round(inventory, stores, RetryPolicy(self._circumstances, "suspects")) is None:
                break
            stores = self.open_stores()
        return stores

    def round(
        self, inventory: Inventory, stores: Sequence[Store], look: RetryPolicy
    ) -> Callable[[Sequence[Store]], bool] | None:
        """Plan and bring about what is missing; None where nothing is.

        What comes back says of the stores as they are afterwards whether anything is left to do: files moved on while
        they were read, here or under another builder's executor, or rows that were there were removed.
        """
        done: list[WorkDone] = []
        parts = group_missing(inventory, [~look.masks(store, inventory.keys)[0] for store in stores])
        self._agree_on_batch(sum(len(part.inventory) for part in parts))
        for part in parts:
            # The widest rows decide how many make a task, so their store has the plan.
            cuts = tuple(sorted(part.cuts, key=lambda cut: -self._specs[cut].row_bytes))
            for cut in cuts:
                self._begin(cut, stores[cut])
            first = self._fillings[cuts[0]]
            rows = self._options.get("task_rows")
            todo = replace(first.builder.agree(part.inventory, look, task_rows=rows), cuts=cuts)
            executor = self._executor or self._gather(inventory)
            with self._progress.bar("views" if todo.views else "extract", todo.images) as bar:
                ended = functools.partial(self._ended, cuts, bar)
                shared = first.builder.work(todo, executor, bar.update, ended)
            first.by_others += len(shared.by_others)
            done.append(shared)
        if not done:
            return None
        moved = any(outcome.moved for shared in done for outcome in shared.outcomes)
        return lambda after: (
            moved or any(len(self._unexplained(inventory, cut, store)) for cut, store in enumerate(after))
        )

    def _unexplained(self, inventory: Inventory, cut: int, store: Store) -> np.ndarray:
        return unexplained(inventory, store, self._outcomes(cut))

    def _outcomes(self, cut: int) -> list[TaskOutcome]:
        return self._fillings[cut].outcomes if cut in self._fillings else []

    def _begin(self, cut: int, store: Store) -> None:
        if cut in self._fillings:
            return
        open_for_building(self._cache, store.folder)
        patience = self._options.get("patience", PATIENCE)
        builder = TaskScheduler(self._cache, self._specs[cut], store.folder, patience=patience)
        self._fillings[cut] = _Filling(builder)
        builder.sweep()

    def _agree_on_batch(self, images: int) -> None:
        """Before a long run founds its stores their batch shape is searched for, and published for all builders."""
        computing = self._computing
        # Several workers have other threads and maybe other machines than the one that could be asked here.
        if not isinstance(computing, WorkerProcess) or self._options.get("team") is not None:
            return
        if images < FEWEST or self._requests[0].batch or self._options.get("views") is not None:
            return
        if any(find_store(self._cache, spec)[1].batch for spec in self._specs):
            return
        with self._progress.bar("batch shape", None, "tried") as bar:
            try:
                batch = computing.best_batch(images, bar.update)
            except WorkerDied:
                return  # of a batch that memory did not hold: the usual one is tried by a new worker
        if batch is None:
            return
        # Whoever was first decides, here and in every later run.
        headers = [
            begin_store(self._cache, spec, batch, request)[1]
            for spec, request in zip(self._specs, self._resolved(), strict=True)
        ]
        agreed = headers[0].batch
        self._requests = [request.model_copy(update={"batch": agreed}) for request in self._requests]
        computing.reopen(self._requests)

    def _gather(self, inventory: Inventory) -> TaskExecutor:
        """Who computes, gathered once: the worker that is here, or the workers of an engine, which look round first."""
        team, computing = self._options.get("team"), self._computing
        if team is None:
            for planned, built in zip(self._specs, computing.specs, strict=True):
                check_recalled(planned, built, self._cache)
            self._executor = SingleWorker(computing, self._source)
            return self._executor
        if isinstance(computing, WorkerProcess):
            computing.rest()  # it was here to say what the rows are
        requests = self._resolved()  # `auto` may be another precision there
        there = Assignment(self._source, requests, self._cache, self._limits, tuple(self._specs))
        self._executor = self._engine.enter_context(start_pool(team, there, inventory))
        return self._executor

    def _resolved(self) -> tuple[BaseRequest, ...]:
        """How the base is asked for so that any machine computes these very rows."""
        return tuple(
            request.computed_in(spec.recipe.precision)
            for request, spec in zip(self._requests, self._specs, strict=True)
        )

    def _ended(self, cuts: tuple[int, ...], bar: Bar, outcomes: tuple[TaskOutcome, ...]) -> None:
        for cut, outcome in zip(cuts, outcomes, strict=True):
            self._fillings[cut].outcomes.append(outcome)
        bad = sum(len(one.rejections) for one in self._fillings[cuts[0]].outcomes)
        if bad:
            bar.note(f"{bad} rejected")

    def check_there(self) -> None:
        """Raise `StoreError` where a store was removed under our executor."""
        for filling in self._fillings.values():
            folder = filling.builder.folder
            if not folder.is_dir():
                raise StoreError(
                    f"{folder} was removed while it was being filled; what lay in it is gone with it. "
                    "Run the same command again to begin anew"
                )

    def check_kept(self, before: Inventory, inventory: Inventory, stores: Sequence[Store]) -> None:
        """Raise `StoreError` where rows were removed as often as they were computed.

        Files that changed between the last two scans, or while they were read, are not meant: those are rejected.
        """
        for cut, store in enumerate(stores):
            rows = self._unexplained(inventory, cut, store)
            moved = {path for outcome in self._outcomes(cut) for path in outcome.moved}
            paths = inventory.table.column("path").take(rows).to_pylist()
            rows = rows[np.array([path not in moved for path in paths], bool)]
            same = np.isin(inventory.keys[rows].view("V32").ravel(), before.keys.view("V32").ravel())
            if same.any():
                raise StoreError(
                    f"features of {int(same.sum()):,} images were removed while {store.folder} was being filled, by "
                    "`store prune` without --keep for these images, most likely. Nothing is wrong with the images, and "
                    "all others are stored: let it end, then run the same command again"
                )

    def reports(
        self,
        inventory: Inventory,
        stores: Sequence[Store],
        damaged: Sequence[Mapping[str, str]],
        seconds: float,
    ) -> list[Extraction]:
        """What was done for each store."""
        mine = [self._outcomes(cut) for cut in range(len(stores))]
        return [
            report(inventory, store, outcomes, seconds, broken)
            for store, outcomes, broken in zip(stores, mine, damaged, strict=True)
        ]

    def settle(self, stores: Sequence[Store]) -> None:
        """Nothing is left half done."""
        for cut, filling in self._fillings.items():
            filling.builder.settle(stores[cut])

    def sweep(self) -> None:
        """Remove what was left half written."""
        for filling in self._fillings.values():
            filling.builder.sweep()

    def log(self, ended: str, seconds: float) -> None:
        """A record of the run in each store that it wrote to."""
        for cut, filling in self._fillings.items():
            write_log(filling.builder.folder / "log", filling.log(self._requests[cut], ended, seconds))
