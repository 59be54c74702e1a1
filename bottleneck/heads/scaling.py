"""The scaler of every head, which folds away into a Dense kernel."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bottleneck.errors import HeadError
from bottleneck.heads.inputs import BadRows, row_chunks
from bottleneck.store.rows import Rows

#: A feature whose deviation is below this part of its largest magnitude is constant: its values lie a few steps of
#: float32 apart. Float16 rows were computed in float32 too, and there vary by a step of 1e-3 or not at all.
CONSTANT = 5 * float(np.finfo(np.float32).eps)

#: The same of float64 rows, which no network computed: rounding alone.
CONSTANT_FLOAT64 = 1e-12

#: Below this part, another machine or batch shape moves float32 features as much. They count, but do not make the
#: median below where others are clear of it: dividing by such spreads would blow rounding up to a signal.
CLEAR = 1e-5

#: Smallest spread to divide by, in median spreads. On VGG16's map of 8,192 columns under a logistic head the largest
#: kernel entry fell from 1,786 to 1, and the difference of probabilities between two runtimes from 2.9e-4 to 1.2e-5 of
#: their spread; accuracies did not move beyond chance (0.01 and 0.3 would do nearly as well).
LEAST = 0.1

#: Magnitudes of float64 values whose squares neither overflow nor vanish.
_SMALLEST, _LARGEST = 1e-100, 1e100

#: Least normal float32: neither a deviation nor what it is divided into may lie below.
_TINY = float(np.finfo(np.float32).tiny)


class LeftOutWarning(UserWarning):
    """A head leaves out features that vary only by rounding."""


@dataclass(frozen=True, eq=False)
class Scaling:
    """What standardises rows: ``(rows - mean) * inverse``.

    Attributes
    ----------
    mean, inverse : numpy.ndarray
        (d,) float64, as `scaling_of` gives them.
    exact : bool
        Whether these rows can tell what a bias loses in float32: they are float64, or some of their features vary
        little beside their size.
    left_out : int
        Features that vary and count as constant.
    """

    mean: np.ndarray
    inverse: np.ndarray
    exact: bool
    left_out: int

    @property
    def pair(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and inverse."""
        return self.mean, self.inverse

    def subtracted_in(self, dtype: Any) -> Scaling:
        """Round the mean as a program subtracts it.

        Far from zero, another rounding of the mean would shift every row of a head that learnt by this one.
        """
        if dtype == np.float64:
            return self
        return replace(self, mean=self.mean.astype(np.float32).astype(np.float64))

    def warn(self, head: str) -> None:
        """Tell of features that were left out."""
        if self.left_out:
            # 3: the line that called `fit`.
            warnings.warn(f"{head}: {left_out_text(self.left_out)}", LeftOutWarning, stacklevel=3)


def left_out_text(count: int) -> str:
    """What is said of features that were left out.

    Examples
    --------
    >>> left_out_text(2)[:90]
    '2 features vary, but only by a few steps of rounding beside their size, and count as const'
    """
    one = count == 1
    what = "feature varies" if one else "features vary"
    return (
        f"{count:,} {what}, but only by a few steps of rounding beside {'its' if one else 'their'} size, and "
        f"{'counts' if one else 'count'} as constant: subtract the mean before it is rounded, or take features of "
        f"another layer, if {'it matters' if one else 'they matter'}"
    )


def scaling_of(rows: np.ndarray | Rows, *, divide: bool) -> Scaling:
    """Compute mean and inverse standard deviation of each feature.

    A deviation counts as at least a tenth of the median one. Features of one layer share a unit. One that is nearly
    dead on the training images (0 but for a few) would else be blown up by thousands: what it does on other images,
    rounding included, would outweigh everything else, and the folded kernel would hold numbers too unlike for 8 bits.

    Parameters
    ----------
    rows : ndarray or Rows, (n, d)
    divide : bool
        False: centre only, the inverse is 1 where a feature varies.

    Returns
    -------
    Scaling
        The inverse of a constant feature is 0: it says nothing, and a value never seen in training must not either.

    Raises
    ------
    BadRows
        Magnitudes whose squares are no numbers, deviations that float32 cannot be divided by.

    Examples
    --------
    >>> mean, inverse = scaling_of(np.array([[0.0, 7.0], [2.0, 7.0]], np.float32), divide=True).pair
    >>> mean.tolist(), inverse.tolist()
    ([1.0, 7.0], [1.0, 0.0])
    >>> scaling_of(np.array([[0.0, 0.0, 0.0], [2.0, 2.0, 0.002]]), divide=True).pair[1].tolist()
    [1.0, 1.0, 10.0]
    """
    total = np.zeros(rows.shape[1])
    high, low = np.full_like(total, -np.inf), np.full_like(total, np.inf)
    for part in row_chunks(rows):
        total += part.sum(axis=0)
        np.maximum(high, part.max(axis=0), out=high)
        np.minimum(low, part.min(axis=0), out=low)
    largest = np.maximum(np.abs(high), np.abs(low))
    outside = np.flatnonzero((largest > _LARGEST) | ((largest > 0) & (largest < _SMALLEST))).tolist()
    if outside:
        raise BadRows(
            f"columns {outside[:5]} hold values as large as {largest[outside[0]]:.3g} at most: expected 0, or "
            f"magnitudes from {_SMALLEST:g} to {_LARGEST:g}, whose squares are numbers; scale them"
        )
    mean = total / len(rows)
    square = np.zeros_like(mean)
    for part in row_chunks(rows):  # a second pass: the one-pass formula cancels where the mean is large
        part -= mean
        square += np.einsum("ij,ij->j", part, part)
    spread = np.sqrt(square / len(rows))
    precise = rows.dtype == np.float64
    varies = spread > (CONSTANT_FLOAT64 if precise else CONSTANT) * largest
    clear = varies if precise else spread > CLEAR * largest
    inverse = np.zeros_like(mean)
    if divide and varies.any():
        usual = np.median(spread[clear if clear.any() else varies])
        divisor = np.maximum(spread[varies], LEAST * usual)
        _check_divisors(np.flatnonzero(varies), divisor)
        inverse[varies] = 1.0 / divisor
    else:
        inverse[varies] = 1.0
    return Scaling(
        mean, inverse, precise or bool((varies & ~clear).any()), int(((high > low) & ~varies).sum())
    )


def _check_divisors(columns: np.ndarray, divisor: np.ndarray) -> None:
    wrong = np.flatnonzero((divisor < _TINY) | (divisor > 1 / _TINY))
    if len(wrong):
        raise BadRows(
            f"columns {columns[wrong[:5]].tolist()} vary by {divisor[wrong[0]]:.3g}: expected a deviation from "
            f"{_TINY:.2g} to {1 / _TINY:.2g}, which a head's float32 weights can be divided by; scale the rows"
        )


def check_float32(rows: np.ndarray | Rows) -> None:
    """Raise `BadRows` where float32 cannot tell float64 rows apart."""
    if rows.dtype != np.float64:
        return
    mean, inverse = scaling_of(rows, divide=False).pair
    spread, step = np.ptp(rows, axis=0), np.spacing(np.abs(mean).astype(np.float32))
    lost = np.flatnonzero((inverse > 0) & (spread < 1e3 * step)).tolist()
    if lost:
        raise BadRows(
            f"columns {lost[:5]} of these float64 rows lie so far from zero ({mean[lost[0]]:.6g}) that float32 tells "
            "their values apart no more: set standardize=true, or subtract their mean"
        )


def fold(
    kernel: np.ndarray, bias: np.ndarray, mean: np.ndarray, inverse: np.ndarray, *, exact: bool = False
) -> tuple[np.ndarray, np.ndarray, list[float] | None]:
    """Fold ``(rows - mean) * inverse`` into kernel and bias.

    Parameters
    ----------
    kernel : ndarray, (d, units)
    bias : ndarray, (units,)
    mean, inverse : ndarray, (d,)
    exact : bool
        Whether to keep what the bias loses in float32 (see `Scaling`).

    Returns
    -------
    kernel, bias : ndarray, float32
    rest : list of float, or None
        What is to be added to the bias in float64.

    Raises
    ------
    BadRows
        Weights on raw rows that float32 cannot hold.
    HeadError
        Weights that were no numbers before.

    Examples
    --------
    >>> kernel, bias, _ = fold(np.array([[2.0]]), np.array([1.0]), np.array([3.0]), np.array([0.5]))
    >>> kernel.tolist(), bias.tolist()
    ([[1.0]], [-2.0])
    """
    if not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
        raise HeadError("the head's weights are no finite numbers: lower learning_rate, or scale the rows")
    with np.errstate(over="ignore", invalid="ignore"):
        folded = (kernel.astype(np.float64) * inverse[:, None]).astype(np.float32)
        # From the rounded kernel, so that its rounding at the mean row cancels.
        whole = bias.astype(np.float64) - mean @ folded.astype(np.float64)
        rounded = whole.astype(np.float32)
    wrong = np.flatnonzero(~np.isfinite(folded).all(axis=1))
    if len(wrong) or not np.isfinite(rounded).all():
        which = wrong if len(wrong) else np.argsort(-np.abs(mean * inverse))
        raise BadRows(
            f"columns {which[:5].tolist()} vary by so little ({1 / inverse[which[0]]:.3g}) that the head's weights on "
            "them are beyond float32: scale the rows"
        )
    return folded, rounded, (whole - rounded).tolist() if exact else None
