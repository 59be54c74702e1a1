"""Cross-validate with a fresh head for each fold.

Copies of an image and members of a group stay in one fold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bottleneck.errors import UsageError
from bottleneck.evaluation.metrics import Metrics, measure_predictions
from bottleneck.store.rows import Rows, loaded, picked
from bottleneck.store.views import ViewRows

#: Probabilities held at a time while rows are measured.
_CELLS = 4 << 20


def split_folds(
    labels: np.ndarray, keys: np.ndarray, groups: np.ndarray, count: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Stratified folds as (training rows, held-out rows).

    Parameters
    ----------
    labels : numpy.ndarray
        (n,) str.
    keys : numpy.ndarray
        (n, 32) uint8 contents: copies share a fold.
    groups : numpy.ndarray
        (n,) str or None; members of one group share a fold.
    count : int
        How many folds, 2 or more.
    seed : int

    Raises
    ------
    UsageError
        A class has fewer distinct images than there are folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    units = _units(keys, groups)
    members: dict[str, set[str]] = {}
    for label, name in zip(labels, units, strict=True):
        members.setdefault(label, set()).add(name)
    short = sorted(name for name, parts in members.items() if len(parts) < count)
    if short:
        raise UsageError(
            f"--folds {count} needs at least {count} distinct images (or groups) of each class; "
            f"{', '.join(f'{str(name)!r} has {len(members[name])}' for name in short[:5])}. "
            "Use fewer folds, or --validation"
        )
    splitter = StratifiedGroupKFold(n_splits=count, shuffle=True, random_state=seed)
    yield from splitter.split(np.zeros(len(labels)), labels, units)


def _units(keys: np.ndarray, groups: np.ndarray) -> list[str]:
    """Name each row alike for copies, groups, and groups with one copy."""
    parent: dict[Any, Any] = {}

    def head(item: Any) -> Any:
        while parent.setdefault(item, item) != item:
            parent[item] = item = parent[parent[item]]
        return item

    contents = [key.tobytes() for key in keys]
    for content, group in zip(contents, groups, strict=True):
        # Bytes are contents, text is groups: the two never meet by accident.
        if group is not None:
            parent[head(content)] = head(group)
    # Known by its least content, so that neither names nor the order of rows decide who shares a fold.
    least: dict[Any, bytes] = {}
    for content in contents:
        least[head(content)] = min(content, least.get(head(content), content))
    return [least[head(content)].hex() for content in contents]


def cross_validate(
    head: Any,
    X: np.ndarray | Rows,
    labels: np.ndarray,
    keys: np.ndarray,
    groups: np.ndarray,
    classes: tuple[str, ...],
    *,
    count: int,
    seed: int,
    views: ViewRows | None = None,
    done: Callable[[Any], None] = lambda _: None,
) -> tuple[Metrics, ...]:
    """Measure a fresh clone of `head` on each held-out fold.

    With `views` of the same images, it learns from these; what is held out is measured on `X`.
    Of `Rows`, the training part of a fold is loaded where it fits. `done` is given the head of each fold.

    Returns
    -------
    tuple of Metrics
        One a fold.
    """
    from sklearn.base import clone

    figures = []
    for train, test in split_folds(labels, keys, groups, count, seed):
        if views is None:
            fitted = clone(head).fit(loaded(picked(X, train)), labels[train])
        else:
            fitted = fit_views(clone(head), views.where(train).loaded(), labels[train])
        figures.append(measure_head(fitted, picked(X, test), labels[test], classes))
        done(fitted)
    return tuple(figures)


def fit_views(head: Any, views: ViewRows, labels: np.ndarray, **watching: Any) -> Any:
    """Fit `head` on all views of the images."""
    return head.fit(views.flat, np.repeat(labels, views.count), views=views.count, **watching)


def measure_head(
    head: Any, X: np.ndarray | Rows, labels: np.ndarray, classes: tuple[str, ...], views: int = 1
) -> Metrics:
    """Measure a fitted head on rows with labels (n,), n >= 1.

    `X` is (n * views, *shape): the probabilities of an image are the mean over its views, which lie side by side.
    """
    predicted, true_probability = np.empty(len(labels), np.int64), np.zeros(len(labels))
    column_of = {name: column for column, name in enumerate(classes)}
    truth = np.array([column_of.get(label, -1) for label in labels])
    step = max(1, _CELLS // (len(classes) * views))
    for start in range(0, len(labels), step):
        part = slice(start, start + step)
        each = spread_columns(head, picked(X, slice(start * views, (start + step) * views)), classes)
        probabilities = each.reshape(-1, views, len(classes)).mean(axis=1)
        predicted[part] = probabilities.argmax(axis=1)
        known = np.flatnonzero(truth[part] >= 0)
        true_probability[start + known] = probabilities[known, truth[part][known]]
    return measure_predictions(truth, predicted, true_probability, classes)


def spread_columns(head: Any, X: np.ndarray | Rows, classes: tuple[str, ...]) -> np.ndarray:
    """Give probabilities a column for each class, zero where unseen."""
    wide = np.zeros((len(X), len(classes)), np.float32)
    column_of = {name: column for column, name in enumerate(classes)}
    wide[:, [column_of[str(name)] for name in head.classes_]] = head.predict_proba(X)
    return wide
