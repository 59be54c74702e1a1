"""Multinomial logistic regression: scikit-learn's own, on centred rows, given back as one Dense layer."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, FiniteFloat
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from bottleneck.heads.descent import Problem, descend
from bottleneck.heads.head import SoftmaxHead
from bottleneck.heads.rows import check_views, chunks, class_weights, features, fold, scaler, training_rows
from bottleneck.heads.settings import check_settings
from bottleneck.store.rows import Rows

log = logging.getLogger(__name__)

#: With this many more features than rows, the rows are first rotated into the space they span.
ROTATE = 2

#: Standardised rows up to this size are held in float64.
FLOAT64_BYTES = 1 << 30

#: Streamed fits end when a pass lowers the objective by less than this many times `tol`, as a part of it.
TOLERANCE = 10.0


class LogisticHead(SoftmaxHead):
    """Logistic regression with an L2 penalty; the first head to try.

    Rows are centred (the intercept is not penalised, so the optimum is the same and the solver arrives in a
    fraction of the iterations) and, by default, divided by their standard deviation. Where there are many
    more features than rows, they are rotated into the space the rows span: the optimum lies in it, so nothing
    changes but the time.

    Parameters
    ----------
    C : float
        Inverse strength of the penalty ``|W|^2 / (2 C n)`` beside the mean loss, on the standardised
        features.
    standardize : bool
        Divide by the standard deviation. Changes the optimum: the penalty then treats features alike.
    max_iter : int
        Most iterations; most passes over streamed rows.
    tol : float
        The solver's own stopping test (for streamed rows see `TOLERANCE`); the default is scikit-learn's. On
        60,000 x 512 rows of Fashion-MNIST it takes a minute on one core; 1e-5 (lbfgs, two minutes) moved test
        accuracy from 0.8911 to 0.8916. A loose one is another regulariser: with a large `C`, accuracy then
        depends on where the solver stopped, so compare values of `C` only among fits that converged.
    class_weight : "balanced", mapping of label to float, or None
    solver : {"newton-cg", "lbfgs"}

    Attributes
    ----------
    n_iter_ : int
        Iterations done.
    converged_ : bool
        Whether the solver met `tol`; when False, a warning is logged.

    Examples
    --------
    >>> X = np.array([[0.0, 5.0], [1.0, 5.0], [4.0, 5.0], [5.0, 5.0]])
    >>> head = LogisticHead().fit(X, ["cat", "cat", "dog", "dog"])
    >>> head.predict(X).tolist(), head.converged_
    (['cat', 'cat', 'dog', 'dog'], True)
    >>> head.logits(X).shape
    (4, 2)
    """

    FACTS: ClassVar[Mapping[str, Any]] = {"n_iter_": int, "converged_": bool}

    n_iter_: int
    converged_: bool

    def __init__(
        self,
        C: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0,
        standardize: bool = True,
        max_iter: Annotated[int, Field(ge=1)] = 1000,
        tol: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-4,
        class_weight: Literal["balanced"] | dict[Any, FiniteFloat] | None = None,
        solver: Literal["newton-cg", "lbfgs"] = "newton-cg",
    ) -> None:
        self.C = C
        self.standardize = standardize
        self.max_iter = max_iter
        self.tol = tol
        self.class_weight = class_weight
        self.solver = solver

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        validation_data: tuple[Any, Any] | None = None,
        on_epoch: Callable[[dict[str, float]], None] | None = None,
        views: int = 1,
    ) -> Self:
        """Learn from rows and labels; what an earlier fit learnt is forgotten.

        Parameters
        ----------
        X : array-like, (n, *shape)
        y : array-like, (n,)
        validation_data, on_epoch
            Taken so that every head is called alike; this one has no epochs and uses neither.
        views : int
            So many rows side by side are views of one image: each counts as that part of an image, so that `C`
            means what it does without views.

        Raises
        ------
        BadRows
            NaN or infinite values, fewer than two classes, lengths that differ.
        UsageError
            A setting out of bounds.
        """
        settings = check_settings(self)
        rows, codes, classes = training_rows(self, X, y)
        check_views(codes, views)
        settings["C"] /= views
        mean, inverse = scaler(rows, divide=settings["standardize"])
        weights = class_weights(settings["class_weight"], classes, codes)
        solve = _streamed if isinstance(rows, Rows) else _exact
        kernel, bias, self.n_iter_, self.converged_ = solve(rows, codes, mean, inverse, weights, settings)
        kernel, bias = fold(kernel, bias, mean, inverse)
        self.classes_, self.arrays_ = classes, {"kernel": kernel, "bias": bias}
        if not self.converged_:
            log.warning(
                "logistic head: not converged after %d iterations (C=%g, tol=%g): stopping early is another "
                "regulariser; raise max_iter or lower C",
                self.n_iter_,
                self.C,
                settings["tol"],
            )
        return self

    @property
    def coef_(self) -> np.ndarray:
        """Weights on raw features, (k, d) float32; two rows for two classes, the first of them zero."""
        return self.arrays_["kernel"].T

    @property
    def intercept_(self) -> np.ndarray:
        """Intercepts on raw features, (k,) float32."""
        return self.arrays_["bias"]

    def layout(self, feature_shape: tuple[int, ...], classes: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the arrays: one kernel and one bias."""
        return {"kernel": (features(feature_shape), classes), "bias": (classes,)}

    def _forward(self, rows: np.ndarray) -> np.ndarray:
        # In float64: BLAS rounds a row in float32 differently with its neighbours' number, and one row asked
        # for alone should score as it did among many.
        kernel, bias = self.arrays_["kernel"].astype(np.float64), self.arrays_["bias"]
        parts = [(part @ kernel + bias).astype(np.float32) for part in chunks(rows)]
        return np.concatenate(parts) if parts else np.zeros((0, len(bias)), np.float32)

    def layers(self) -> list[Any]:
        """The fitted head as stock Keras layers: Flatten where rows have axes, Dense, softmax.

        Returns
        -------
        list of keras.layers.Layer
            New, built, with weights; the scaler is folded into the kernel.
        """
        from bottleneck.heads.stock import dense, ending

        head = dense("logits", self.arrays_["kernel"], self.arrays_["bias"])
        return ending(self.feature_shape_, [head])


Solution = tuple[np.ndarray, np.ndarray, int, bool]


def _exact(
    rows: np.ndarray,
    codes: np.ndarray,
    mean: np.ndarray,
    inverse: np.ndarray,
    weights: np.ndarray | None,
    settings: Mapping[str, Any],
) -> Solution:
    """Kernel and bias on standardised rows, iterations, and whether they were enough: scikit-learn's solver."""
    model = LogisticRegression(
        C=settings["C"],
        tol=settings["tol"],
        max_iter=settings["max_iter"],
        solver=settings["solver"],
        class_weight=None if weights is None else {code: float(w) for code, w in enumerate(weights)},
    )
    scaled = _scaled(rows, mean, inverse)
    rotated = _rotation(scaled) if rows.shape[1] > ROTATE * len(rows) else None
    # Thin products of a solver gain nothing from BLAS threads, which on a busy machine spin and cost ten times.
    with threadpool_limits(1, user_api="blas"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(scaled if rotated is None else rotated[0], codes)
    stopped = _stopped_early(caught)
    kernel: np.ndarray = model.coef_.T if rotated is None else scaled.T @ (rotated[1] @ model.coef_.T)
    bias: np.ndarray = model.intercept_
    if len(model.classes_) == 2:
        # scikit-learn keeps one column z for two classes; softmax([0, z]) is its sigmoid(z).
        kernel = np.concatenate([np.zeros_like(kernel), kernel], axis=1)
        bias = np.concatenate([np.zeros_like(bias), bias])
    done = int(np.max(model.n_iter_))
    return kernel, bias, done, not stopped and done < settings["max_iter"]


def _streamed(
    rows: Rows,
    codes: np.ndarray,
    mean: np.ndarray,
    inverse: np.ndarray,
    weights: np.ndarray | None,
    settings: Mapping[str, Any],
) -> Solution:
    """The same of rows that stay on disk, near the optimum: see `descent`."""
    problem = Problem(
        rows,
        codes,
        int(codes.max()) + 1,
        mean.astype(np.float32),
        inverse.astype(np.float32),
        weights,
        1.0 / (settings["C"] * len(codes)),
    )
    return descend(problem, most=settings["max_iter"], tolerance=TOLERANCE * settings["tol"])


def _stopped_early(caught: list[warnings.WarningMessage]) -> bool:
    """Whether the solver said so; warnings of another kind are passed on."""
    stopped = False
    for warning in caught:
        if issubclass(warning.category, ConvergenceWarning) or "Line Search failed" in str(warning.message):
            stopped = True
        elif warning.category.__name__ != "LineSearchWarning":  # scipy's: a second search follows it
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return stopped


def _scaled(rows: np.ndarray, mean: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    # float32 rows leave the gradient too rough for a tight `tol`; beyond this size memory matters more.
    scaled = np.empty(rows.shape, np.float64 if rows.size * 8 <= FLOAT64_BYTES else np.float32)
    start = 0
    for part in chunks(rows):
        part -= mean
        part *= inverse
        scaled[start : start + len(part)] = part
        start += len(part)
    return scaled


def _rotation(scaled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n, r) in the space they span, and what leads back, (n, r): ``scaled.T @ back``.

    The penalised optimum is a combination of the rows, and a rotation keeps norms, so the problem is the same
    one. From the Gram matrix in float64, by pieces: the wide matrix itself is never decomposed.
    """
    import scipy.linalg

    gram = np.zeros((len(scaled), len(scaled)))
    for start in range(0, scaled.shape[1], 2048):
        part = scaled[:, start : start + 2048].astype(np.float64)
        gram += part @ part.T
    values, vectors = scipy.linalg.eigh(gram, driver="evd", overwrite_a=True, check_finite=False)
    # Directions below rounding of the float32 rows (centring alone makes one) carry nothing.
    keep = values > values[-1] * 1e-10
    if not keep.any():
        keep[-1:] = True
    length = np.sqrt(np.maximum(values[keep], np.finfo(float).tiny))
    return vectors[:, keep] * length, vectors[:, keep] / length
