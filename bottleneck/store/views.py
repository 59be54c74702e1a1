"""Key, choose and read augmented views, in a store of their own.

A view's key is the first 30 bytes of its image's content and its number in two: 32 bytes like a content, so that
plans, shards, records and the index know nothing of views. View 0 is the image itself, in the plain store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bottleneck.errors import UsageError
from bottleneck.schema import MOST_VIEWS, Inventory
from bottleneck.store.mapped import Shards
from bottleneck.store.read import Store
from bottleneck.store.rows import Rows, loaded, picked

#: How much of a content a view's key holds; the other two of 32 bytes number the view.
CONTENT_BYTES = 30


def view_keys(keys: np.ndarray, first: int, stop: int) -> np.ndarray:
    """Make keys of views `first` to ``stop - 1``, image by image.

    Parameters
    ----------
    keys : numpy.ndarray
        (n, 32) uint8 contents.
    first, stop : int
        1 or more, and at most 65,536: view 0 has no key but the content.

    Returns
    -------
    numpy.ndarray
        (n * (stop - first), 32) uint8.

    Examples
    --------
    >>> view_keys(np.full((1, 32), 7, np.uint8), 1, 3)[:, -4:].tolist()
    [[7, 7, 0, 1], [7, 7, 0, 2]]
    """
    if not 1 <= first <= stop <= MOST_VIEWS:
        raise UsageError(f"views {first} to {stop - 1}: they are numbered from 1 to {MOST_VIEWS - 1:,}")
    views = np.repeat(keys, stop - first, axis=0)
    numbers = np.tile(np.arange(first, stop, dtype=">u2"), len(keys))
    views[:, CONTENT_BYTES:] = numbers.view(np.uint8).reshape(-1, 2)
    return views


def is_of(key: bytes, content: bytes) -> bool:
    """Tell whether `key` is that of a view of this content."""
    return key[:CONTENT_BYTES] == content[:CONTENT_BYTES]


def views_wanted(inventory: Inventory, has_row: np.ndarray, count: int) -> Inventory:
    """List the augmented views of an inventory's images as an inventory.

    Parameters
    ----------
    inventory : Inventory
    has_row : numpy.ndarray
        (n,) bool: which images have a row in the plain store. Views of the others would be rejected too.
    count : int
        K: views 1 to K - 1 of each image are listed, side by side, so that a task decodes the image once.

    Returns
    -------
    Inventory
        (K - 1) rows an image, sorted by path and number.
    """
    import pyarrow as pa

    rows = np.flatnonzero(has_row)
    table = inventory.table.take(np.repeat(rows, count - 1))
    contents = view_keys(inventory.keys[rows], 1, count) if len(rows) else np.zeros((0, 32), np.uint8)
    column = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(32), len(contents), [None, pa.py_buffer(np.ascontiguousarray(contents))]
    )
    table = table.set_column(table.column_names.index("content"), "content", column)
    return replace(inventory, table=table, unreadable=(), ignored={})


@dataclass(frozen=True, eq=False)
class ViewRows:
    """All views of some images, an array-like (n, K, *shape).

    Attributes
    ----------
    flat : Rows or numpy.ndarray
        (n * K, *shape), as heads take rows: row ``i * K + k`` is view k of image i.
    count : int
        K: how many views an image has, with itself.
    """

    flat: Rows | np.ndarray
    count: int

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, K, *shape)."""
        return (len(self), self.count, *self.flat.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the rows as stored."""
        return self.flat.dtype

    @property
    def ndim(self) -> int:
        """How many axes there are."""
        return self.flat.ndim + 1

    def __len__(self) -> int:
        return len(self.flat) // self.count

    def __repr__(self) -> str:
        return f"ViewRows({self.shape}, {self.dtype.name})"

    def where(self, images: np.ndarray) -> ViewRows:
        """Pick images by numbers (m,); read no rows on disk."""
        return ViewRows(picked(self.flat, group_rows(images, self.count)), self.count)

    def loaded(self, memory: int | str | None = None) -> ViewRows:
        """Read them where they fit (see `Features.loaded`)."""
        return ViewRows(loaded(self.flat, memory), self.count)

    def __getitem__(self, key: Any) -> np.ndarray:
        parts = _spelled_out(key if isinstance(key, tuple) else (key,), self.ndim)
        numbers = np.arange(len(self.flat)).reshape(len(self), self.count)[parts[:2]]
        rows = self.flat[np.ravel(numbers)].reshape(*np.shape(numbers), *self.shape[2:])
        chosen: np.ndarray = rows[(slice(None),) * np.ndim(numbers) + parts[2:]]
        return chosen

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False and isinstance(self.flat, Rows):
            raise ValueError("rows on disk cannot become an array without a copy")
        return np.asarray(self.flat, dtype).reshape(self.shape)


def view_rows(plain: Store, views: Store, keys: np.ndarray, count: int) -> ViewRows:
    """Find all `count` views of these contents; read no row yet.

    Parameters
    ----------
    plain, views : Store
        Of the images, and of their augmented views.
    keys : numpy.ndarray
        (n, 32) uint8 contents, all of them in `plain`.
    count : int
        K. Where a view has no row (it was rejected), view 0 stands in for it: see `stand_ins`.

    Returns
    -------
    ViewRows
    """
    places = np.empty((len(keys), count), np.int64)
    places[:, 0] = plain.index.numbers[plain.find(keys)]
    if count > 1 and len(keys):
        where = views.find(view_keys(keys, 1, count)).reshape(-1, count - 1)
        numbers = np.append(views.index.numbers, 0)[where] + len(plain.shards)
        places[:, 1:] = np.where(where >= 0, numbers, places[:, :1])
    both = Shards([*plain.shards.files, *views.shards.files], plain.shards.width, plain.shards.dtype)
    return ViewRows(Rows(both, places.ravel(), plain.spec.shape), count)


def stand_ins(views: Store, keys: np.ndarray, count: int) -> int:
    """Count views without a row, for which view 0 stands in."""
    return int((views.find(view_keys(keys, 1, count)) < 0).sum()) if count > 1 else 0


def _spelled_out(key: tuple[Any, ...], ndim: int) -> tuple[Any, ...]:
    """Replace ``...`` in an index by the slices it stands for."""
    dots = [place for place, part in enumerate(key) if part is Ellipsis]
    if not dots:
        return key
    whole = (slice(None),) * (ndim - len(key) + 1)
    return key[: dots[0]] + whole + key[dots[0] + 1 :]


def epoch_views(seed: int, epoch: int, images: int, count: int) -> np.ndarray:
    """Choose which view of each image an epoch (from 1) sees.

    (images,) int64 in 0..count - 1.

    Examples
    --------
    >>> epoch_views(0, 1, 3, 1).tolist(), bool((epoch_views(0, 1, 9, 4) == epoch_views(0, 1, 9, 4)).all())
    ([0, 0, 0], True)
    """
    # Neither an order of rows nor a validation part uses this stream.
    return np.random.default_rng([seed, epoch, 1]).integers(0, count, images)


def group_rows(images: Sequence[int] | np.ndarray, count: int) -> np.ndarray:
    """Number the flat rows of these images: (len(images) * count,) int64."""
    rows = np.asarray(images, np.int64)[:, None] * count + np.arange(count)
    return rows.ravel()
