"""Check rows and labels for every head."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from sklearn.utils import column_or_1d
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data

from bottleneck.errors import HeadError
from bottleneck.store.rows import Rows, loaded, why_loaded

#: Least and largest weight of a class. Beyond, the losses of one class are rounding beside another's.
WEIGHTS = (1e-9, 1e9)

_CHUNK = 32 << 20

#: Types that rows keep; all others become the first: a float64 column far from zero loses everything in float32.
_DTYPES = [np.float64, np.float32, np.float16]


class BadRows(HeadError, ValueError):
    """Rows or labels that no head takes; also a ValueError."""


def training_rows(head: Any, X: Any, y: Any) -> tuple[Any, np.ndarray, np.ndarray]:
    """Rows and labels of a fit; sets ``feature_shape_``, ``n_features_in_`` and column names.

    Parameters
    ----------
    head : estimator
    X : array-like, (n, *shape)
        float16, float32 and float64 stay what they are; whole numbers become float64. `Rows` of a store are loaded
        where they take no more than `store.memory.rows_budget`, and else stay on disk: what is stored is finite, so no
        pass over them is needed to know it. ``rows_`` and ``why_`` of the head say which.
    y : array-like, (n,)
        Labels of any one kind: strings, integers, bools.

    Returns
    -------
    rows : ndarray or Rows, (n, d)
    codes : ndarray, (n,) int64
        Positions in `classes`.
    classes : ndarray, (k,)
        Sorted.

    Raises
    ------
    BadRows
        NaN or infinite values, no rows, one class, lengths that differ.
    """
    shape = _shape(X)
    try:
        if y is None:
            raise ValueError(
                f"{type(head).__name__} requires y to be passed, but the target y is None: give one label a row"
            )
        if isinstance(X, Rows):
            rows: Any = _stored_rows(head, X)
            labels = np.asarray(y)
            check_consistent_length(rows, labels)
        else:
            rows, labels = validate_data(head, _flat(X), y, dtype=_DTYPES)
        labels = column_or_1d(labels, warn=True)
        check_classification_targets(labels)
        classes, codes = np.unique(labels, return_inverse=True)
    except ValueError as error:
        raise BadRows(str(error)) from error
    if len(classes) < 2:
        raise BadRows(
            f"a head needs at least 2 classes, but there is 1 class, {classes.tolist()[0]!r}, on all "
            f"{len(labels)} rows: add images of another class"
        )
    head.feature_shape_ = shape if shape is not None else (rows.shape[1],)
    head.why_ = why_loaded(rows) if isinstance(rows, Rows) else "an array was given"
    rows = loaded(rows)
    head.rows_ = "streamed" if isinstance(rows, Rows) else "in memory"
    return rows, codes.reshape(-1).astype(np.int64), classes


def known_rows(head: Any, X: Any) -> Any:
    """Check rows (n, d) for a fitted head.

    They stay on disk where `X` is `Rows`.

    Raises
    ------
    BadRows
        Another shape, NaN or infinite values.
    sklearn.exceptions.NotFittedError
    """
    check_is_fitted(head, "classes_")
    shape = _shape(X)
    if shape is not None and len(shape) != len(head.feature_shape_):
        raise BadRows(
            f"expected rows of shape {head.feature_shape_}, got {shape}: extract with the base, cut and pooling that "
            "this head was fitted on"
        )
    try:
        if isinstance(X, Rows):
            rows: Any = _stored_rows(head, X, reset=False)
        else:
            rows = validate_data(head, _flat(X), dtype=_DTYPES, reset=False)
    except ValueError as error:
        raise BadRows(str(error)) from error
    if shape is not None and shape != head.feature_shape_:
        raise BadRows(
            f"expected rows of shape {head.feature_shape_}, got {shape}: the axes are in another order"
        )
    return rows


def check_views(codes: np.ndarray, views: int) -> None:
    """Raise `BadRows` unless `views` rows side by side are of one image."""
    if views < 1 or len(codes) % views or (np.ptp(codes.reshape(-1, views), axis=1) != 0).any():
        raise BadRows(
            f"views={views} of {len(codes)} rows: expected that many rows of each image, side by side and with "
            "one label"
        )


def _stored_rows(head: Any, X: Rows, *, reset: bool = True) -> Rows:
    """Flatten `X`, and validate one row of zeros in its stead."""
    if reset and not len(X):
        raise ValueError("found 0 rows, and a head needs some to learn from")
    validate_data(head, np.zeros((1, X.width), X.dtype), dtype=_DTYPES, reset=reset)
    return X.flat


def _shape(X: Any) -> tuple[int, ...] | None:
    """Shape of one row; None for a list, which is flat."""
    shape = getattr(X, "shape", None)
    if shape is None and hasattr(X, "__array__"):
        shape = np.asarray(X).shape
    return None if shape is None or len(shape) < 2 else tuple(int(extent) for extent in shape[1:])


def _flat(X: Any) -> Any:
    shape = _shape(X)
    # Rank 2 goes on as it is: scikit-learn reads column names from tables and refuses sparse matrices by itself.
    return X if shape is None or len(shape) == 1 else np.asarray(X).reshape(len(X), -1)


def row_chunks(rows: np.ndarray | Rows) -> Iterator[np.ndarray]:
    """Consecutive pieces of `rows` as float64, 32 MiB each."""
    step = max(1, _CHUNK // max(1, rows.shape[1] * 8))
    for start in range(0, len(rows), step):
        yield rows[start : start + step].astype(np.float64)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Compute probabilities (n, k) float32 from logits (n, k).

    Examples
    --------
    >>> softmax(np.array([[0.0, 0.0]], np.float32)).tolist()
    [[0.5, 0.5]]
    """
    found = np.empty(logits.shape, np.float32)
    step = max(1, _CHUNK // max(1, logits.shape[1] * 8))
    for start in range(0, len(logits), step):
        shifted = logits[start : start + step].astype(np.float64)
        shifted -= shifted.max(axis=1, keepdims=True)
        np.exp(shifted, out=shifted)
        shifted /= shifted.sum(axis=1, keepdims=True)
        found[start : start + step] = shifted
    return found


def class_weights(
    setting: str | Mapping[Any, float] | None, classes: np.ndarray, codes: np.ndarray
) -> np.ndarray | None:
    """Weigh each class, (k,) float32; None where all weigh the same.

    Raises
    ------
    BadRows
        A mapping that names a class which is not there, or a weight that is not above 0.
    """
    if setting is None:
        return None
    codes_of = {label: code for code, label in enumerate(classes.tolist())}
    by_code: str | dict[int, float] = "balanced"
    if not isinstance(setting, str):
        missing = [label for label in setting if label not in codes_of]
        if missing:
            raise BadRows(
                f"class_weight names classes {missing!r} that are not among the labels {classes.tolist()!r}: "
                "name the classes as the labels do"
            )
        least, most = WEIGHTS
        wrong = {label: weight for label, weight in setting.items() if not least <= weight <= most}
        if wrong:
            raise BadRows(
                f"class_weight {wrong!r}: expected numbers from {least:g} to {most:g}; leave the rows of a class out "
                "to ignore it"
            )
        by_code = {codes_of[label]: weight for label, weight in setting.items()}
    return np.asarray(
        compute_class_weight(by_code, classes=np.arange(len(classes)), y=codes), dtype=np.float32
    )


def feature_count(shape: tuple[int, ...]) -> int:
    """Number of values in a row of that shape."""
    return math.prod(shape)
