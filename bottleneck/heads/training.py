"""Fitting a head on the training rows and measuring it on the others."""

from __future__ import annotations

from typing import Any

import numpy as np

from bottleneck.heads.folds import cross_validate, spread_columns
from bottleneck.heads.metrics import Metrics, measure
from bottleneck.progress import Progress
from bottleneck.store.join import Features


def fit_and_measure(
    head: Any,
    rows: Features,
    splits: np.ndarray,
    classes: tuple[str, ...],
    *,
    folds: int | None,
    seed: int,
    progress: Progress,
) -> tuple[Any, dict[str, Metrics], tuple[Metrics, ...]]:
    """Fit on ``train``, with ``validation`` for early stopping, and measure every split.

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

    Returns
    -------
    head, dict of str to Metrics, tuple of Metrics
        The fitted head, figures by split, figures by fold.
    """
    training = rows.where(splits == "train")
    held = rows.where(splits == "validation")
    figures: tuple[Metrics, ...] = ()
    if folds:
        with progress.bar("folds", folds, "folds") as bar:
            figures = cross_validate(
                head,
                training.X,
                training.y,
                training.keys,
                training.groups,
                classes,
                count=folds,
                seed=seed,
                done=lambda: bar.update(1),
            )
    known = np.isin(held.y.astype(str), np.array(classes)) if len(held) else np.zeros(0, bool)
    validation = (held.X[known], held.y[known].astype(str)) if known.any() else None
    # A head without epochs (logistic) never moves this bar, which is then not worth drawing.
    epochs = getattr(head, "epochs", None)
    if epochs is None:
        head.fit(training.X, training.y.astype(str), validation_data=validation)
    else:
        with progress.bar("train", epochs, "epochs") as bar:

            def epoch_done(facts: dict[str, float]) -> None:
                bar.update(1)
                bar.note(
                    " ".join(
                        f"{name}={value:.4f}"
                        for name, value in facts.items()
                        if "loss" in name or "acc" in name
                    )
                )

            head.fit(training.X, training.y.astype(str), validation_data=validation, on_epoch=epoch_done)
    return head, measure_splits(head, rows, splits, classes), figures


def measure_splits(
    head: Any, rows: Features, splits: np.ndarray, classes: tuple[str, ...]
) -> dict[str, Metrics]:
    """Figures of each split that has rows, in the order train, validation, test, others."""
    order = {"train": 0, "validation": 1, "test": 2}
    found = {}
    for name in sorted({str(s) for s in splits if s is not None}, key=lambda s: (order.get(s, 3), s)):
        part = rows.where(splits == name)
        found[name] = measure(part.y, spread_columns(head, part.X, classes), classes)
    return found
