"""Figures of a classifier, against scikit-learn's and against counting by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from bottleneck.evaluation.metrics import fallen, measure_probabilities, wilson

CLASSES = ("a", "b", "c")


def predictions(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    labels = np.array(CLASSES)[draw.integers(0, 3, n)]
    return labels, draw.dirichlet([0.4] * 3, n).astype(np.float32)


@given(n=st.integers(1, 60), seed=st.integers(0, 10**6))
def test_figures_are_those_of_scikit_learn(n: int, seed: int) -> None:
    labels, chances = predictions(n, seed)
    found = measure_probabilities(labels, chances, CLASSES)
    said = np.array(CLASSES)[chances.argmax(axis=1)]
    assert found.images == n
    assert found.accuracy == pytest.approx(sk.accuracy_score(labels, said))
    rows = chances / chances.sum(axis=1, keepdims=True)
    assert found.log_loss == pytest.approx(sk.log_loss(labels, rows, labels=CLASSES), rel=1e-4, abs=1e-6)
    matrix = sk.confusion_matrix(labels, said, labels=CLASSES)
    assert np.array_equal(found.confusion, matrix)
    there = matrix.sum(axis=1) > 0
    recall = sk.recall_score(labels, said, labels=CLASSES, average=None, zero_division=0)
    precision = sk.precision_score(labels, said, labels=CLASSES, average=None, zero_division=0)
    assert found.balanced_accuracy == pytest.approx(recall[there].mean())
    assert found.chance == pytest.approx(matrix.sum(axis=1).max() / n)
    for column, one in enumerate(found.classes):
        assert (one.name, one.images) == (CLASSES[column], matrix[column].sum())
        assert one.recall == (pytest.approx(recall[column]) if there[column] else None)
        assert one.precision == (pytest.approx(precision[column]) if matrix[:, column].sum() else None)


def test_a_class_that_the_head_does_not_know_counts_as_wrong() -> None:
    found = measure_probabilities(["a", "yak"], np.array([[0.9, 0.1], [0.6, 0.4]]), ("a", "b"))
    assert (found.images, found.accuracy) == (2, 0.5)
    assert found.confusion == ((1, 0), (0, 0))
    assert found.log_loss > 5  # no chance at all was given to what it was


def test_a_certain_mistake_costs_much_and_not_infinitely() -> None:
    found = measure_probabilities(["a"], np.array([[0.0, 1.0]], np.float32), ("a", "b"))
    assert found.log_loss == pytest.approx(-math.log(np.finfo(np.float32).eps))


@given(total=st.integers(1, 2000), share=st.floats(0, 1))
def test_the_interval_holds_the_share_and_stays_within_bounds(total: int, share: float) -> None:
    correct = round(share * total)
    low, high = wilson(correct, total)
    assert 0 <= low <= correct / total + 1e-12
    assert correct / total - 1e-12 <= high <= 1
    wide = wilson(4 * correct, 4 * total)
    assert wide[1] - wide[0] < high - low
    mirrored = wilson(total - correct, total)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high))


def test_the_interval_is_wilsons() -> None:
    # Newcombe (1998), table I: 81 of 263, and 15 of 148, at 95 %.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 0) == (0.0, 1.0)


@given(st.lists(st.booleans(), min_size=1, max_size=9), st.data())
def test_an_accuracy_that_fell_is_said_but_never_that_of_training(
    right: list[bool], data: st.DataObject
) -> None:
    before = data.draw(st.lists(st.booleans(), min_size=len(right), max_size=len(right)))
    then, now = (
        measure_probabilities(
            ["a"] * len(one), np.array([[0.9, 0.1] if ok else [0.1, 0.9] for ok in one]), ("a", "b")
        )
        for one in (before, right)
    )
    fell = fallen(
        dict.fromkeys(("train", "validation", "test"), then), {"train": now, "test": now, "new": now}
    )
    assert [text.split(" fell")[0] for text in fell] == ["accuracy on test"] * (sum(right) < sum(before))
