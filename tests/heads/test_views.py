"""Heads on views: an epoch sees one of each image, C keeps its meaning, and no image is on two sides of anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottleneck.evaluation.cross_validation import cross_validate, measure_head
from bottleneck.heads.dense import DenseHead
from bottleneck.heads.dense_training import Data
from bottleneck.heads.holdout import hold_out
from bottleneck.heads.inputs import BadRows
from bottleneck.heads.logistic import LogisticHead
from bottleneck.schema import Cache, ViewPolicy
from bottleneck.store.batches import epoch_order
from bottleneck.store.commit import commit
from bottleneck.store.header import begin_store
from bottleneck.store.plan import task_id
from bottleneck.store.read import open_store
from bottleneck.store.rows import Rows
from bottleneck.store.views import ViewRows, view_keys, view_rows
from tests.fakes import base

CLASSES = ("a", "b", "c")


def blobs(
    images: int = 60, views: int = 1, *, seed: int = 0, spread: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Views (images, views, 6) around a centre each of three classes, and labels (images,)."""
    random = np.random.default_rng(seed)
    codes = np.arange(images) % 3
    centres = random.normal(size=(3, 6)) * 1.5
    rows = centres[codes] + random.normal(size=(images, 6))
    moved = rows[:, None] + spread * random.normal(size=(images, views, 6))
    moved[:, 0] = rows
    return moved.astype(np.float32), np.array(CLASSES)[codes]


def test_an_epoch_sees_one_view_of_each_image_in_the_order_of_rows_without_views() -> None:
    data = Data(np.zeros((40, 2), np.float32), np.zeros(40, np.int64), 4)
    seen = np.stack([data.order(5, epoch) for epoch in range(1, 31)])
    for epoch, order in enumerate(seen, 1):
        np.testing.assert_array_equal(order // 4, epoch_order(5, epoch, 10))
    drawn = np.stack([order[np.argsort(order // 4)] % 4 for order in seen])
    assert (np.sort(np.unique(drawn)) == np.arange(4)).all()
    assert all(len(np.unique(drawn[:, image])) > 2 for image in range(10)), "drawn anew for each image"
    assert all(len(np.unique(row)) > 1 for row in drawn), "and not one for all"
    plain = Data(data.rows, data.codes)
    np.testing.assert_array_equal(plain.order(5, 3), epoch_order(5, 3, 40))


@pytest.mark.keras
def test_equal_views_train_as_the_images_alone() -> None:
    X, y = blobs()
    settings: dict[str, Any] = {"hidden": (8,), "epochs": 4, "patience": None, "standardize": False}
    alone = DenseHead(**settings).fit(X[:, 0], y)
    views = DenseHead(**settings).fit(np.repeat(X[:, 0], 3, axis=0), np.repeat(y, 3), views=3)
    assert views.history_ == alone.history_
    for name, array in alone.arrays_.items():
        np.testing.assert_array_equal(views.arrays_[name], array)


@pytest.mark.keras
def test_different_views_are_learnt_from() -> None:
    X, y = blobs(views=4, spread=1.0)
    settings: dict[str, Any] = {"hidden": (8,), "epochs": 3, "patience": None}
    alone = DenseHead(**settings).fit(X[:, 0], y)
    views = DenseHead(**settings).fit(X.reshape(-1, 6), np.repeat(y, 4), views=4)
    assert views.history_ != alone.history_


def test_what_is_held_out_are_whole_images_watched_as_they_are() -> None:
    codes = np.repeat(np.arange(30) % 3, 4)
    rows = np.stack([np.repeat(np.arange(30), 4), np.tile(np.arange(4), 30)], axis=1).astype(np.float32)
    kept, watched = hold_out(Data(rows, codes, 4), 0.2, 3)
    assert watched is not None and (kept.views, watched.views) == (4, 1)
    assert not set(kept.rows[:, 0]) & set(watched.rows[:, 0])
    assert len(watched.rows) == 6 and (watched.rows[:, 1] == 0).all()
    assert len(kept.rows) == 96
    np.testing.assert_array_equal(kept.codes, kept.rows[:, 0].astype(int) % 3)
    np.testing.assert_array_equal(watched.codes, watched.rows[:, 0].astype(int) % 3)


@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_each_view_counts_as_a_part_of_an_image_for_a_head_without_epochs(class_weight: str | None) -> None:
    X, y = blobs(100)
    X, y = X[:80], np.where(np.arange(80) < 50, y[:80], "a")
    alone = LogisticHead(C=0.5, tol=1e-8, class_weight=class_weight).fit(X[:, 0], y)
    views = LogisticHead(C=0.5, tol=1e-8, class_weight=class_weight).fit(
        np.repeat(X[:, 0], 5, axis=0), np.repeat(y, 5), views=5
    )
    np.testing.assert_allclose(views.coef_, alone.coef_, atol=1e-4)
    unsaid = LogisticHead(C=0.5, tol=1e-8, class_weight=class_weight).fit(
        np.repeat(X[:, 0], 5, axis=0), np.repeat(y, 5)
    )
    assert np.abs(unsaid.coef_ - alone.coef_).max() > 0.05, "five times the rows is five times C"


@pytest.mark.parametrize("head", [LogisticHead(), DenseHead(hidden=())], ids=["logistic", "dense"])
@pytest.mark.parametrize(("rows", "views"), [(30, 4), (30, 0), (30, 2)])
def test_views_that_cannot_be_of_one_image_are_refused(head: Any, rows: int, views: int) -> None:
    X, y = blobs(rows)
    with pytest.raises(BadRows, match=f"views={views} of 30 rows"):
        head.fit(X[:, 0], y, views=views)


class Spy(LogisticHead):
    """Remembers which images it saw."""

    __init__ = LogisticHead.__init__
    seen: list[tuple[set[float], set[float]]] = []  # noqa: RUF012 - shared on purpose: folds are clones

    def fit(self, X: Any, y: Any, **keywords: Any) -> Spy:
        self.images_ = set(np.asarray(X)[:, 0].tolist())
        assert keywords["views"] == 3 and len(X) == 3 * len(self.images_)
        return super().fit(X, y, **keywords)

    def predict_proba(self, X: Any) -> np.ndarray:
        assert (np.asarray(X)[:, 1] == 0).all(), "measured on the image as it is"
        self.seen.append((self.images_, set(np.asarray(X)[:, 0].tolist())))
        return super().predict_proba(X)


def test_views_of_one_image_never_cross_a_fold() -> None:
    images = 30
    rows = np.zeros((images, 3, 6), np.float32)
    rows[..., 0], rows[..., 1] = np.arange(images)[:, None], np.arange(3)
    labels = np.array(CLASSES)[np.arange(images) % 3].astype(object)
    keys = np.random.default_rng(0).integers(0, 256, (images, 32)).astype(np.uint8)
    keys[6] = keys[9]  # a copy
    views = ViewRows(rows.reshape(-1, 6), 3)
    Spy.seen.clear()
    cross_validate(
        Spy(), rows[:, 0], labels, keys, np.full(images, None), CLASSES, count=5, seed=0, views=views
    )
    assert len(Spy.seen) == 5
    for learnt, held in Spy.seen:
        assert not learnt & held and len(learnt) + len(held) == images
        assert (6.0 in learnt) == (9.0 in learnt)
    assert set().union(*(held for _, held in Spy.seen)) == set(map(float, range(images)))


def test_averaging_takes_the_mean_of_the_probabilities_over_the_views() -> None:
    X, y = blobs(views=4, spread=2.5, seed=2)
    head = LogisticHead().fit(X[:, 0], y)
    by_hand = np.stack([head.predict_proba(X[:, k]) for k in range(4)]).mean(axis=0)
    measured = measure_head(head, X.reshape(-1, 6), y, CLASSES, 4)
    assert measured.accuracy == pytest.approx((np.array(CLASSES)[by_hand.argmax(axis=1)] == y).mean())
    own = by_hand[np.arange(60), [CLASSES.index(label) for label in y]]
    assert measured.log_loss == pytest.approx(-np.log(own).mean(), rel=1e-4)
    assert measure_head(head, X[:, 0], y, CLASSES).log_loss != pytest.approx(measured.log_loss, rel=1e-4)


@pytest.fixture
def stored(tmp_path: Path) -> tuple[ViewRows, np.ndarray]:
    """Views (60, 4, 6) in two stores, and labels."""
    X, y = blobs(views=4, spread=1.0)
    cache, spec = Cache(tmp_path), base().spec
    policy = spec.model_copy(update={"views": ViewPolicy.parse("rotation=0.1")})
    keys = np.random.default_rng(1).integers(0, 256, (60, 32)).astype(np.uint8)
    parts = [(spec, keys, X[:, 0])]
    made, rows = view_keys(keys, 1, 4), X[:, 1:].reshape(-1, 6)
    parts += [(policy, made[i : i + 50], rows[i : i + 50]) for i in range(0, 180, 50)]
    for of, some, values in parts:
        folder, _ = begin_store(cache, of, 4)
        commit(
            folder / "shards",
            task_id(some),
            of,
            np.ascontiguousarray(some),
            np.ascontiguousarray(values),
            rejected=[],
            environment={},
            canary="0" * 64,
        )
    return view_rows(open_store(cache, spec), open_store(cache, policy), keys, 4), y


@pytest.mark.keras
def test_streamed_views_train_as_views_in_memory(stored: tuple[ViewRows, np.ndarray]) -> None:
    views, y = stored
    assert isinstance(views.flat, Rows)
    labels = np.repeat(y, 4)
    settings: dict[str, Any] = {"hidden": (8,), "epochs": 4, "batch_size": 16, "patience": 2}
    streamed = DenseHead(**settings).fit(views.flat, labels, views=4)
    loaded = DenseHead(**settings).fit(views.loaded().flat, labels, views=4)
    assert isinstance(views.loaded().flat, np.ndarray)
    for name, array in loaded.arrays_.items():
        np.testing.assert_allclose(streamed.arrays_[name], array, atol=1e-5)


def test_the_logistic_head_takes_streamed_views(stored: tuple[ViewRows, np.ndarray]) -> None:
    views, y = stored
    labels = np.repeat(y, 4)
    streamed = LogisticHead(C=0.1).fit(views.flat, labels, views=4)
    loaded = LogisticHead(C=0.1).fit(views.loaded().flat, labels, views=4)
    np.testing.assert_allclose(
        streamed.predict_proba(views.flat), loaded.predict_proba(views.flat), atol=0.02
    )
