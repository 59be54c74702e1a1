"""Cross-validation: copies and groups stay together, and no head sees another fold's images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, ClassifierMixin

from bottleneck.errors import UsageError
from bottleneck.evaluation.cross_validation import cross_validate, split_folds, spread_columns
from bottleneck.heads.logistic import LogisticHead
from tests.heads.toy_rows import clusters


def keys_of(contents: np.ndarray) -> np.ndarray:
    return np.stack([np.frombuffer(int(c).to_bytes(32, "big"), np.uint8) for c in contents])


def nobody(n: int) -> np.ndarray:
    return np.full(n, None, object)


@st.composite
def tables(draw: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, contents (with copies) and groups (some without; groups may share a content)."""
    n = draw(st.integers(30, 60))
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    contents = random.integers(0, n - draw(st.integers(0, 8)), n)
    groups = np.array(
        [f"g{random.integers(0, n)}" if random.random() < 0.4 else None for _ in range(n)], object
    )
    return np.array(["a", "b"])[np.arange(n) % 2], contents, groups


@given(tables(), st.integers(2, 4))
def test_copies_and_groups_never_straddle_and_each_row_is_held_out_once(
    table: tuple[np.ndarray, np.ndarray, np.ndarray], count: int
) -> None:
    labels, contents, groups = table
    held_out: list[int] = []
    try:
        parts = list(split_folds(labels, keys_of(contents), groups, count, 0))
    except UsageError:
        return  # too few units of a class: see below
    for train, held in parts:
        assert sorted([*train, *held]) == list(range(len(labels)))
        assert not set(contents[train]) & set(contents[held])
        assert not {g for g in groups[train] if g is not None} & {g for g in groups[held] if g is not None}
        held_out += held.tolist()
    assert len(parts) == count
    assert sorted(held_out) == list(range(len(labels)))


def test_groups_that_share_a_copy_are_one() -> None:
    """a has a copy in b, b one in c: learning from any of them is learning from all."""
    contents = np.array([0, 1, 1, 2, 2, 3, *range(10, 30)])
    groups = np.array(["a", "a", "b", "b", "c", "c", *[None] * 20], object)
    labels = np.array(["x", "y"])[np.arange(26) % 2]
    for seed in range(5):
        for _, held in split_folds(labels, keys_of(contents), groups, 3, seed):
            assert len({row < 6 and row in held for row in range(6)}) == 1


def test_folds_are_stratified_and_follow_the_seed_not_the_order() -> None:
    labels = np.array(["a"] * 40 + ["b"] * 20)
    keys = keys_of(np.arange(60))

    def held(seed: int, order: np.ndarray) -> list[set[int]]:
        parts = split_folds(labels[order], keys[order], nobody(60), 4, seed)
        return [set(order[h].tolist()) for _, h in parts]

    straight = held(0, np.arange(60))
    for part in straight:
        assert sum(labels[row] == "b" for row in part) == 5
    assert straight == held(0, np.arange(60))
    assert straight != held(1, np.arange(60))


def test_a_class_with_too_few_images_is_named_with_its_count() -> None:
    labels = np.array(["a"] * 9 + ["b, or not"] * 3)
    contents = np.array([*range(9), 20, 20, 21])
    with pytest.raises(UsageError, match=r"--folds 3 .*'b, or not' has 2.*fewer folds"):
        next(split_folds(labels, keys_of(contents), nobody(12), 3, 0))


class Remembers(ClassifierMixin, BaseEstimator):
    """Knows what it saw by heart, and says of everything else that it is the first class."""

    fitted: list[Remembers] = []  # noqa: RUF012 - one list for all of them is the point

    def fit(self, X: np.ndarray, y: np.ndarray) -> Remembers:
        assert not hasattr(self, "seen_"), "not a fresh head"
        self.seen_ = {row.tobytes(): label for row, label in zip(X, y, strict=True)}
        self.classes_ = np.unique(y)
        self.fitted.append(self)
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        said = [self.seen_.get(row.tobytes(), self.classes_[0]) for row in X]
        return (np.array(said)[:, None] == self.classes_).astype(np.float32)


def test_every_fold_has_a_fresh_head_that_never_saw_what_it_is_judged_by() -> None:
    X, labels = clusters(60, (12,), 3)
    Remembers.fitted.clear()
    head = Remembers()
    done: list[Remembers] = []
    found = cross_validate(
        head,
        X,
        labels,
        keys_of(np.arange(60)),
        nobody(60),
        ("class a", "class b", "class c"),
        count=4,
        seed=0,
        done=done.append,
    )
    assert len(found) == len(done) == len({id(h) for h in Remembers.fitted}) == 4
    assert not hasattr(head, "seen_")
    # By heart is worth nothing on rows that were never seen: a leak of any kind would lift this.
    assert all(m.accuracy == m.confusion[0][0] / m.images for m in found)
    assert sum(m.images for m in found) == 60


def test_copies_in_several_rows_do_not_leak_into_the_figures() -> None:
    X, labels = clusters(40, (12,), 2)
    twice = np.repeat(np.arange(40), 3)
    found = cross_validate(
        Remembers(),
        X[twice],
        labels[twice],
        keys_of(twice),
        nobody(120),
        ("class a", "class b"),
        count=4,
        seed=1,
    )
    assert all(m.classes[1].recall == 0 for m in found)


def test_a_class_that_a_fold_never_saw_has_a_column_of_zeros() -> None:
    X, labels = clusters(40, (12,), 2)
    head = LogisticHead().fit(X, labels)
    wide = spread_columns(head, X, ("class Z", "class a", "class aa", "class b"))
    np.testing.assert_array_equal(wide[:, [1, 3]], head.predict_proba(X))
    assert not wide[:, [0, 2]].any()
