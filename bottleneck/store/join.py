"""Labels meet features here, for the first time: an inventory's rows looked up in a store."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bottleneck.schema import Inventory, StoreSpec
from bottleneck.store.read import Store


@dataclass(frozen=True, eq=False)
class Features:
    """Feature rows with everything that is known of their images, in inventory order; copies are repeated.

    Attributes
    ----------
    X : numpy.ndarray
        (n, *shape), of the storage dtype.
    y : numpy.ndarray
        (n,) labels as strings; None where an image has none.
    keys : numpy.ndarray
        (n, 32) uint8 contents.
    groups : numpy.ndarray
        (n,) group names; None where there is none.
    paths : numpy.ndarray
        (n,) bytes, relative to the source.
    splits : numpy.ndarray
        (n,) ``train``, ``validation``, ``test`` or None, as given by the source.
    classes : tuple of str
        In code-point order.
    spec : StoreSpec
        What a row is.
    """

    X: np.ndarray
    y: np.ndarray
    keys: np.ndarray
    groups: np.ndarray
    paths: np.ndarray
    splits: np.ndarray
    classes: tuple[str, ...]
    spec: StoreSpec

    def __len__(self) -> int:
        return len(self.X)

    def where(self, mask: np.ndarray) -> Features:
        """The rows that `mask` (n,) picks, with the same classes."""
        columns = ("X", "y", "keys", "groups", "paths", "splits")
        return replace(self, **{name: getattr(self, name)[mask] for name in columns})


def join(store: Store, inventory: Inventory) -> Features:
    """Every image of `inventory` that has a row, with that row.

    Parameters
    ----------
    store : Store
    inventory : Inventory

    Returns
    -------
    Features
        Images without a row (rejected ones) are left out.

    Raises
    ------
    DamagedShard
        A row is not what was committed.
    """
    positions = store.find(inventory.keys)
    there = np.flatnonzero(positions >= 0)
    table = inventory.table.take(there)

    def column(name: str) -> np.ndarray:
        values = np.empty(len(there), object)
        values[:] = table.column(name).to_pylist()
        return values

    return Features(
        X=store.gather(positions[there]),
        y=column("label"),
        keys=inventory.keys[there],
        groups=column("group"),
        paths=column("path"),
        splits=column("split"),
        classes=inventory.classes,
        spec=store.spec,
    )
