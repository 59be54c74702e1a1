"""What is missing, cut into tasks. Pure: an inventory and the contents a store has go in, a plan comes out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bottleneck.schema import Inventory, StoreSpec, Task


@dataclass(frozen=True, eq=False)
class Plan:
    """Contents to compute, in order of first path.

    Attributes
    ----------
    inventory : Inventory
    rows : numpy.ndarray
        (n,) int64: for each planned content, the inventory row of its first path.
    task_rows : int
        Rows a task.
    """

    inventory: Inventory
    rows: np.ndarray
    task_rows: int

    def __len__(self) -> int:
        """How many tasks there are."""
        return (len(self.rows) + self.task_rows - 1) // self.task_rows

    @property
    def images(self) -> int:
        """How many contents there are to compute."""
        return len(self.rows)

    def __getitem__(self, number: int) -> Task:
        """Task `number`, made when asked for: at 100 million rows a list of objects does not fit."""
        if not 0 <= number < len(self):
            raise IndexError(f"task {number} of {len(self)}")
        rows = self.rows[number * self.task_rows : (number + 1) * self.task_rows]
        keys = np.ascontiguousarray(self.inventory.keys[rows])
        paths = self.inventory.table.column("path").take(rows).to_pylist()
        return Task(task_id(keys), keys, tuple(paths))

    def __iter__(self) -> Iterator[Task]:
        return (self[number] for number in range(len(self)))


def task_id(keys: np.ndarray) -> str:
    """16 hex digits of sha256 over the keys in order."""
    return hashlib.sha256(np.ascontiguousarray(keys).tobytes()).hexdigest()[:16]


def plan(
    inventory: Inventory,
    spec: StoreSpec,
    known: np.ndarray,
    *,
    task_rows: int | None = None,
) -> Plan:
    """The contents of `inventory` that are not known yet, in order of first path, cut into tasks.

    Parameters
    ----------
    inventory : Inventory
        Sorted by path.
    spec : StoreSpec
        Its rows' size decides the task size, so that every builder cuts alike.
    known : numpy.ndarray
        (len(inventory),) bool: the store has a row, or a lasting rejection, for this content.
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
    >>> p = plan(Inventory(table, "/photos"), spec, np.zeros(3, bool))
    >>> p.images, len(p), p[0].paths
    (2, 1, (b'a', b'b'))
    """
    return Plan(inventory, first_rows(inventory.keys, ~known), task_rows or spec.task_rows)


def first_rows(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Row numbers of the first occurrence of each distinct key among `wanted` rows, ascending.

    Parameters
    ----------
    keys : numpy.ndarray
        (n, 32) uint8.
    wanted : numpy.ndarray
        (n,) bool.

    Returns
    -------
    numpy.ndarray
        int64.
    """
    rows = np.flatnonzero(wanted)
    if not len(rows):
        return rows
    view = np.ascontiguousarray(keys[rows]).view("V32").ravel()
    # return_index gives the first of equal keys because the sort that unique uses for it is stable.
    _, first = np.unique(view, return_index=True)
    return rows[np.sort(first)]
