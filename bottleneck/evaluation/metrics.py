"""Measure a classifier, with the uncertainty of few images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from bottleneck.schema import Frozen


class ClassMetrics(Frozen):
    """One class: how many images, and how they were taken."""

    name: str
    images: int
    recall: float | None
    precision: float | None


class Metrics(Frozen):
    """Figures of one split.

    `interval` is the Wilson 95 % interval of the accuracy; `chance` the accuracy of always saying the most
    frequent class of this split.
    """

    images: int
    accuracy: float
    interval: tuple[float, float]
    log_loss: float
    balanced_accuracy: float
    chance: float
    classes: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]


def absent(metrics: Mapping[str, Metrics]) -> dict[str, int]:
    """Count the classes without an image, by split but training.

    Examples
    --------
    >>> import numpy as np
    >>> some = measure_probabilities(["a"], np.array([[0.9, 0.1]]), ("a", "b"))
    >>> absent({"train": some, "validation": some})
    {'validation': 1}
    """
    counts = {
        name: sum(not one.images for one in m.classes) for name, m in metrics.items() if name != "train"
    }
    return {name: count for name, count in counts.items() if count}


def wilson(correct: int, total: int) -> tuple[float, float]:
    """Compute the 95 % interval of a proportion (Wilson, 1927).

    It stays in 0..1 also for few images.

    Examples
    --------
    >>> [round(x, 3) for x in wilson(9, 10)]
    [0.596, 0.982]
    """
    if not total:
        return 0.0, 1.0
    z = 1.959963984540054
    p, n = correct / total, total
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def measure_probabilities(labels: Any, probabilities: np.ndarray, classes: tuple[str, ...]) -> Metrics:
    """Figures from true labels and predicted probabilities.

    Parameters
    ----------
    labels : array-like of str
        (n,), n >= 1. A label that is none of `classes` counts as wrong.
    probabilities : numpy.ndarray
        (n, k), columns in the order of `classes`.
    classes : tuple of str

    Returns
    -------
    Metrics

    Examples
    --------
    >>> m = measure_probabilities(["a", "b", "b"], np.array([[.9, .1], [.2, .8], [.6, .4]]), ("a", "b"))
    >>> round(m.accuracy, 3), m.confusion
    (0.667, ((1, 0), (1, 1)))
    """
    column_of = {name: column for column, name in enumerate(classes)}
    truth = np.array([column_of.get(label, -1) for label in labels])
    known = truth >= 0
    true_probability = np.zeros(len(truth))
    true_probability[known] = probabilities[known, truth[known]]
    return measure_predictions(truth, probabilities.argmax(axis=1), true_probability, classes)


def measure_predictions(
    truth: np.ndarray, predicted: np.ndarray, true_probability: np.ndarray, classes: tuple[str, ...]
) -> Metrics:
    """Compute figures from true and predicted codes (n,).

    `true_probability` (n,) is what each image's true class was given.

    A code of -1 is a label that is none of `classes`: it counts as wrong, with probability 0.
    """
    known = truth >= 0
    correct = int((truth == predicted).sum())
    confusion = np.zeros((len(classes), len(classes)), int)
    np.add.at(confusion, (truth[known], predicted[known]), 1)
    images, right, taken = confusion.sum(axis=1), confusion.diagonal(), confusion.sum(axis=0)
    recalls = right[images > 0] / images[images > 0]
    return Metrics(
        images=len(truth),
        accuracy=correct / len(truth),
        interval=wilson(correct, len(truth)),
        # Clipped as scikit-learn does for float32.
        log_loss=float(-np.log(np.clip(true_probability, np.finfo(np.float32).eps, 1)).mean()),
        balanced_accuracy=float(recalls.mean()) if len(recalls) else 0.0,
        chance=float(images.max(initial=0) / len(truth)),
        classes=tuple(
            ClassMetrics(
                name=name,
                images=int(images[k]),
                recall=float(right[k] / images[k]) if images[k] else None,
                precision=float(right[k] / taken[k]) if taken[k] else None,
            )
            for k, name in enumerate(classes)
        ),
        confusion=tuple(tuple(int(v) for v in line) for line in confusion),
    )


def fallen(before: Mapping[str, Metrics], after: Mapping[str, Metrics]) -> tuple[str, ...]:
    """Say which accuracies got lower on images that nothing was learnt from.

    Examples
    --------
    >>> import numpy as np
    >>> right, wrong = (measure_probabilities(["a"], np.array([[p, 1 - p]]), ("a", "b")) for p in (0.9, 0.1))
    >>> fallen({"train": right, "test": right}, {"train": wrong, "test": wrong})
    ('accuracy on test fell from 1.0000 to 0.0000',)
    """
    return tuple(
        f"accuracy on {name} fell from {before[name].accuracy:.4f} to {now.accuracy:.4f}"
        for name, now in after.items()
        if name != "train" and name in before and now.accuracy < before[name].accuracy
    )
