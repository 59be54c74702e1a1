"""Compute what logistic regression minimises, one pass each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from bottleneck.store.batches import batches
from bottleneck.store.rows import Rows, picked

#: Bytes of a piece of standardised float32 rows, and of its float64 logits; a piece has at least this many rows.
_PIECE, _LEAST_ROWS = 4 << 20, 64

#: Columns of a wide matrix that are held in float64 at a time.
_COLUMNS = 2048


@dataclass(frozen=True, eq=False)
class Point:
    """The objective at one set of weights, with its bound.

    With the best intercepts for its weights, the objective has a curvature of at least `penalty` in every weight, so it
    cannot fall by more than ``|gradient|^2 / (2 penalty)``: `weights_gap`. Where intercepts are not the best, Newton's
    step of these bounds what they would gain (it is short, so the curvature hardly changes on the way), and the
    gradient of the weights would change by no more than the root of that times the largest curvature, half the rows'
    mean square length: `gap`. It is never below `weights_gap`, and takes an eigendecomposition that `within` asks for
    only where it decides.

    Attributes
    ----------
    weights : numpy.ndarray
        (d + 1, columns) float64, the intercepts last.
    value : float
    gradient : numpy.ndarray
        As `weights`.
    curvature : numpy.ndarray
        (n,) of the loss of each row: the mean of ``p (1 - p)`` over the columns, times its weight.
    column_curvature : numpy.ndarray
        (columns,) the same by column, mean over the rows.
    accuracy : float
        Share of the rows whose likeliest class is theirs.
    penalty : float
    length : float
        Mean square length of the rows, by their weights.
    intercept_hessian : numpy.ndarray
        (columns, columns).
    """

    weights: np.ndarray
    value: float
    gradient: np.ndarray
    curvature: np.ndarray
    column_curvature: np.ndarray
    accuracy: float
    penalty: float
    length: float
    intercept_hessian: np.ndarray

    @cached_property
    def weights_gap(self) -> float:
        """What `gap` would be with the best intercepts."""
        return self._size**2 / (2 * self.penalty)

    @cached_property
    def gap(self) -> float:
        """A bound on how far `value` lies above the least there is."""
        intercept_step, fall = self._step
        if np.abs(intercept_step).max() > 1:
            return np.inf
        return (self._size + float(np.sqrt(self.length / 2 * fall))) ** 2 / (2 * self.penalty) + fall

    @property
    def intercept_step(self) -> np.ndarray:
        """Newton's step (columns,) of the intercepts alone."""
        return self._step[0]

    def within(self, enough: float) -> bool:
        """Whether `gap` is at most so much."""
        return self.weights_gap <= enough and self.gap <= enough

    @property
    def _size(self) -> float:
        return float(np.sqrt(np.square(self.gradient[:-1]).sum()))

    @cached_property
    def _step(self) -> tuple[np.ndarray, float]:
        return _newton_step(self.intercept_hessian, self.gradient[-1])


class Objective:
    """Mean (weighted) cross-entropy plus ``penalty * |W|^2 / 2``; intercepts are free.

    Value and gradient are summed in float64 over every row, so they are exact but for rounding. Products with the
    Hessian only steer a search and are computed in float32, unless the rows were standardised beforehand.

    Parameters
    ----------
    rows : Rows or numpy.ndarray
        (n, d). Rows of a store are read in stored order, piece by piece.
    codes : numpy.ndarray
        (n,) int64.
    classes : int
        Of two, only the second has weights, `z` against 0, as scikit-learn has it.
    weights : numpy.ndarray or None
        (classes,) of each class.
    penalty : float
        Above 0.
    scaling : tuple of numpy.ndarray, optional
        Mean and inverse deviation (d,): rows are taken as ``(rows - mean) * inverse``. None: they are so already.
    """

    def __init__(
        self,
        rows: Rows | np.ndarray,
        codes: np.ndarray,
        classes: int,
        weights: np.ndarray | None,
        penalty: float,
        scaling: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> None:
        self.rows, self.codes, self.classes, self.penalty = rows, codes, classes, penalty
        self.first = 1 if classes == 2 else 0
        self.row_weights = np.ones(len(codes)) if weights is None else weights.astype(np.float64)[codes]
        self.passes = 0
        self._scalings = {}
        if scaling is not None:
            self._scalings = {np.dtype(t): tuple(part.astype(t) for part in scaling) for t in ("f4", "f8")}
        self._rough = np.dtype(np.float32 if self._scalings else rows.dtype)
        self._order = rows.stored_order() if isinstance(rows, Rows) else None

    @property
    def shape(self) -> tuple[int, int]:
        """Of the weights: (d + 1, columns)."""
        return self.rows.shape[1] + 1, self.classes - self.first

    def scaled(self, part: np.ndarray, dtype: Any) -> np.ndarray:
        """Standardise rows (b, d); float64 rows before they are rounded."""
        if not self._scalings:
            return part.astype(dtype, copy=False)
        mean, inverse = self._scalings[np.dtype(np.float64 if part.dtype == np.float64 else dtype)]
        made = np.subtract(part, mean, dtype=mean.dtype)
        made *= inverse
        return made.astype(dtype, copy=False)

    def _pieces(self, dtype: Any) -> Iterator[tuple[np.ndarray, np.ndarray | slice]]:
        width = max(4 * self.rows.shape[1], 8 * self.classes)
        step = max(_LEAST_ROWS, _PIECE // width)
        self.passes += 1
        if isinstance(self.rows, Rows):
            for part, numbers in batches(self.rows, step, self._order):
                yield self.scaled(part, dtype), numbers
        else:
            for start in range(0, len(self.codes), step):
                which = slice(start, start + step)
                yield self.scaled(self.rows[which], dtype), which

    def _probabilities(self, logits: np.ndarray, total: np.ndarray | None = None) -> np.ndarray:
        """Softmax of logits; the logarithm of its divisor goes into `total`."""
        whole = np.zeros((len(logits), self.classes))
        whole[:, self.first :] = logits
        most = whole.max(axis=1, keepdims=True)
        whole -= most
        np.exp(whole, out=whole)
        divisor = whole.sum(axis=1, keepdims=True)
        if total is not None:
            total[:] = (np.log(divisor) + most)[:, 0]
        whole /= divisor
        return whole

    def at(self, weights: np.ndarray) -> Point:
        """Value, gradient and curvature at `weights`, in one pass."""
        gradient, value, right = np.zeros(self.shape), 0.0, 0
        crossed, length = np.zeros((self.shape[1], self.shape[1])), 0.0
        curvature, column_curvature = np.zeros(len(self.codes)), np.zeros(self.shape[1])
        for x, which in self._pieces(np.float64):
            logits = x @ weights[:-1] + weights[-1]
            codes, each, total = self.codes[which], self.row_weights[which], np.empty(len(x))
            probabilities = self._probabilities(logits, total)
            places = np.arange(len(x)), codes - self.first
            own = logits[places] if not self.first else np.where(codes == 1, logits[:, 0], 0.0)
            value += float(((total - own) * each).sum())
            right += int((probabilities.argmax(axis=1) == codes).sum())
            p = probabilities[:, self.first :]
            second = p * (1 - p) * each[:, None]
            curvature[which] = second.mean(axis=1)
            column_curvature += second.sum(axis=0)
            crossed += p.T @ (p * each[:, None])
            length += float(each @ np.einsum("ij,ij->i", x, x))
            if self.first:
                p[:, 0] -= codes
            else:
                p[places] -= 1.0
            p *= each[:, None]
            gradient[:-1] += x.T @ p
            gradient[-1] += p.sum(axis=0)
        n = len(self.codes)
        gradient /= n
        gradient[:-1] += self.penalty * weights[:-1]
        column_curvature /= n
        value = value / n + self.penalty / 2 * float(np.square(weights[:-1]).sum())
        crossed /= n
        hessian = np.diag(column_curvature + np.diag(crossed)) - crossed
        facts = right / n, self.penalty, length / n, hessian
        return Point(weights, value, gradient, curvature, column_curvature, *facts)

    def product(self, weights: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """The Hessian at `weights` times `direction`, in one pass."""
        columns, dtype = self.shape[1], self._rough
        both = np.concatenate([weights, direction], axis=1)
        kernel, bias = both[:-1].astype(dtype), both[-1]
        made = np.zeros(self.shape)
        for x, which in self._pieces(dtype):
            out = (x @ kernel).astype(np.float64)
            out += bias
            p = self._probabilities(out[:, :columns])[:, self.first :]
            along = out[:, columns:]
            along -= np.einsum("ij,ij->i", p, along)[:, None]
            along *= p
            along *= self.row_weights[which][:, None]
            made[:-1] += x.T @ along.astype(dtype)
            made[-1] += along.sum(axis=0)
        made /= len(self.codes)
        made[:-1] += self.penalty * direction[:-1]
        return made

    def sample(self, point: Point, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Sample at most `most` rows, which stand for the curvature.

        A row is taken in the measure of its curvature: of classes that are nearly told apart, few rows have any.

        Returns
        -------
        x : numpy.ndarray
            (m, d) standardised.
        share : numpy.ndarray
            (m,) the part of the whole curvature that each stands for; they sum to 1.
        counts : numpy.ndarray
            (m,) the part of all rows that each stands for.
        rows : numpy.ndarray
            (m,) which they are.
        """
        curvature = point.curvature + max(float(point.curvature.max()) * 1e-12, np.finfo(float).tiny)
        summed = np.cumsum(curvature)
        if len(curvature) <= most:
            numbers, share = np.arange(len(curvature)), curvature / summed[-1]
        else:
            ends = np.searchsorted(summed, (np.arange(most) + 0.5) * (summed[-1] / most))
            numbers, counts = np.unique(np.minimum(ends, len(curvature) - 1), return_counts=True)
            share = counts / most
        counts = share * (summed[-1] / len(curvature)) / curvature[numbers]
        return self.scaled(np.asarray(picked(self.rows, numbers)), self._rough), share, counts, numbers

    def probabilities(self, x: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Probabilities (b, columns) that standardised rows `x` are given by `weights`."""
        return self._probabilities(x.astype(np.float64) @ weights[:-1] + weights[-1])[:, self.first :]


def column_blocks(width: int) -> Iterator[slice]:
    """Slice a wide matrix, so that it needs no copy in float64."""
    for start in range(0, width, _COLUMNS):
        yield slice(start, start + _COLUMNS)


def gram(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """Sum ``x @ x.T`` over blocks of columns."""
    made: Any = 0.0
    for block in blocks:
        made += block @ block.T
    return np.asarray(made)


def _newton_step(hessian: np.ndarray, gradient: np.ndarray) -> tuple[np.ndarray, float]:
    """Newton's step, and twice what it gains.

    Raising all intercepts alike changes nothing: there the curvature is none, and the gradient is rounding. A gradient
    without curvature elsewhere leaves the fall unbounded.
    """
    values, vectors = np.linalg.eigh(hessian)
    along = vectors.T @ gradient
    curved = values > max(float(values[-1]), 0.0) * 1e-13
    fall = np.inf if (np.abs(along[~curved]) > 1e-12 * max(1.0, float(np.abs(gradient).sum()))).any() else 0.0
    step = np.zeros_like(gradient)
    step[curved] = along[curved] / values[curved]
    return -(vectors @ step), fall + float(along[curved] @ step[curved])
