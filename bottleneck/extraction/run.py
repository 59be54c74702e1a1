"""Fill stores: plan what is missing, compute it, commit it."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from bottleneck.contracts import Source
from bottleneck.errors import StoreError
from bottleneck.extraction.engines.pool import start_pool
from bottleneck.extraction.engines.supervisor import Assignment
from bottleneck.extraction.executor import SingleWorker, TaskExecutor
from bottleneck.extraction.profile import combine_clocks
from bottleneck.extraction.report import Extraction, report, unexplained
from bottleneck.extraction.retry_policy import RetryPolicy, circumstances
from bottleneck.extraction.scheduler import PATIENCE, TaskScheduler, WorkDone
from bottleneck.extraction.setup import RunOptions, RunSetup
from bottleneck.extraction.worker.messages import Open
from bottleneck.extraction.worker.process import WorkerProcess
from bottleneck.extraction.worker.task import TaskOutcome
from bottleneck.forward.cuts import group_missing
from bottleneck.schema import BaseRequest, Cache, Inventory
from bottleneck.store.header import open_for_building, write_log
from bottleneck.store.read import Store, open_store
from bottleneck.system.progress import Bar, Progress

#: Files may change while they are read, and rows may be removed: after as many rounds, the next run does the rest.
_ROUNDS = 3


class FilledStore(NamedTuple):
    """A store after a run, and what was done for it."""

    report: Extraction
    store: Store


class _StoreWork:
    def __init__(self, scheduler: TaskScheduler) -> None:
        self.scheduler = scheduler
        self.outcomes: list[TaskOutcome] = []
        self.by_others = 0

    def log(self, request: BaseRequest, ended: str, seconds: float) -> dict[str, Any]:
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


class ExtractionRun:
    """One run, which computes what stores lack of a source.

    Other builders may work on the same stores. Images that several of the stores lack go through the base once for all
    of them. Where nothing is lacking, nothing is written.

    Parameters
    ----------
    source : Source
    scan : callable
        Gives the inventory as it is now; called again when files changed under way.
    requests : sequence of BaseRequest
        One base at one cut or at several: they differ in nothing else.
    cache : Cache
    progress : Progress
    options : RunOptions, optional

    Attributes
    ----------
    worker_type : type
        What computes where `options` have no worker. For tests, as are the next two.
    task_rows : int or None
        Images a task; None: as many as the plan takes.
    patience : float
        Seconds after which work that another builder holds is done here too.
    """

    worker_type: type[Any] = WorkerProcess
    task_rows: int | None = None
    patience: float = PATIENCE

    def __init__(
        self,
        source: Source,
        scan: Callable[[], Inventory],
        requests: Sequence[BaseRequest],
        cache: Cache,
        progress: Progress,
        options: RunOptions = RunOptions(),  # noqa: B008 - frozen
    ) -> None:
        self._opening, self._options = Open(source, tuple(requests), cache), options
        self._scan, self._cache, self._progress = scan, cache, progress
        self._circumstances = circumstances(options.limits)
        self._work: dict[int, _StoreWork] = {}
        self._setup: RunSetup
        self._engine = contextlib.ExitStack()
        self._executor: TaskExecutor | None = None

    def run(self) -> tuple[tuple[FilledStore, ...], Inventory]:
        """Fill the stores.

        Returns
        -------
        tuple of FilledStore, Inventory
            One for each request; the images as last scanned.

        Raises
        ------
        EngineError
            The workers of an engine cannot be had, or do not see source and store.
        StoreError
            There is something to compute, and the cache cannot be written to, or it or rows of it were removed
            meanwhile.
        WorkerDied
            Workers died of something that is no image's fault.
        """
        started = time.perf_counter()
        ended = "done"
        try:
            stores, inventory, damaged = self._fill()
            self._check_folders()
            seconds = time.perf_counter() - started
            reports = [
                report(inventory, store, self._outcomes(cut), seconds, damaged[cut])
                for cut, store in enumerate(stores)
            ]
            for cut, work in self._work.items():
                work.scheduler.settle(stores[cut])
            return tuple(map(FilledStore, reports, stores)), inventory
        except BaseException as error:
            ended = type(error).__name__
            # The worker is gone by now; what it was writing has no name.
            for work in self._work.values():
                work.scheduler.sweep()
            raise
        finally:
            seconds = time.perf_counter() - started
            for cut, work in self._work.items():
                entry = work.log(self._setup.requests[cut], ended, seconds)
                write_log(work.scheduler.folder / "log", entry)

    def _fill(self) -> tuple[list[Store], Inventory, list[dict[str, str]]]:
        """Compute what is missing; give stores, last scan, damaged files."""
        engine, options = self._engine, self._options
        with self.worker_type(self._opening, options.limits) as process, engine:
            worker = options.worker or process
            self._setup = RunSetup(self._opening.requests, self._cache, self._progress, options, worker)
            inventory = self._scan()
            self._setup.specify(inventory)
            stores = self._open_stores()
            if self._setup.needs_proof:
                self._check_writable(inventory, stores)
                self._setup.prove(stores)
            damaged = [dict(store.damaged) for store in stores]
            # What was given up before is tried once a run, in its first round.
            policy = RetryPolicy.first(options.limits)
            for _ in range(_ROUNDS):
                left = self._round(inventory, stores, policy)
                if left is None:
                    break
                stores = self._open_stores()
                if not left(stores):
                    break
                before, inventory = inventory, self._scan()
                policy = RetryPolicy(self._circumstances, "fresh")
            else:
                self._check_folders()
                self._check_kept(before, inventory, stores)
            return self._try_again(inventory, stores), inventory, damaged

    def _start(self, inventory: Inventory) -> TaskExecutor:
        """Start who computes, once."""
        setup, workers = self._setup, self._options.workers
        if workers is None:
            setup.check_recalled()
            self._executor = SingleWorker(setup.worker)
        else:
            if isinstance(setup.worker, WorkerProcess):
                setup.worker.rest()  # it has said what the rows are
            # `auto` may be another precision there.
            opening = replace(self._opening, requests=setup.resolved())
            assignment = Assignment(opening, self._options.limits, tuple(setup.specs))
            self._executor = self._engine.enter_context(start_pool(workers, assignment, inventory))
        return self._executor

    def _open_stores(self) -> list[Store]:
        return [open_store(self._cache, spec) for spec in self._setup.specs]

    def _try_again(self, inventory: Inventory, stores: list[Store]) -> list[Store]:
        """Try the images that circumstances failed once more, last and alone.

        What comes of it is kept. An image that was given up under other circumstances has only now been given up once
        under these.
        """
        if self._setup.in_process or not self._work:
            return stores  # where nothing was missing nobody was due either
        for _ in range(2):
            if self._round(inventory, stores, RetryPolicy(self._circumstances, "suspects")) is None:
                break
            stores = self._open_stores()
        return stores

    def _round(
        self, inventory: Inventory, stores: Sequence[Store], policy: RetryPolicy
    ) -> Callable[[Sequence[Store]], bool] | None:
        """Plan and compute what is missing; None where nothing is.

        What comes back says of the stores afterwards whether anything is left: files changed, or rows were removed.
        """
        done: list[WorkDone] = []
        parts = group_missing(inventory, [~policy.masks(store, inventory.keys)[0] for store in stores])
        self._setup.agree_on_batch(sum(len(part.inventory) for part in parts))
        for part in parts:
            # The widest rows decide how many make a task, so their store has the plan.
            cuts = tuple(sorted(part.cuts, key=lambda cut: -self._setup.specs[cut].row_bytes))
            for cut in cuts:
                self._begin(cut, stores[cut])
            first = self._work[cuts[0]]
            plan = first.scheduler.agree(part.inventory, policy, task_rows=self.task_rows)
            plan = replace(plan, cuts=cuts)
            executor = self._executor or self._start(inventory)
            with self._progress.bar("views" if plan.views else "extract", plan.images) as bar:
                ended = functools.partial(self._ended, cuts, bar)
                work = first.scheduler.work(plan, executor, bar.update, ended)
            first.by_others += len(work.by_others)
            done.append(work)
        if not done:
            return None
        moved = any(outcome.moved for work in done for outcome in work.outcomes)
        return lambda after: (
            moved or any(len(self._unexplained(inventory, cut, store)) for cut, store in enumerate(after))
        )

    def _begin(self, cut: int, store: Store) -> None:
        if cut in self._work:
            return
        open_for_building(self._cache, store.folder)
        spec = self._setup.specs[cut]
        scheduler = TaskScheduler(self._cache, spec, store.folder, patience=self.patience)
        self._work[cut] = _StoreWork(scheduler)
        scheduler.sweep()

    def _ended(self, cuts: tuple[int, ...], bar: Bar, outcomes: tuple[TaskOutcome, ...]) -> None:
        for cut, outcome in zip(cuts, outcomes, strict=True):
            self._work[cut].outcomes.append(outcome)
        bad = sum(len(one.rejections) for one in self._work[cuts[0]].outcomes)
        if bad:
            bar.note(f"{bad} rejected")

    def _outcomes(self, cut: int) -> list[TaskOutcome]:
        return self._work[cut].outcomes if cut in self._work else []

    def _unexplained(self, inventory: Inventory, cut: int, store: Store) -> np.ndarray:
        return unexplained(inventory, store, self._outcomes(cut))

    # -------------------------------------------------------------------------------------------- checks

    def _check_writable(self, inventory: Inventory, stores: Sequence[Store]) -> None:
        """Refuse stores that cannot be written to, before a base is built."""
        policy = RetryPolicy.first(self._options.limits)
        for store in stores:
            if not policy.masks(store, inventory.keys)[0].all():
                open_for_building(self._cache, store.folder)

    def _check_folders(self) -> None:
        for work in self._work.values():
            folder = work.scheduler.folder
            if not folder.is_dir():
                raise StoreError(
                    f"{folder} was removed while it was being filled; what lay in it is gone with it. "
                    "Run the same command again to begin anew"
                )

    def _check_kept(self, before: Inventory, inventory: Inventory, stores: Sequence[Store]) -> None:
        """Raise `StoreError` where rows were removed as often as computed.

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
