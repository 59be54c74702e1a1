"""Resize a picture to the very pixels of `geometry`, with Numba.

libjpeg soon reads a JPEG file of usual size (500 x 375, say); the rest takes as long again in a graph: products for the
boxes, an interpolation of one number at a time, and copies in memory. Here each row of boxes is averaged and stretched
across when it is first needed, and two such rows give a row of the target.

The bits are TensorFlow's because the operations are, in the same order and in float32: sums of bytes are exact, one
division gives their mean, and ``a + (b - a) * weight`` is rounded twice, across first and down then.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from numba import njit

_compiled = functools.partial(njit, nogil=True, cache=True, _nrt=False)()

#: Sums of this many bytes are exact in float32, in any order of summation.
_EXACT = (1 << 24) // 255


class Between(NamedTuple):
    """The two rows (or columns) that each target row mixes.

    A target row is ``rows[before] + (rows[after] - rows[before]) * weight``.
    """

    #: (target,) int64.
    before: np.ndarray
    after: np.ndarray
    #: (target,) float32.
    weight: np.ndarray


class Part(NamedTuple):
    """A window of the picture, or of the target."""

    top: int
    left: int
    rows: int
    columns: int


def upright(picture: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation as `geometry.upright` does; returns a view.

    Examples
    --------
    >>> upright(np.zeros((2, 5, 3), np.uint8), 6).shape
    (5, 2, 3)
    """
    # EXIF counts 1 2 3 4 as plain, mirrored, both, flipped, but 5 6 7 8 as transposed: plain, mirrored, both, flipped.
    turned = picture.transpose(1, 0, 2) if orientation > 4 else picture
    across, down = ((1, 1), (-1, 1), (-1, -1), (1, -1))[(orientation - 1) % 4]
    return turned[::down, ::across]


def fitted(picture: np.ndarray, height: int, width: int, resize: str) -> np.ndarray | None:
    """Resize `picture` as `geometry.fitted` does.

    Parameters
    ----------
    picture : numpy.ndarray
        (rows, columns, 3) uint8, at least one of each, upright.
    height, width : int
    resize : {"stretch", "crop", "pad"}

    Returns
    -------
    numpy.ndarray, optional
        (height, width, 3) float32. None for boxes so large that the order of summation would show.

    Examples
    --------
    >>> float(fitted(np.array([[[0, 0, 0], [100, 0, 0]]], np.uint8), 1, 1, "stretch")[0, 0, 0])
    50.0
    """
    rows, columns = picture.shape[:2]
    used, filled = Part(0, 0, rows, columns), Part(0, 0, height, width)
    if resize == "crop":
        tall, wide = (
            min(max(columns * height // width, 1), rows),
            min(max(rows * width // height, 1), columns),
        )
        used = _centred(rows, columns, tall, wide)
    elif resize == "pad":
        filled = _centred(height, width, *_inside(rows, columns, height, width))
    high, broad = max(used.rows // filled.rows, 1), max(used.columns // filled.columns, 1)
    if high * broad > _EXACT:
        return None
    # What fills no box is cut from both ends.
    used = used._replace(
        top=used.top + used.rows % high // 2,
        left=used.left + used.columns % broad // 2,
        rows=used.rows // high,
        columns=used.columns // broad,
    )
    lines = np.ascontiguousarray(picture).reshape(rows, 3 * columns)
    lines.flags.writeable = False  # What may be written to is another type, to be compiled anew.
    target = (np.zeros if resize == "pad" else np.empty)((height, 3 * width), np.float32)
    _fit(
        lines,
        used,
        (high, broad),
        between(used.rows, filled.rows),
        _across(used.columns, filled.columns, broad),
        np.empty(3 * used.columns * broad, np.int32),
        np.empty(3 * (used.columns * broad - broad + 1), np.float32),
        np.empty((2, 3 * filled.columns), np.float32),
        target,
        filled,
    )
    return target.reshape(height, width, 3)


def _centred(rows: int, columns: int, tall: int, wide: int) -> Part:
    return Part((rows - tall) // 2, (columns - wide) // 2, tall, wide)


def _inside(rows: int, columns: int, height: int, width: int) -> tuple[int, int]:
    # The largest extent of the picture's shape within the target, rounded to the nearest.
    if rows * width >= columns * height:
        return height, min(max((2 * columns * height + rows) // (2 * rows), 1), width)
    return min(max((2 * rows * width + columns) // (2 * columns), 1), height), width


@functools.lru_cache(maxsize=256)
def between(extent: int, target: int) -> Between:
    """Compute bilinear weights with half-pixel centres, as TensorFlow does.

    Examples
    --------
    >>> between(4, 2).before.tolist(), between(4, 2).after.tolist(), between(4, 2).weight.tolist()
    ([0, 2], [1, 3], [0.5, 0.5])
    """
    half = np.float32(0.5)
    at = (np.arange(target, dtype=np.float32) + half) * (np.float32(extent) / np.float32(target)) - half
    floor = np.floor(at)
    before = np.maximum(floor.astype(np.int64), 0)
    after = np.minimum(np.ceil(at).astype(np.int64), extent - 1)
    return Between(before, after, at - floor)


@functools.lru_cache(maxsize=256)
def _across(extent: int, target: int, broad: int) -> Between:
    # For each colour of each column, among the means of boxes that begin at every column.
    columns = between(extent, target)

    def of_each_colour(places: np.ndarray) -> np.ndarray:
        # Unsigned, or each look-up would test the sign.
        return (3 * broad * places[:, None] + np.arange(3)).astype(np.uint64).ravel()

    return Between(
        of_each_colour(columns.before), of_each_colour(columns.after), np.repeat(columns.weight, 3)
    )


@_compiled
def _fit(picture, used, boxes, down, across, sums, means, lines, target, filled):
    """Fill `target` (height, 3 x width) from rows of boxes.

    `used` counts boxes; `sums` and `means` hold one row of them. Of the two stretched rows in `lines`, the next row
    mostly needs one again.
    """
    upper, lower = lines[0], lines[1]
    holds_upper = holds_lower = -1
    left = 3 * filled.left
    for y in range(filled.rows):
        if down.before[y] == holds_lower:
            upper, lower = lower, upper
            holds_upper, holds_lower = holds_lower, holds_upper
        if down.before[y] != holds_upper:
            holds_upper = down.before[y]
            _average(picture, used, boxes, holds_upper, sums, means)
            _stretch(means, across, upper)
        if down.after[y] != holds_lower:
            holds_lower = down.after[y]
            _average(picture, used, boxes, holds_lower, sums, means)
            _stretch(means, across, lower)
        _blend(upper, lower, down.weight[y], target[filled.top + y, left : left + upper.size])


@_compiled
def _blend(upper, lower, weight, row):
    for k in range(row.size):
        row[k] = upper[k] + (lower[k] - upper[k]) * weight


@_compiled
def _average(picture, used, boxes, row, sums, means):
    """Average boxes that begin at every column: faster than to skip some."""
    high, broad = boxes
    top, left = used.top + row * high, 3 * used.left
    sums[:] = 0
    for i in range(high):
        line = picture[top + i, left : left + sums.size]
        for k in range(line.size):
            sums[k] += np.int32(line[k])
    for k in range(means.size):
        means[k] = np.float32(sums[k])
    for j in range(1, broad):
        further = sums[3 * j :]
        for k in range(means.size):
            means[k] += np.float32(further[k])
    pixels = np.float32(high * broad)
    for k in range(means.size):
        means[k] /= pixels


@_compiled
def _stretch(means, across, line):
    for k in range(line.size):
        first = means[across.before[k]]
        line[k] = first + (means[across.after[k]] - first) * across.weight[k]
