"""Multinomial logistic regression, solved to a proven gap."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, FiniteFloat
from sklearn.exceptions import ConvergenceWarning

from bottleneck.heads.inputs import check_views, class_weights, feature_count, row_chunks, training_rows
from bottleneck.heads.keras_layers import dense, ending
from bottleneck.heads.newton import Minimum, minimise
from bottleneck.heads.objective import Objective, column_blocks, gram
from bottleneck.heads.scaling import fold, scaling_of
from bottleneck.heads.settings import check_settings
from bottleneck.heads.softmax_head import SoftmaxHead
from bottleneck.store.rows import Rows

#: With this many more features than rows, rows in memory are first rotated into the space they span; beyond this many
#: rows that costs more than it saves.
ROTATE, MOST_ROTATED = 2, 4096

#: Rows in memory are held standardised in float64 up to this size; beyond, they are standardised at each pass.
FLOAT64_BYTES = 1 << 30


class LogisticHead(SoftmaxHead):
    """Logistic regression with an L2 penalty; the first head to try.

    Rows are centred (the intercept is not penalised, so the optimum is the same and the solver arrives in a
    fraction of the iterations) and, by default, divided by their standard deviation. One solver fits rows in
    memory and rows that stay on disk (see `newton`), by whole passes over them, so both come to the same optimum.
    Where there are many more features than rows in memory, they are rotated into the space the rows span: the
    optimum lies in it, so nothing changes but the time.

    Parameters
    ----------
    C : float
        Inverse strength of the penalty ``|W|^2 / (2 C n)`` beside the mean loss, on the standardised features.
    standardize : bool
        Divide by the standard deviation. Changes the optimum: the penalty then treats features alike.
    max_iter : int
        Most steps of the solver; each takes several passes over the rows.
    tol : float
        How far the objective may lie above its least value, as a part of it, when the fit counts as converged. It is a
        bound and no guess: fits end well below it.
    class_weight : "balanced", mapping of label to float above 0, or None
    solver : {"newton-cg", "lbfgs"}
        Newton's method with conjugate gradients, or L-BFGS, to the same optimum. Of sets with thousands of columns the
        second took 2 to 20 times the passes.

    Attributes
    ----------
    n_iter_ : int
        Steps done.
    converged_ : bool
        Whether the objective is proven to lie within `tol` of its least value; when False, `fit` warns.
    gap_ : float
        The bound: the objective lies above its least value by at most this part of it.
    passes_ : int
        Evaluations of the objective and products with its Hessian: each takes one pass over all rows. The scaler's two
        passes are not counted.
    solver_, rows_, why_ : str
        Which solver ran; whether on rows "in memory" or "streamed"; and why.

    Examples
    --------
    >>> X = np.array([[0.0, 5.0], [1.0, 5.0], [4.0, 5.0], [5.0, 5.0]])
    >>> head = LogisticHead().fit(X, ["cat", "cat", "dog", "dog"])
    >>> head.predict(X).tolist(), head.converged_
    (['cat', 'cat', 'dog', 'dog'], True)
    >>> head.logits(X).shape
    (4, 2)
    """

    FACTS: ClassVar[Mapping[str, Any]] = {
        **SoftmaxHead.FACTS,
        "n_iter_": int | None,
        "converged_": bool | None,
        "gap_": FiniteFloat | None,
        "passes_": int | None,
        "train_accuracy_": FiniteFloat | None,
    }

    n_iter_: int | None
    converged_: bool | None
    gap_: float | None
    passes_: int | None
    train_accuracy_: float | None

    def __init__(
        self,
        C: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0,
        standardize: bool = True,
        max_iter: Annotated[int, Field(ge=1)] = 1000,
        tol: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-5,
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
            As many rows side by side are views of one image: each counts as that part of an image, so that `C`
            means what it does without views.

        Raises
        ------
        BadRows
            NaN or infinite values, fewer than two classes, lengths that differ; values too small or too large for the
            weights of float32 layers.
        UsageError
            A setting out of bounds.
        HeadError
            No step lowered the objective.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            The bound is not within `tol` after `max_iter` steps, or no step makes it smaller.
        LeftOutWarning
            Features that vary no further than rounding count as constant.
        """
        settings = check_settings(self)
        rows, codes, classes = training_rows(self, X, y)
        check_views(codes, views)
        scaling = scaling_of(rows, divide=settings["standardize"])
        weights = class_weights(settings["class_weight"], classes, codes)
        penalty = 1.0 / (settings["C"] / views * len(codes))
        found, kernel = _solved(rows, codes, scaling.pair, weights, penalty, settings)
        bias = found.point.weights[-1]
        if len(classes) == 2:
            # One column z for two classes, as scikit-learn has it; softmax([0, z]) is its sigmoid(z).
            kernel = np.concatenate([np.zeros_like(kernel), kernel], axis=1)
            bias = np.concatenate([np.zeros_like(bias), bias])
        kernel, bias, self.rest_ = fold(kernel, bias, *scaling.pair, exact=scaling.exact)
        self.classes_, self.arrays_ = classes, {"kernel": kernel, "bias": bias}
        self.settings_, self.solver_ = settings, settings["solver"]
        self.n_iter_, self.passes_, self.converged_ = max(1, found.steps), found.passes, found.converged
        self.gap_ = float(min(found.point.gap / max(found.point.value, 1e-300), np.finfo(np.float64).max))
        self.train_accuracy_, self.left_out_ = found.point.accuracy, scaling.left_out
        scaling.warn("logistic head")
        if not self.converged_:
            warnings.warn(
                f"logistic head: not converged after {found.steps} iterations ({settings['solver']}, "
                f"C={settings['C']:g}, tol={settings['tol']:g}): the objective is {found.point.value:.4g}, from "
                f"{found.start:.4g} at the start, and may lie {self.gap_:.2g} of it above the least; accuracy on the "
                f"training rows is {self.train_accuracy_:.4f}. Stopping early is another regulariser; "
                "raise max_iter or lower C",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    @property
    def coef_(self) -> np.ndarray:
        """Weights on raw features, (k, d) float32."""
        return self.arrays_["kernel"].T

    @property
    def intercept_(self) -> np.ndarray:
        """Intercepts on raw features, (k,) float32."""
        return self.arrays_["bias"]

    def layout(self, feature_shape: tuple[int, ...], classes: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the arrays: one kernel and one bias."""
        return {"kernel": (feature_count(feature_shape), classes), "bias": (classes,)}

    def _forward(self, rows: np.ndarray) -> np.ndarray:
        # In float64: BLAS rounds a row in float32 differently with its neighbours' number, and one row asked
        # for alone should score as it did among many.
        kernel, bias = self.arrays_["kernel"].astype(np.float64), self.arrays_["bias"]
        bias = bias if self.rest_ is None else bias + np.array(self.rest_)
        parts = [(part @ kernel + bias).astype(np.float32) for part in row_chunks(rows)]
        return np.concatenate(parts) if parts else np.zeros((0, len(bias)), np.float32)

    def layers(self) -> list[Any]:
        """Build the fitted head as stock Keras layers.

        Returns
        -------
        list of keras.layers.Layer
            New, built, with weights; the scaler is folded into the kernel.
        """
        head = dense("logits", self.arrays_["kernel"], self.arrays_["bias"])
        return ending(self.feature_shape_, [head])


def _solved(
    rows: np.ndarray | Rows,
    codes: np.ndarray,
    scaling: tuple[np.ndarray, np.ndarray],
    weights: np.ndarray | None,
    penalty: float,
    settings: Mapping[str, Any],
) -> tuple[Minimum, np.ndarray]:
    """The minimum, and its kernel (d, columns) on standardised rows."""
    classes = int(codes.max()) + 1
    solve = {"solver": settings["solver"], "most": settings["max_iter"], "tolerance": settings["tol"]}
    if isinstance(rows, np.ndarray) and ROTATE * len(rows) < rows.shape[1] and len(rows) <= MOST_ROTATED:
        rotated, back = _rotation(rows, *scaling)
        found = minimise(Objective(rotated, codes, classes, weights, penalty), **solve)
        along = back @ found.point.weights[:-1]
        return found, np.concatenate([part.T @ along for part in _columns(rows, *scaling)])
    if isinstance(rows, np.ndarray) and rows.size * 8 <= FLOAT64_BYTES:
        scaled = rows.astype(np.float64)
        scaled -= scaling[0]
        scaled *= scaling[1]
        objective = Objective(scaled, codes, classes, weights, penalty)
    else:
        objective = Objective(rows, codes, classes, weights, penalty, scaling)
    found = minimise(objective, **solve)
    return found, found.point.weights[:-1]


def _columns(rows: np.ndarray, mean: np.ndarray, inverse: np.ndarray) -> Iterator[np.ndarray]:
    """The standardised rows in float64, some columns at a time."""
    for which in column_blocks(rows.shape[1]):
        yield (rows[:, which].astype(np.float64) - mean[which]) * inverse[which]


def _rotation(rows: np.ndarray, mean: np.ndarray, inverse: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotate rows into the space they span.

    Also gives `back` (n, r): ``standardised.T @ back`` leads from there to the features. The penalised optimum is a
    combination of the rows, and a rotation keeps norms, so the problem is the same one. From the Gram matrix in
    float64, by pieces: the wide matrix itself is never decomposed.
    """
    import scipy.linalg

    crossed = gram(_columns(rows, mean, inverse))
    values, vectors = scipy.linalg.eigh(crossed, driver="evd", overwrite_a=True, check_finite=False)
    # Directions below rounding of the float32 rows (centring alone makes one) carry nothing.
    keep = values > values[-1] * 1e-10
    if not keep.any():
        keep[-1:] = True
    length = np.sqrt(np.maximum(values[keep], np.finfo(float).tiny))
    return vectors[:, keep] * length, vectors[:, keep] / length
