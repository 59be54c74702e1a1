"""Compute several cuts in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bottleneck.contracts import Forward, SeveralCuts
from bottleneck.schema import Inventory, StoreSpec


class MissingImages(NamedTuple):
    """Images that the stores of these cuts lack; cuts ascend."""

    cuts: tuple[int, ...]
    inventory: Inventory


def group_missing(inventory: Inventory, lacking: Sequence[np.ndarray]) -> list[MissingImages]:
    """Group `inventory` by which stores lack an image, most first.

    `lacking` has (len(inventory),) bool for each cut. Each image that something lacks is in exactly one group.

    Examples
    --------
    >>> import pyarrow as pa
    >>> table = pa.table({"path": pa.array([b"a", b"b", b"c"], pa.binary())})
    >>> parts = group_missing(Inventory(table, "/photos"), [np.array([1, 1, 0], bool), np.array([1, 0, 0], bool)])
    >>> [(part.cuts, part.inventory.table["path"].to_pylist()) for part in parts]
    [((0, 1), [b'a']), ((0,), [b'b'])]
    """
    if len(lacking) == 1:
        return [MissingImages((0,), inventory)] if lacking[0].any() else []
    groups = []
    patterns, which = np.unique(np.stack(lacking), axis=1, return_inverse=True)
    for number in sorted(range(patterns.shape[1]), key=lambda n: -int(patterns[:, n].sum())):
        cuts = tuple(int(cut) for cut in np.flatnonzero(patterns[:, number]))
        if cuts:
            rows = np.flatnonzero(which.ravel() == number)
            groups.append(MissingImages(cuts, Inventory(inventory.table.take(rows), inventory.location)))
    return groups


def specs_of(forward: Forward) -> tuple[StoreSpec, ...]:
    """Give the specs of each cut of `forward`."""
    return forward.specs if isinstance(forward, SeveralCuts) else (forward.spec,)


def forward_rows(forward: Forward, pixels: np.ndarray) -> tuple[np.ndarray, ...]:
    """Compute rows (batch, *shape) of each cut in one forward pass."""
    return forward.several(pixels) if isinstance(forward, SeveralCuts) else (forward.features(pixels),)
