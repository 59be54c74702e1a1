"""What softmax heads share: prediction from logits, and their state."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError
from sklearn.base import BaseEstimator, ClassifierMixin

from bottleneck.errors import HeadError, UsageError
from bottleneck.heads.inputs import known_rows, softmax
from bottleneck.heads.settings import check_settings, parse_settings
from bottleneck.schema import FitFacts, Frozen, explain_errors

Kind = Literal["str", "int", "float", "bool"]

_KINDS: Mapping[str, type] = {"str": str, "int": int, "float": float, "bool": bool}


class HeadState(Frozen):
    """The JSON half of a fitted head; its float32 arrays are apart."""

    settings: Mapping[str, Any]
    feature_shape: tuple[int, ...] = Field(min_length=1, max_length=8)
    classes: tuple[str | int | float | bool, ...] = Field(min_length=2)
    kind: Kind
    facts: Mapping[str, Any]


class SoftmaxHead(ClassifierMixin, BaseEstimator):
    """A classifier whose probabilities are the softmax of `logits`.

    A concrete head has a constructor that stores, `fit`, `layout`, `layers` and `_forward`, and keeps everything it
    learnt from in ``arrays_`` under the names of its `layout`: then saving, counting and checking know no head by name.

    Attributes
    ----------
    classes_ : ndarray, (k,)
        Labels in code-point order.
    feature_shape_ : tuple of int
        Shape of one row.
    arrays_ : dict of str to ndarray
        float32, as `layout` names and shapes them; the scaler is folded in.
    settings_ : dict
        The settings that it was fitted with, typed.
    solver_, rows_, why_ : str
        What fitted it, on rows "in memory" or "streamed", and why these.
    rest_ : list of float, or None
        Fitted on float64 rows, or on features far from zero: what the first bias lost in float32, which prediction
        adds. Keras layers go without.
    left_out_ : int, or None
        Features that vary no further than rounding and count as constant; None of a head that was loaded.
    """

    #: Fitted attributes that are JSON and worth keeping, with their types, None among them: what `with_arrays` leaves.
    #: Format 1 of a saved head had only some.
    FACTS: ClassVar[Mapping[str, Any]] = {
        "solver_": str | None,
        "rows_": str | None,
        "why_": str | None,
        "rest_": list[FiniteFloat] | None,
    }

    classes_: np.ndarray
    feature_shape_: tuple[int, ...]
    arrays_: dict[str, np.ndarray]
    #: The settings of the fit, typed; what is set afterwards counts from the next fit on.
    settings_: dict[str, Any] | None = None
    solver_: str | None = None
    rows_: str | None = None
    why_: str | None = None
    rest_: list[float] | None = None
    left_out_: int | None = None

    @abstractmethod
    def layout(self, feature_shape: tuple[int, ...], classes: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the arrays, from the settings alone."""

    @abstractmethod
    def _forward(self, rows: np.ndarray) -> np.ndarray:
        """(n, d) float16, float32 or float64 to logits (n, k)."""

    def logits(self, X: Any) -> np.ndarray:
        """What the softmax is taken of.

        Parameters
        ----------
        X : array-like, (n, *feature_shape_)
            float16, float32 or float64; other kinds are converted.

        Returns
        -------
        ndarray, (n, k) float32

        Raises
        ------
        BadRows
            Rows of another shape, NaN or infinite values.
        """
        return self._forward(known_rows(self, X)).astype(np.float32, copy=False)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict class probabilities (n, k) float32, columns as ``classes_``.

        Raises as `logits`.
        """
        return softmax(self.logits(X))

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest label of each row (n,). Raises as `logits`."""
        codes: np.ndarray = np.argmax(self.logits(X), axis=1)
        labels: np.ndarray = self.classes_[codes]
        return labels

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The fitted head as (JSON-able, arrays).

        Raises
        ------
        HeadError
            Labels that JSON cannot hold.
        """
        settings = {name: _jsonable(value) for name, value in self._settings().items()}
        labels = self.classes_.tolist()
        kind = type(labels[0]).__name__
        if kind not in _KINDS or any(type(label).__name__ != kind for label in labels):
            raise HeadError(
                f"labels of type {kind} cannot be saved: expected strings, integers, floats or bools; "
                "convert the labels before fitting"
            )
        document = HeadState(
            settings=settings,
            feature_shape=self.feature_shape_,
            classes=tuple(labels),
            kind=kind,  # type: ignore[arg-type]
            facts={name: getattr(self, name) for name in self.FACTS},
        )
        return document.model_dump(mode="json"), dict(self.arrays_)

    def with_arrays(self, arrays: Mapping[str, np.ndarray]) -> Self:
        """This head with other arrays, which another loop learnt.

        No fact of the fit holds of them. Raises as `restore`.
        """
        document, _ = self.state()
        return self.restore({**document, "facts": dict.fromkeys(self.FACTS)}, arrays)

    def fit_facts(self) -> FitFacts:
        """Tell which solver ran, on which rows and how well.

        Of a head that an older version saved, what that knew.
        """
        return FitFacts(
            solver=self.solver_,
            rows=self.rows_,
            why=self.why_,
            iterations=getattr(self, "n_iter_", None),
            passes=getattr(self, "passes_", None),
            converged=getattr(self, "converged_", None),
            gap=getattr(self, "gap_", None),
            accuracy=getattr(self, "train_accuracy_", None),
        )

    def _settings(self) -> dict[str, Any]:
        """Of the fit; before one, as they are set now."""
        return check_settings(self) if self.settings_ is None else self.settings_

    @classmethod
    def prepare(cls, document: Mapping[str, Any]) -> tuple[Self, dict[str, tuple[int, ...]]]:
        """Prepare a head without arrays, and their names and shapes.

        So a reader knows every shape before it reads a byte of an array.

        Raises
        ------
        HeadError
            A document that no `state` wrote.
        """
        try:
            state = HeadState.model_validate(document)
            settings = {name: _from_json(value) for name, value in state.settings.items()}
            head = cls(**parse_settings(cls.__name__, cls, settings))
            classes: np.ndarray = np.array(state.classes, dtype=_KINDS[state.kind])
            # Compared with their types: 1, 1.0 and True are equal to Python, and no classes of one another.
            if [(type(x), x) for x in np.unique(classes).tolist()] != [(type(x), x) for x in state.classes]:
                raise HeadError(f"classes are not {state.kind} values, each once, in sorted order")
            if min(state.feature_shape) < 1:
                raise HeadError(f"a row cannot have the shape {state.feature_shape}")
            if set(state.facts) != set(cls.FACTS):
                raise HeadError(f"facts are {sorted(state.facts)}, expected {sorted(cls.FACTS)}")
            facts = {
                name: TypeAdapter(kind).validate_python(state.facts[name], strict=True)
                for name, kind in cls.FACTS.items()
            }
        except ValidationError as error:
            raise HeadError(f"the head's document does not fit: {explain_errors(error)}") from error
        except (UsageError, OverflowError, TypeError, ValueError) as error:
            raise HeadError(f"the head's document does not fit: {error}") from error
        head.classes_, head.feature_shape_, head.settings_ = (
            classes,
            state.feature_shape,
            check_settings(head),
        )
        head.n_features_in_ = int(np.prod(state.feature_shape, dtype=object))
        for name, value in facts.items():
            setattr(head, name, value)
        return head, head.layout(state.feature_shape, len(classes))

    @classmethod
    def restore(cls, document: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """The head that `state` described, its arrays bit for bit.

        Raises
        ------
        HeadError
            Missing or unknown arrays, a wrong shape or dtype, values that are not finite, a negative variance.
        """
        head, layout = cls.prepare(document)
        if set(arrays) != set(layout):
            raise HeadError(
                f"expected the arrays {sorted(layout)}, got {sorted(arrays)}: save the head again from "
                "its training run"
            )
        for name, shape in layout.items():
            array = arrays[name]
            if array.dtype != np.float32 or array.shape != shape:
                raise HeadError(
                    f"array {name!r}: expected float32 {shape}, got {array.dtype} {array.shape}: "
                    "it belongs to another head"
                )
            if not np.isfinite(array).all():
                raise HeadError(f"array {name!r} holds NaN or infinite values: fit the head again")
            if name.endswith("moving_variance") and (array < 0).any():
                raise HeadError(f"array {name!r} holds negative variances: fit the head again")
        head.arrays_ = {name: np.array(arrays[name]) for name in layout}
        return head


def _jsonable(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        # As pairs: JSON would turn the label 3 into "3".
        return {"pairs": [[_jsonable(label), _jsonable(weight)] for label, weight in value.items()]}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    return value


def _from_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value["pairs"]) if set(value) == {"pairs"} else {}
    return value
