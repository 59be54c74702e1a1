"""Fit a head on the training rows and measure it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from bottleneck.evaluation.cross_validation import cross_validate, fit_views, measure_head
from bottleneck.evaluation.metrics import Metrics
from bottleneck.heads.scaling import LeftOutWarning, left_out_text
from bottleneck.heads.training_loop import epoch_note
from bottleneck.store.join import Features
from bottleneck.store.rows import Rows, why_loaded
from bottleneck.system.progress import Progress


def fit_and_measure(
    head: Any,
    rows: Features,
    splits: np.ndarray,
    classes: tuple[str, ...],
    *,
    folds: int | None,
    seed: int,
    progress: Progress,
    on_message: Callable[[str], None] = lambda _: None,
) -> tuple[Any, dict[str, Metrics], tuple[Metrics, ...]]:
    """Fit on ``train``, with ``validation`` for early stopping, and measure every split.

    Where the rows have views, the head learns from these, and everything is measured on the images as they are. That a
    fit did not converge is for the caller to say, from what the head knows of it: no warning is given. `on_message`
    hears it of folds, and of features that the head leaves out though they vary.

    Parameters
    ----------
    head : Head
        Unfitted.
    rows : Features
        Labelled.
    splits : numpy.ndarray
        (n,) ``train``, ``validation`` or ``test``.
    classes : tuple of str
        Those of the training rows.
    folds : int or None
        Cross-validate on the training rows first, a fresh head a fold.
    seed : int
    progress : Progress
    on_message : callable

    Returns
    -------
    head, dict of str to Metrics, tuple of Metrics
        The fitted head, figures by split, figures by fold.
    """
    training = rows.where(splits == "train")
    learnt = training.X if training.views is None else training.views.flat
    why = why_loaded(learnt) if isinstance(learnt, Rows) else None
    # Read once, where they fit; else every head streams them.
    training = training.loaded()
    validating = rows.where(splits == "validation").loaded()
    figures: tuple[Metrics, ...] = ()
    if folds:
        converged: list[bool | None] = []

        def fold_done(fitted: Any) -> None:
            converged.append(fitted.fit_facts().converged)
            bar.update(1)

        with _silenced(), progress.bar("folds", folds, "folds") as bar:
            figures = cross_validate(
                head, training.X, training.y, training.keys, training.groups, classes,
                count=folds, seed=seed, views=training.views, done=fold_done,
            )  # fmt: skip
        if (short := converged.count(False)) > 0:
            on_message(
                f"the fits of {short} of {folds} folds did not converge, so their figures may be too low"
            )
    watched = (
        validating.where(np.isin(validating.y.astype(str), np.array(classes)))
        if len(validating)
        else validating
    )
    validation = (watched.X, watched.y.astype(str)) if len(watched) else None
    # A head without epochs (logistic) never moves this bar, which is then not worth drawing.
    epochs = getattr(head, "epochs", None)
    if epochs is None:
        _fit(head, training, validation_data=validation)
    else:
        with progress.bar("train", epochs, "epochs") as bar:

            def epoch_done(facts: dict[str, float]) -> None:
                bar.update(1)
                bar.note(epoch_note(facts))

            _fit(head, training, validation_data=validation, on_epoch=epoch_done)
    # A head of someone else's need not know.
    if left_out := getattr(head, "left_out_", None):
        on_message(left_out_text(left_out))
    if why is not None:
        head.why_ = why  # the head was given an array; it is of stored rows
    return head, measure_splits(head, rows, splits, classes), figures


@contextmanager
def _silenced() -> Iterator[None]:
    """Silence the warnings that `on_message` hears instead."""
    with warnings.catch_warnings():
        for category in (ConvergenceWarning, LeftOutWarning):
            warnings.simplefilter("ignore", category)
        yield


def _fit(head: Any, training: Features, **watching: Any) -> None:
    labels = training.y.astype(str)
    with _silenced():
        if training.views is None:
            head.fit(training.X, labels, **watching)
        else:
            fit_views(head, training.views, labels, **watching)


def measure_splits(
    head: Any, rows: Features, splits: np.ndarray, classes: tuple[str, ...], *, average_views: bool = False
) -> dict[str, Metrics]:
    """Measure each split that has rows.

    Their order is train, validation, test, others.

    Of the images as they are, or of the mean of the probabilities over their views.
    """
    order = {"train": 0, "validation": 1, "test": 2}
    figures = {}
    for name in sorted({str(s) for s in splits if s is not None}, key=lambda s: (order.get(s, 3), s)):
        part = rows.where(splits == name)
        if average_views and part.views is not None:
            figures[name] = measure_head(head, part.views.flat, part.y, classes, part.views.count)
        else:
            figures[name] = measure_head(head, part.X, part.y, classes)
    return figures
