"""Share one store's work with other builders, anywhere.

No protocol: plans lie there to be taken over, a lock a task saves work, and a task whose record appears is done. Where
that fails, work is done twice and the first record wins.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bottleneck.extraction.executor import TaskExecutor
from bottleneck.extraction.retry_policy import RetryPolicy, suspected_contents
from bottleneck.extraction.worker.task import TaskOutcome
from bottleneck.schema import Cache, Inventory, StoreSpec, Task
from bottleneck.store.commit import read_sound_record
from bottleneck.store.plan import Plan, plan_tasks, task_id
from bottleneck.store.plan_files import publish_plan, read_plans, remove_settled
from bottleneck.store.read import Store, open_store
from bottleneck.store.record import RECORD_NAME, is_committed
from bottleneck.store.task_locks import TaskLock, TaskLocks

#: Seconds after which work that another holds is done here too; longer where this builder's own tasks take longer.
PATIENCE = 20.0

#: Other machines may be slower than this one.
_USUAL = 3.0

#: The same, before this builder has seen a task done.
_UNKNOWN = 300.0

_POLLS = (0.02, 1.0)

#: Looks for a quiet moment between two listings, before a plan is published all the same.
_LOOKS = 5


@dataclass
class WorkDone:
    """Outcomes of own tasks, and numbers of those others committed."""

    outcomes: list[TaskOutcome] = field(default_factory=list)
    by_others: list[int] = field(default_factory=list)


def plan_missing(
    inventory: Inventory, spec: StoreSpec, store: Store, policy: RetryPolicy, *, task_rows: int | None = None
) -> Plan:
    """Plan what `store` lacks, after the plans published now."""
    done, suspects = policy.masks(store, inventory.keys)
    if done.all():
        return plan_tasks(inventory, spec, np.ones(len(inventory), bool), task_rows=task_rows)
    return plan_tasks(
        inventory,
        spec,
        done,
        suspects=suspects,
        published=tuple(read_plans(store.folder / "plans", max(spec.task_rows, task_rows or 0)).values()),
        task_rows=task_rows,
    )


class _PlanProgress:
    """Tasks of a plan under way, with their locks, and done."""

    def __init__(
        self,
        executor: TaskExecutor,
        on_progress: Callable[[int], None],
        ended: Callable[[tuple[TaskOutcome, ...]], None],
        slowest: float,
    ) -> None:
        self.done = WorkDone()
        self.slowest = slowest
        self._executor, self._on_progress, self._ended = executor, on_progress, ended
        self._begun: dict[Future[tuple[TaskOutcome, ...]], tuple[TaskLock, float]] = {}

    def by_others(self, number: int, images: int) -> None:
        self.done.by_others.append(number)
        self._on_progress(images)

    def begin(self, task: Task, lock: TaskLock) -> None:
        """Start a task; wait until there is room for the next."""
        started = time.monotonic()
        try:
            future = self._executor.begin(task, self._on_progress)
        except BaseException:
            lock.release()
            raise
        self._begun[future] = lock, started
        self.collect(self._executor.room - 1)

    def collect(self, left: float) -> None:
        """Take ended tasks; wait until at most `left` are under way."""
        while self._begun:
            late = len(self._begun) <= left
            ended, _ = wait(self._begun, timeout=0 if late else None, return_when=FIRST_COMPLETED)
            for future in ended:
                lock, started = self._begun.pop(future)
                with lock:
                    outcomes = future.result()
                    lock.release(settled=True)
                self.done.outcomes.append(outcomes[0])
                self._ended(outcomes)
                self.slowest = max(self.slowest, time.monotonic() - started)
            if late:
                return

    def let_go(self) -> None:
        """Leave to others what will not end here."""
        for lock, _ in self._begun.values():
            lock.release()


class TaskScheduler:
    """One of the builders of the store in a writable `folder`."""

    def __init__(self, cache: Cache, spec: StoreSpec, folder: Path, *, patience: float = PATIENCE) -> None:
        self.locks = TaskLocks(folder / "locks")
        self.folder = folder
        self._cache, self._spec = cache, spec
        self._patience = patience
        self._before: frozenset[str] = frozenset()
        self._damaged: Collection[str] = ()
        self._tried: Mapping[bytes, frozenset[str]] = {}
        self._slowest = 0.0

    def agree(self, inventory: Inventory, policy: RetryPolicy, *, task_rows: int | None) -> Plan:
        """Agree on a plan with all builders; publish its new part first.

        A builder that committed a part of a plan had published it before. So a plan that was not listed, though some of
        its rows are there already, shows itself by records that came while this builder looked: then it looks again.

        Raises
        ------
        OSError
            The plan cannot be written.
        """
        for _ in range(_LOOKS):
            self._before = self._records()
            store = open_store(self._cache, self._spec)
            self._damaged, self._tried = frozenset(store.damaged), store.tried
            todo = plan_missing(inventory, self._spec, store, policy, task_rows=task_rows)
            if not len(todo.new_rows) or self._before == self._records():
                break
        if len(todo.new_rows):
            publish_plan(self.folder / "plans", inventory.keys[todo.new_rows], todo.task_rows)
        return todo

    def work(
        self,
        todo: Plan,
        executor: TaskExecutor,
        on_progress: Callable[[int], None],
        ended: Callable[[tuple[TaskOutcome, ...]], None] = lambda _: None,
    ) -> WorkDone:
        """Bring every task of `todo` to a record, here or elsewhere.

        `on_progress` is told how many images others have done, and by `executor` how many it has; `ended` what became
        of each own task at each cut, as soon as it is done.
        """
        work = _PlanProgress(executor, on_progress, ended, self._slowest)
        try:
            shared = len(todo) - todo.suspect_tasks
            self._share(todo, range(shared), work)
            # A suspect may cost a deadline: one builder tries it, and the others take its word.
            for number in range(shared, len(todo)):
                lock = self.locks.take(_id(todo, number))
                if lock is not None:
                    self._begin(todo, number, lock, work)
                else:
                    work.by_others(number, 1)
            work.collect(0)
        finally:
            work.let_go()
            self._slowest = work.slowest
        return work.done

    def settle(self, store: Store) -> None:
        """Remove plans that `store` has outgrown, their locks, and leftovers."""
        gone = remove_settled(
            self.folder / "plans", lambda keys: store.known(keys) | suspected_contents(store, keys)
        )
        for task in gone:
            lock = self.locks.take(task)
            if lock is not None:
                lock.release(settled=True)
        self.sweep()

    def sweep(self) -> None:
        """Remove what dead builders left half written."""
        self.locks.sweep([self.folder / "shards", self.folder / "plans"])
        for name in ("recipe.json", "canary.f32"):
            # Nobody holds a lock for these. Once one exists, a builder that still writes it finds that it need not.
            if (self.folder / name).exists():
                for path in self.folder.glob(f".{name}.*.tmp"):
                    with contextlib.suppress(OSError):
                        path.unlink()

    def _share(self, todo: Plan, numbers: Sequence[int], work: _PlanProgress) -> None:
        pending = list(numbers)
        attempt, idle_since, pause = 0, time.monotonic(), _POLLS[0]
        while pending:
            locked: list[int] = []
            for number in pending:
                task = _id(todo, number)
                if self._is_committed(task):
                    work.by_others(number, int(todo.edges[number + 1] - todo.edges[number]))
                    continue
                lock = self.locks.take(task)
                if lock is None and attempt:
                    lock = self.locks.take(task, attempt)
                if lock is None:
                    locked.append(number)
                    continue
                self._begin(todo, number, lock, work)
                if not attempt:
                    # Meanwhile the others went on too.
                    idle_since, pause = time.monotonic(), _POLLS[0]
            if len(locked) < len(pending):
                pending = locked
                continue
            usual = max(self._patience, _USUAL * work.slowest) if work.slowest else _UNKNOWN
            if time.monotonic() - idle_since > usual:
                attempt, idle_since = attempt + 1, time.monotonic()
                continue
            work.collect(math.inf)  # without waiting
            time.sleep(pause)
            pause = min(2 * pause, _POLLS[1])

    def _begin(self, todo: Plan, number: int, lock: TaskLock, work: _PlanProgress) -> None:
        """Start a locked task, unless it was committed just before."""
        task = todo[number]
        if number >= len(todo) - todo.suspect_tasks:
            task = task._replace(blamed=self._tried.get(task.keys[0].tobytes(), frozenset()))
        if self._is_committed(task.id):
            work.by_others(number, len(task.keys))
            lock.release(settled=True)
        else:
            work.begin(task, lock)

    def _is_committed(self, task: str) -> bool:
        """Whether somebody has committed the task since this builder looked."""
        shards = self.folder / "shards"
        for attempt in range(1000):
            name = f"{task}.{attempt}.json" if attempt else f"{task}.json"
            if name not in self._before:
                return is_committed(shards, name, self._spec)
            # Its files were damaged, and may have been put right under the same name.
            if name in self._damaged and read_sound_record(shards, name, self._spec) is not None:
                return True
        return False

    def _records(self) -> frozenset[str]:
        try:
            names = os.listdir(self.folder / "shards")
        except FileNotFoundError:
            return frozenset()
        return frozenset(name for name in names if RECORD_NAME.fullmatch(name))


def _id(todo: Plan, number: int) -> str:
    return task_id(todo.keys(number))
