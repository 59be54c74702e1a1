"""Look up an inventory's images in a store: labels meet features."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bottleneck.schema import Inventory, StoreSpec
from bottleneck.store.read import Store
from bottleneck.store.rows import Rows, loaded, picked
from bottleneck.store.views import ViewRows, view_rows

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, eq=False)
class Features:
    """Feature rows of images in inventory order; copies are repeated.

    What is known of an image is kept in Arrow columns: at a million images Python objects cost more than the features
    that are read at a time.

    Attributes
    ----------
    X : Rows or numpy.ndarray
        (n, *shape), of the storage dtype: an array-like over the store's maps, an array once `loaded`.
    keys : numpy.ndarray
        (n, 32) uint8 contents.
    table : pyarrow.Table
        ``path`` binary, ``label``, ``group``, ``split`` string or null.
    classes : tuple of str
        In code-point order.
    spec : StoreSpec
        What a row is.
    views : ViewRows or None
        (n, K, *shape): all views of each image, ``[:, 0]`` being the image itself; None where none were asked for.
    """

    X: Rows | np.ndarray
    keys: np.ndarray
    table: pa.Table
    classes: tuple[str, ...]
    spec: StoreSpec
    views: ViewRows | None = None

    def __len__(self) -> int:
        return len(self.X)

    @property
    def y(self) -> np.ndarray:
        """(n,) labels as strings; None where an image has none."""
        return self._texts("label")

    @property
    def groups(self) -> np.ndarray:
        """(n,) group names; None where there is none."""
        return self._texts("group")

    @property
    def splits(self) -> np.ndarray:
        """(n,) ``train``, ``validation``, ``test`` or None, as given by the source."""
        return self._texts("split")

    @property
    def paths(self) -> np.ndarray:
        """(n,) bytes, relative to the source."""
        values = np.empty(len(self), object)
        values[:] = self.table.column("path").to_pylist()
        return _read_only(values)

    @property
    def labelled(self) -> np.ndarray:
        """(n,) bool: the image has a label."""
        known: np.ndarray = self.table.column("label").is_valid().to_numpy()
        return known

    def where(self, rows: np.ndarray) -> Features:
        """Pick rows by a mask (n,) or numbers; read none of them."""
        if np.asarray(rows).dtype == bool and np.all(rows) and len(rows) == len(self):
            return self
        numbers = np.flatnonzero(rows) if np.asarray(rows).dtype == bool else np.asarray(rows, np.int64)
        return replace(
            self,
            X=picked(self.X, rows),
            keys=self.keys[numbers],
            table=self.table.take(numbers),
            views=self.views and self.views.where(numbers),
        )

    def loaded(self, memory: int | str | None = None) -> Features:
        """Read `X` into memory where it fits; else rows are streamed.

        Parameters
        ----------
        memory : int or str, optional
            Bytes, or ``"4G"``; by default `rows_budget`: 2 GiB, or a quarter of the machine's or container's memory.

        Raises
        ------
        DamagedShard
            A row is not what was committed.
        """
        views = self.views and self.views.loaded(memory)
        if views is not None and isinstance(views.flat, np.ndarray):
            # The images are among their views already.
            return replace(self, X=np.asarray(views)[:, 0], views=views)
        return replace(self, X=loaded(self.X, memory), views=views)

    def to_json(self, out: Path, kind: str) -> dict[str, Any]:
        """Describe for a program what was written to `out`."""
        return {
            "rows": len(self),
            "shape": list(self.X.shape),
            "dtype": self.X.dtype.name,
            "out": str(out),
            "format": kind,
            "recipe": self.spec.recipe.fingerprint,
        }

    def _texts(self, name: str) -> np.ndarray:
        # One string object for each distinct value, not for each row.
        column = self.table.column(name).combine_chunks().dictionary_encode()
        chunks = column.chunks if hasattr(column, "chunks") else [column]
        values = [np.array([*chunk.dictionary.to_pylist(), None], object) for chunk in chunks]
        codes = [chunk.indices.fill_null(len(chunk.dictionary)).to_numpy() for chunk in chunks]
        parts = [value[code] for value, code in zip(values, codes, strict=True)]
        return _read_only(np.concatenate(parts) if parts else np.empty(0, object))


def _read_only(values: np.ndarray) -> np.ndarray:
    """Refuse writes: each call makes the array again, and would lose them."""
    values.flags.writeable = False
    return values


def join(
    store: Store, inventory: Inventory, split: str | None = None, *, views: tuple[Store, int] | None = None
) -> Features:
    """Find each image of `inventory` that has a row; read none yet.

    Parameters
    ----------
    store : Store
    inventory : Inventory
    split : str, optional
        Images that the source puts into this split alone.
    views : (Store, int), optional
        The store of augmented views, and how many views an image is to have, itself included.

    Returns
    -------
    Features
        Images without a row (rejected ones) are left out.
    """
    positions = store.find(inventory.keys)
    wanted = positions >= 0
    if split is not None:
        import pyarrow.compute as compute

        wanted &= compute.fill_null(compute.equal(inventory.table.column("split"), split), False).to_numpy()
    table, keys = inventory.table.select(["path", "label", "group", "split"]), inventory.keys
    if not wanted.all():
        numbers = np.flatnonzero(wanted)
        table, keys, positions = table.take(numbers), keys[numbers], positions[numbers]
    every = None if views is None else view_rows(store, views[0], keys, views[1])
    return Features(store.rows(positions), keys, table, inventory.classes, store.spec, every)
