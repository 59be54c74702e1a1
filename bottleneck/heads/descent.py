"""Logistic regression on rows that do not fit in memory: averaged stochastic gradient descent, preconditioned.

The plain method crawls on features of deep networks: their covariance has a few large directions, which bound the
step, and many small ones, which need long steps. So the step is taken in a space where the largest directions of a
sample's covariance are evened out; then a handful of passes come close to the solver that holds all rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from bottleneck.store.batches import batches, epoch_order
from bottleneck.store.rows import Rows, picked

#: Rows of one step.
BATCH = 256

#: Rows from which the covariance's largest directions are learnt, and how many of these are evened out.
SAMPLE, DIRECTIONS = 1024, 256

#: The sample is kept below this many bytes, however wide the rows.
_SAMPLE_BYTES = 64 << 20

#: So many passes in a row that lower the objective by less than the tolerance, with ever shorter steps, end it.
_PATIENCE = 3


#: How much longer the step is after a pass that paid, and how much shorter after one that did not.
GROW, SHRINK = 1.5, 2.0


@dataclass(frozen=True, eq=False)
class Problem:
    """What is minimised: the mean (weighted) cross-entropy of the rows plus ``|W|^2 * penalty / 2``.

    Attributes
    ----------
    rows : Rows or numpy.ndarray
        (n, d).
    codes : numpy.ndarray
        (n,) int64.
    classes : int
        Of two, only the second has weights: `z` against 0, as scikit-learn's solver has it.
    mean, inverse : numpy.ndarray
        (d,) float32: rows are taken as ``(rows - mean) * inverse``.
    weights : numpy.ndarray or None
        (classes,).
    penalty : float
    """

    rows: Rows | np.ndarray
    codes: np.ndarray
    classes: int
    mean: np.ndarray
    inverse: np.ndarray
    weights: np.ndarray | None
    penalty: float

    def scaled(self, rows: np.ndarray) -> np.ndarray:
        """`rows` (b, d) centred and scaled, with a column of ones: (b, d + 1) float32."""
        made = np.empty((len(rows), rows.shape[1] + 1), np.float32)
        np.subtract(rows, self.mean, out=made[:, :-1], dtype=np.float32)
        made[:, :-1] *= self.inverse
        made[:, -1] = 1.0
        return made

    def losses(self, x: np.ndarray, codes: np.ndarray, kernel: np.ndarray) -> tuple[float, np.ndarray]:
        """Sum of the losses of rows `x` (b, d + 1), and its slope by their logits (b, classes)."""
        logits = (x @ kernel).astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        slope = np.exp(logits)
        total = slope.sum(axis=1, keepdims=True)
        places = np.arange(len(codes)), codes
        each = np.log(total[:, 0]) - logits[places]
        slope /= total
        slope[places] -= 1.0
        if self.weights is not None:
            each *= self.weights[codes]
            slope *= self.weights[codes][:, None]
        if self.classes == 2:
            slope[:, 0] = 0.0
        return float(each.sum()), slope.astype(np.float32)

    def objective(self, kernel: np.ndarray) -> float:
        """Of all rows, in one pass."""
        total = 0.0
        for rows, numbers in batches(self.rows, BATCH):
            total += self.losses(self.scaled(rows), self.codes[numbers], kernel)[0]
        return total / len(self.codes) + self._charge(kernel)

    def gradient(self, x: np.ndarray, codes: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        """Estimated from the rows `x` of one batch: (d + 1, classes)."""
        _, slope = self.losses(x, codes, kernel)
        found: np.ndarray = x.T @ slope
        found /= len(x)
        found[:-1] += np.float32(self.penalty) * kernel[:-1]
        return found

    def _charge(self, kernel: np.ndarray) -> float:
        return float(np.square(kernel[:-1], dtype=np.float64).sum()) * self.penalty / 2


@dataclass(frozen=True, eq=False)
class Preconditioner:
    """Divides a gradient by the covariance's largest directions; all others count as the least of these.

    Attributes
    ----------
    directions : numpy.ndarray
        (d, r) orthonormal.
    gain : numpy.ndarray
        (r, 1) what is left of each direction, at most 1.
    step : float
        The longest step that no batch of the sample answers with a jump.
    """

    directions: np.ndarray
    gain: np.ndarray
    step: float

    @classmethod
    def of(cls, sample: np.ndarray) -> Preconditioner:
        """From standardised rows (m, d)."""
        import scipy.linalg

        gram = (sample @ sample.T).astype(np.float64) / len(sample)
        values, vectors = scipy.linalg.eigh(gram, driver="evd", overwrite_a=True, check_finite=False)
        values, vectors = values[::-1], vectors[:, ::-1]
        rank = max(1, min(DIRECTIONS, len(sample) // 4, int((values > values[0] * 1e-6).sum())))
        largest = np.maximum(values[:rank], np.finfo(float).tiny)
        directions = (sample.T @ (vectors[:, :rank] / np.sqrt(largest * len(sample)))).astype(np.float32)
        gain = (largest[-1] / largest)[:, None].astype(np.float32)
        eased = cls(directions, np.sqrt(gain), 1.0)
        # Half: no softmax curves more than that. A batch's own covariance is rougher than the sample's.
        curves = [
            float(np.linalg.norm(eased(part.T.copy()), 2)) ** 2 / len(part) / 2
            for part in (sample[start : start + BATCH] for start in range(0, len(sample), BATCH))
        ]
        return cls(directions, gain, 1.0 / max(*curves, float(np.finfo(np.float32).tiny)))

    def __call__(self, gradient: np.ndarray) -> np.ndarray:
        """(d, k) of (d, k)."""
        along = self.directions.T @ gradient
        along *= self.gain - 1
        eased: np.ndarray = gradient + self.directions @ along
        return eased


def descend(problem: Problem, *, most: int, tolerance: float) -> tuple[np.ndarray, np.ndarray, int, bool]:
    """Kernel and bias near the minimum, on standardised rows.

    Parameters
    ----------
    problem : Problem
    most : int
        Passes over the rows.
    tolerance : float
        A pass that lowers the objective by less than this part of it counts as none.

    Returns
    -------
    kernel : numpy.ndarray
        (d, classes) float64.
    bias : numpy.ndarray
        (classes,) float64.
    passes : int
    converged : bool
        Whether it ended because the objective fell no more.
    """
    # Thin products gain nothing from BLAS threads, which spin on a busy machine.
    with threadpool_limits(1, user_api="blas"):
        return _descend(problem, most, tolerance)


def _descend(problem: Problem, most: int, tolerance: float) -> tuple[np.ndarray, np.ndarray, int, bool]:
    rows, width = problem.rows, problem.rows.shape[1]
    count = max(2, min(len(rows), SAMPLE, _SAMPLE_BYTES // (4 * width)))
    drawn = np.sort(epoch_order(0, 0, len(rows))[:count])
    ease = Preconditioner.of(problem.scaled(np.asarray(picked(rows, drawn)))[:, :-1])
    best = kernel = np.zeros((width + 1, problem.classes), np.float32)
    lowest, step, idle, passes = problem.objective(kernel), ease.step, 0, 0
    while passes < most and idle < _PATIENCE:
        passes += 1
        kernel = _one_pass(problem, ease, best, step, passes)
        found = problem.objective(kernel)
        fell = lowest - found
        if found < lowest:
            best, lowest = kernel, found
        # Longer steps while they pay: the surer the answers, the flatter the losses. Shorter ones average noise out.
        paid = fell > tolerance * lowest
        step, idle = (step * GROW, 0) if paid else (step / SHRINK, idle + 1)
    made = best.astype(np.float64)
    return made[:-1], made[-1], passes, idle >= _PATIENCE


def _one_pass(
    problem: Problem, ease: Preconditioner, start: np.ndarray, step: float, number: int
) -> np.ndarray:
    """Weights averaged over the second half of one pass over the shuffled rows."""
    order = epoch_order(0, number, len(problem.codes))
    kernel, total, summed = start.copy(), np.zeros_like(start), 0
    half = len(order) // 2
    for seen, (rows, numbers) in enumerate(batches(problem.rows, BATCH, order)):
        slope: Any = problem.gradient(problem.scaled(rows), problem.codes[numbers], kernel)
        # A short last batch is rough in the measure of its shortness.
        length = np.float32(step * min(1.0, len(rows) / BATCH))
        kernel[:-1] -= length * ease(slope[:-1])
        kernel[-1] -= length * slope[-1]
        if (seen + 1) * BATCH > half:
            total += kernel
            summed += 1
    return total / np.float32(summed)
