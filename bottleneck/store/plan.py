"""Cut what is missing into tasks. Nothing here reads or writes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bottleneck.schema import Inventory, StoreSpec, Task, ViewPolicy
from bottleneck.store.content_index import first_rows, prefixes


class PublishedPlan(NamedTuple):
    """A published plan: contents (n, 32) uint8, and rows of a task."""

    keys: np.ndarray
    task_rows: int


@dataclass(frozen=True, eq=False)
class Plan:
    """Contents to compute, each once, cut into tasks.

    Tasks of published plans come first, then new ones in order of first path, then suspects.

    Attributes
    ----------
    inventory : Inventory
    rows : numpy.ndarray
        (n,) int64: for each planned content, the inventory row of its first path, task after task.
    edges : numpy.ndarray
        (tasks + 1,) int64: where each task begins in `rows`, and the end.
    adopted : int
        Number of tasks at the front that others have cut.
    suspect_tasks : int
        Number of tasks at the end, of one suspect each.
    task_rows : int
        Rows of a new task.
    views : ViewPolicy or None
        What is made of each image, where it is not taken as it is.
    cuts : tuple of int
        The cuts whose rows are wanted, the one whose store has this plan first.
    """

    inventory: Inventory
    rows: np.ndarray
    edges: np.ndarray
    adopted: int
    suspect_tasks: int
    task_rows: int
    views: ViewPolicy | None = None
    cuts: tuple[int, ...] = (0,)

    def __len__(self) -> int:
        return len(self.edges) - 1

    @property
    def images(self) -> int:
        """Number of contents to compute."""
        return len(self.rows)

    @property
    def new_rows(self) -> np.ndarray:
        """Rows of the inventory in new tasks, (m,) int64."""
        return self.rows[self.edges[self.adopted] : self.edges[len(self) - self.suspect_tasks]]

    def keys(self, number: int) -> np.ndarray:
        """Contents of task `number`, (k, 32) uint8."""
        return np.ascontiguousarray(self.inventory.keys[self._rows(number)])

    def __getitem__(self, number: int) -> Task:
        """Make task `number`: a list of all would not fit in memory."""
        keys = self.keys(number)
        paths = self.inventory.table.column("path").take(self._rows(number)).to_pylist()
        return Task(task_id(keys), keys, tuple(paths), self.views, self.cuts)

    def __iter__(self) -> Iterator[Task]:
        return (self[number] for number in range(len(self)))

    def _rows(self, number: int) -> np.ndarray:
        if not 0 <= number < len(self):
            raise IndexError(f"task {number} of {len(self)}")
        return self.rows[self.edges[number] : self.edges[number + 1]]


def task_id(keys: np.ndarray) -> str:
    """16 hex digits of sha256 over the keys in order."""
    return hashlib.sha256(np.ascontiguousarray(keys).tobytes()).hexdigest()[:16]


def plan_tasks(
    inventory: Inventory,
    spec: StoreSpec,
    known: np.ndarray,
    *,
    suspects: np.ndarray | None = None,
    published: Sequence[PublishedPlan] = (),
    task_rows: int | None = None,
) -> Plan:
    """Cut the contents of `inventory` that are not known yet into tasks.

    A task of a published plan is taken over as it was cut when all of its contents are missing here: builders that
    start at different moments then cut alike, and share. What no such task covers is planned anew, in order of first
    path. Suspects come last, one a task.

    Parameters
    ----------
    inventory : Inventory
        Sorted by path.
    spec : StoreSpec
        Its rows' size decides the task size, so that every builder cuts alike.
    known : numpy.ndarray
        (len(inventory),) bool: the store has a row, or a lasting rejection, for this content.
    suspects : numpy.ndarray, optional
        (len(inventory),) bool: the content was rejected for its circumstances.
    published : sequence of Published
        In an order that all builders share; where two cover a content, the first is followed.
    task_rows : int, optional
        For tests and benchmarks only.

    Returns
    -------
    Plan

    Examples
    --------
    >>> from bottleneck.schema import Inventory, StoreSpec, Recipe, Pixels, Preprocessing
    >>> import pyarrow as pa
    >>> table = pa.table({"path": pa.array([b"a", b"b", b"c"], pa.binary()),
    ...     "content": pa.array([b"x" * 32, b"y" * 32, b"x" * 32], pa.binary(32))})
    >>> recipe = Recipe(base_digest="0" * 64, pooling="avg", pixels=Pixels(height=8, width=8),
    ...     preprocessing=Preprocessing(), precision="float32", dtype="float32")
    >>> spec = StoreSpec(base="toy", cut="top", shape=(4,), recipe=recipe)
    >>> p = plan_tasks(Inventory(table, "/photos"), spec, np.zeros(3, bool))
    >>> p.images, len(p), p[0].paths
    (2, 1, (b'a', b'b'))
    """
    suspects = np.zeros(len(inventory), bool) if suspects is None else suspects & ~known
    missing = first_rows(inventory.keys, ~known & ~suspects)
    adopted = _adopt(inventory.keys, missing, published)
    new = missing
    if adopted:
        covered = np.zeros(len(inventory), bool)
        covered[np.concatenate(adopted)] = True
        new = missing[~covered[missing]]
    single = first_rows(inventory.keys, suspects)
    size = task_rows or spec.task_rows
    sizes = [len(rows) for rows in adopted]
    sizes += [min(size, len(new) - start) for start in range(0, len(new), size)]
    sizes += [1] * len(single)
    edges = np.concatenate([[0], np.cumsum(np.array(sizes, np.int64))])
    rows = np.concatenate([*adopted, new, single]).astype(np.int64)
    return Plan(inventory, rows, edges, len(adopted), len(single), size, spec.views)


def _adopt(keys: np.ndarray, missing: np.ndarray, published: Sequence[PublishedPlan]) -> list[np.ndarray]:
    """Find inventory rows of `published` tasks that are all `missing` and free."""
    if not published or not len(missing):
        return []
    prefix = prefixes(keys[missing])
    order = np.argsort(prefix, kind="stable")
    prefix, rows = prefix[order], missing[order]
    free = np.ones(len(keys), bool)
    tasks: list[np.ndarray] = []
    for one in published:
        place = np.minimum(np.searchsorted(prefix, prefixes(one.keys)), len(rows) - 1)
        row = rows[place]
        # Two contents may share these eight bytes: at worst such a task is planned again.
        here = (keys[row] == one.keys).all(axis=1) & free[row]
        for start in range(0, len(row), one.task_rows):
            part = slice(start, start + one.task_rows)
            if here[part].all() and len(np.unique(row[part])) == len(row[part]) and free[row[part]].all():
                free[row[part]] = False
                tasks.append(row[part])
    return tasks
