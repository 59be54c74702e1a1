"""Minimise a logistic objective by Newton's method or L-BFGS.

Why it is right: the objective is convex, and its penalty gives every weight a curvature of at least `penalty`. So a
point whose intercepts are the best for its weights lies above the minimum by at most ``|gradient|^2 / (2 penalty)``,
whatever road led there. Value and gradient are sums over all rows in float64, Newton steps of the intercepts alone make
these the best, and `Point` bounds what is left of that. A step is taken only where it lowers the value (Armijo),
and a fit has converged only when the bound is a small part of the value. All else decides the number of passes and
nothing more: conjugate gradients find the step from products with the Hessian, of a pass each, and a preconditioner
made from a sample of the rows makes them few.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from bottleneck.errors import HeadError
from bottleneck.heads.objective import Objective, Point, column_blocks, gram

#: A step is exact enough when its residual is this part of the gradient, and takes at most this many passes.
_RESIDUAL, _MOST_PRODUCTS = 0.2, 250

#: Up to this many weights the preconditioner is the sample's whole Hessian, from as many rows; beyond, eigenvectors.
_WHOLE, _WHOLE_ROWS = 1024, 4096

#: Rows of the sample that eigenvectors are made of, and how many bytes it may take.
_ROWS, _BYTES = 1024, 64 << 20

#: Steps of the intercepts alone, which double their digits each.
_SETTLING = 12

#: From this many classes on, BLAS threads gain more than they cost by spinning on a busy machine.
_THREADED = 64

Preconditioner = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Minimum:
    """Where a search ended.

    Attributes
    ----------
    point : Point
    start : float
        The value that it began with.
    steps, passes : int
    converged : bool
        Whether ``point.gap`` is within the tolerance.
    """

    point: Point
    start: float
    steps: int
    passes: int
    converged: bool


def minimise(objective: Objective, *, solver: str, most: int, tolerance: float) -> Minimum:
    """Search for the minimum, from zero.

    Parameters
    ----------
    objective : Objective
    solver : {"newton-cg", "lbfgs"}
    most : int
        Most steps.
    tolerance : float
        The value may lie above the least there is by this part of it.

    Raises
    ------
    HeadError
        No step lowered the value, and it is not the least there is; or it is not finite.
    """
    search = _newton if solver == "newton-cg" else _lbfgs
    threads = None if objective.classes >= _THREADED else 1
    with threadpool_limits(threads, user_api="blas"), np.errstate(over="ignore", invalid="ignore"):
        start = objective.at(np.zeros(objective.shape))
        if not (np.isfinite(start.value) and np.isfinite(start.gradient).all()):
            raise HeadError(
                "logistic head: the gradient of the objective is no finite number: some of these values are too large "
                "for products in float64; set standardize=true, or scale the rows"
            )
        point, steps = start, 0
        if not start.within(tolerance * start.value):
            point, steps = search(objective, start, most, tolerance)
    converged = point.within(tolerance * point.value)
    if not converged and not point.value < start.value:
        raise HeadError(
            f"logistic head: {steps} steps of {solver} never lowered the objective, which was {start.value:.6g} at the "
            f"start and is {point.value:.6g}, so nothing was learnt: the values of these rows are too unlike for the "
            "solver; set standardize=true, lower C, or scale the rows"
        )
    return Minimum(point, start.value, steps, objective.passes, converged)


def _newton(objective: Objective, point: Point, most: int, tolerance: float) -> tuple[Point, int]:
    for step in range(1, most + 1):
        found = _line_search(objective, point, _direction(objective, point, tolerance))
        if found is None:
            return point, step
        point = _with_best_intercepts(objective, found, tolerance)
        if point.within(tolerance * point.value):
            return point, step
    return point, most


def _with_best_intercepts(objective: Objective, point: Point, tolerance: float) -> Point:
    """Settle the intercepts where they alone keep the bound wide."""
    for _ in range(_SETTLING):
        enough = tolerance * point.value
        if point.weights_gap > enough or point.gap <= enough:
            break
        weights = point.weights.copy()
        weights[-1] += point.intercept_step
        found = objective.at(weights)
        if not (found.value <= point.value * (1 + 1e-12) and found.gap < point.gap):
            break
        point = found
    return point


def _line_search(objective: Objective, point: Point, direction: np.ndarray) -> Point | None:
    """Halve the step until the value falls; None where rounding hides it."""
    fall, length = float((point.gradient * direction).sum()), 1.0
    for _ in range(40):
        found = objective.at(point.weights + length * direction)
        if found.value <= point.value + 1e-4 * length * fall:
            return found
        # So near the minimum that the value is all rounding: the gradient still tells.
        if found.value <= point.value * (1 + 1e-13) and found.gap < point.gap:
            return found
        length /= 2
    return None


def _direction(objective: Objective, point: Point, tolerance: float) -> np.ndarray:
    """Newton's step, by conjugate gradients: each of their steps already goes downhill."""
    count = objective.shape[0] * objective.shape[1]
    precondition = _whole(objective, point) if count <= _WHOLE else _eigen(objective, point)
    found, residual = np.zeros(objective.shape), -point.gradient
    preconditioned = precondition(residual)
    along, size = preconditioned, float((residual * preconditioned).sum())
    enough, first = 0.1 * tolerance * point.value * 2 * objective.penalty, size
    for _ in range(_MOST_PRODUCTS):
        hessian_product = objective.product(point.weights, along)
        curvature = float((along * hessian_product).sum())
        if not curvature > 0:
            break
        found += size / curvature * along
        residual -= size / curvature * hessian_product
        if float(np.square(residual).sum()) <= enough:
            break
        preconditioned = precondition(residual)
        before, size = size, float((residual * preconditioned).sum())
        if not size > _RESIDUAL**2 * first:
            break
        along = preconditioned + size / before * along
    return found if found.any() else -point.gradient


def _whole(objective: Objective, point: Point) -> Preconditioner:
    """Precondition by the whole Hessian of a sample; exact of all rows."""
    import scipy.linalg

    x, _, counts, numbers = objective.sample(point, _WHOLE_ROWS)
    width, columns = objective.shape
    x = np.concatenate([x.astype(np.float64), np.ones((len(x), 1))], axis=1)
    p = objective.probabilities(x[:, :-1], point.weights)
    counts = counts * objective.row_weights[numbers]
    crossed = (p[:, :, None] * (x * np.sqrt(counts)[:, None])[:, None, :]).reshape(len(x), -1)
    hessian = -(crossed.T @ crossed)
    for column in range(columns):
        block = slice(column * width, (column + 1) * width)
        hessian[block, block] += x.T @ (x * (counts * p[:, column])[:, None])
    charge = np.full((columns, width), objective.penalty)
    charge[:, -1] = 0.0
    hessian[np.diag_indices_from(hessian)] += charge.ravel()
    if not objective.first:
        # Raising all intercepts alike changes nothing: a direction without curvature gets some.
        level = np.arange(width - 1, width * columns, width)
        hessian[np.ix_(level, level)] += max(float(point.column_curvature.mean()), objective.penalty)
    jitter = np.finfo(float).eps * float(np.trace(hessian))
    while True:
        try:
            hessian[np.diag_indices_from(hessian)] += jitter
            factor = scipy.linalg.cho_factor(hessian)
            break
        except np.linalg.LinAlgError:
            jitter = max(jitter * 100, np.finfo(float).tiny)

    def precondition(gradient: np.ndarray) -> np.ndarray:
        solved: np.ndarray = scipy.linalg.cho_solve(factor, gradient.T.ravel())
        return solved.reshape(columns, width).T

    return precondition


def _eigen(objective: Objective, point: Point) -> Preconditioner:
    """Precondition by the curvature along a sample's eigenvectors, by class."""
    import scipy.linalg

    width = objective.shape[0] - 1
    most = max(2, min(_ROWS, _BYTES // (4 * width)))
    x, share, _, _ = objective.sample(point, most)
    everything = len(x) == len(objective.codes)
    x = x * np.sqrt(share).astype(x.dtype)[:, None]
    tall = len(x) > width
    flat = x.T if tall else x
    crossed = gram(flat[:, which].astype(np.float64) for which in column_blocks(flat.shape[1]))
    values, vectors = scipy.linalg.eigh(crossed, driver="evd", overwrite_a=True, check_finite=False)
    values, vectors = values[::-1], vectors[:, ::-1]
    # A sample says little of its small directions: half of them at most, unless it is all there is.
    full = len(values)
    rank = full if everything else min(full, max(1, len(x) // 2))
    rank = max(1, min(rank, int((values > values[0] * 1e-10).sum())))
    largest = np.maximum(values[:rank], np.finfo(np.float32).tiny)
    vectors = vectors[:, :rank]
    if not tall:
        vectors = _times(x, vectors / np.sqrt(largest))
    vectors = vectors.astype(x.dtype)
    curvature = np.maximum(point.column_curvature, np.finfo(np.float32).tiny)
    others = largest[-1] if rank < full or (not everything and not tall) else 0.0
    # Never so little that the rounding of the vectors could turn a direction round.
    others = max(others, 10 * float(np.finfo(x.dtype).eps) * largest[0])
    rest = others * curvature + objective.penalty
    gain = 1 / (np.maximum(largest, others)[:, None] * curvature + objective.penalty) - 1 / rest

    def precondition(gradient: np.ndarray) -> np.ndarray:
        made = np.empty_like(gradient)
        along = (vectors.T @ gradient[:-1].astype(x.dtype)).astype(np.float64) * gain
        made[:-1] = gradient[:-1] / rest
        made[:-1] += vectors @ along.astype(x.dtype)
        made[-1] = gradient[-1] / curvature
        return made

    return precondition


def _times(x: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """``x.T @ vectors`` summed in float64, of the type of `x`."""
    made = np.empty((x.shape[1], vectors.shape[1]), x.dtype)
    for which in column_blocks(x.shape[1]):
        made[which] = x[:, which].astype(np.float64).T @ vectors
    return made


def _lbfgs(objective: Objective, point: Point, most: int, tolerance: float) -> tuple[Point, int]:
    """Repeat L-BFGS from the best intercepts until nothing gets better."""
    steps = 0
    while steps < most:
        found, more = _lbfgs_run(objective, point, most - steps, tolerance)
        found, steps = _with_best_intercepts(objective, found, tolerance), steps + more
        better = found.value < point.value or found.gap < point.gap
        point = found if better else point
        if not better or point.within(tolerance * point.value):
            break
    return point, steps


def _lbfgs_run(objective: Objective, point: Point, most: int, tolerance: float) -> tuple[Point, int]:
    from scipy.optimize import minimize

    shape, best, steps = objective.shape, point, 0

    def value_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal best
        found = objective.at(flat.reshape(shape).copy())
        if found.value < best.value or (found.value <= best.value * (1 + 1e-13) and found.gap < best.gap):
            best = found
        return found.value, found.gradient.ravel()

    def stepped(intermediate_result: object) -> None:
        nonlocal steps
        steps += 1
        if best.within(tolerance * best.value) or best.weights_gap <= tolerance / 4 * best.value:
            raise StopIteration

    bounds = {"maxiter": most, "maxfun": 20 * most, "ftol": 0.0, "gtol": 0.0, "maxcor": 10}
    minimize(
        value_and_gradient,
        point.weights.ravel(),
        jac=True,
        method="L-BFGS-B",
        callback=stepped,
        options=bounds,
    )
    return best, max(1, steps)
