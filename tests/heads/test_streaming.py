"""Heads on rows that stay on disk: what they learn is what they learn from rows in memory, or close to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone

from bottleneck.errors import DamagedShard
from bottleneck.evaluation import fit
from bottleneck.evaluation.cross_validation import cross_validate, measure_head
from bottleneck.heads.dense import DenseHead
from bottleneck.heads.inputs import BadRows
from bottleneck.heads.logistic import LogisticHead
from bottleneck.store.rows import Rows
from bottleneck.system.progress import Silent
from tests.evaluation.test_fit import rows as features
from tests.heads.toy_rows import clusters, objective
from tests.store.known_rows import as_rows


def on_disk(tmp_path: Path, array: np.ndarray, task_rows: int = 50) -> Rows:
    return as_rows(tmp_path / "cache", array, task_rows=task_rows)


@pytest.fixture
def streaming(monkeypatch: pytest.MonkeyPatch) -> None:
    """No rows are loaded."""
    monkeypatch.setenv("BOTTLENECK_ROWS", "0")


def noisy(n: int, d: int, classes: int, share: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping classes in features of very unequal spread, `share` of the labels drawn anew."""
    draw = np.random.default_rng(seed)
    turn = np.linalg.qr(np.random.default_rng(7).normal(size=(d, d)))[0]
    centres = np.random.default_rng(8).normal(size=(classes, d)) * 0.5
    codes = draw.integers(0, classes, n)
    spread = np.sqrt(1.0 / np.arange(1, d + 1))
    X = ((draw.normal(size=(n, d)) + centres[codes]) * spread) @ turn * np.sqrt(d)
    labels = np.where(draw.random(n) < share, draw.integers(0, classes, n), codes)
    return X.astype(np.float32), np.array([f"class {c}" for c in range(classes)])[labels]


@pytest.mark.usefixtures("streaming")
@pytest.mark.parametrize(("classes", "share"), [(10, 0.2), (2, 0.1), (3, 0.0)], ids=["10", "2", "separable"])
def test_the_streamed_logistic_head_comes_to_the_exact_optimum(
    tmp_path: Path, classes: int, share: float
) -> None:
    X, y = noisy(4000, 96, classes, share)
    rows = on_disk(tmp_path, X, task_rows=600)
    held, truth = noisy(2000, 96, classes, share, seed=1)
    exact = LogisticHead(tol=1e-8).fit(X, y)
    streamed = LogisticHead().fit(rows, y)
    assert (streamed.rows_, exact.rows_) == ("streamed", "in memory")
    assert streamed.converged_ and streamed.passes_ < 60
    least, found = objective(exact, X, y), objective(streamed, X, y)
    assert least * (1 - 1e-6) <= found <= least * (1 + 1e-5)
    assert abs((exact.predict(held) == truth).mean() - (streamed.predict(held) == truth).mean()) <= 0.002


@pytest.mark.usefixtures("streaming")
def test_the_streamed_fit_keeps_to_penalty_class_weights_and_scaling(tmp_path: Path) -> None:
    X, y = noisy(3000, 40, 3, 0.3)
    X = np.concatenate([X, np.full((3000, 1), 7, np.float32)], axis=1)  # a constant feature
    keep = (y != "class 2") | (np.arange(3000) % 8 == 0)
    X, y = X[keep], y[keep]
    rows = on_disk(tmp_path, X, task_rows=500)
    for settings in ({"C": 1e-3}, {"class_weight": "balanced"}, {"standardize": False}):
        exact = LogisticHead(**settings).fit(X, y)
        streamed = LogisticHead(**settings).fit(rows, y)
        np.testing.assert_allclose(exact.predict_proba(X), streamed.predict_proba(rows), atol=3e-3)
        plain = LogisticHead().fit(X, y)
        assert np.abs(exact.coef_[:, :-1] - plain.coef_[:, :-1]).max() > 1e-3 or "standardize" in settings
    assert (streamed.coef_[:, -1] == 0).all()


@pytest.mark.usefixtures("streaming")
def test_a_streamed_fit_is_the_same_again_whatever_the_shards(tmp_path: Path) -> None:
    X, y = clusters(300, (3, 5), 3)
    rows = as_rows(tmp_path / "a", X, task_rows=17)
    first, again = LogisticHead().fit(rows, y), LogisticHead().fit(rows, y)
    np.testing.assert_array_equal(first.coef_, again.coef_)
    # Rows are read as they lie, so that sums round otherwise where they lie otherwise.
    second = LogisticHead().fit(as_rows(tmp_path / "b", X, task_rows=100), y)
    np.testing.assert_allclose(first.coef_, second.coef_, rtol=1e-4, atol=1e-7)
    assert first.feature_shape_ == (3, 5) and first.n_features_in_ == 15


def test_rows_that_are_loaded_give_what_the_array_gives(tmp_path: Path) -> None:
    from sklearn.model_selection import GridSearchCV
    from sklearn.model_selection import cross_validate as folds_of_sklearn

    X, y = clusters(150, (12,), 3)
    rows = on_disk(tmp_path, X)
    grid = {"C": [1e-3, 1.0]}
    inside, stored = (
        GridSearchCV(LogisticHead(), grid, cv=3, error_score="raise").fit(x, y) for x in (X, rows)
    )
    np.testing.assert_array_equal(
        inside.cv_results_["mean_test_score"], stored.cv_results_["mean_test_score"]
    )
    np.testing.assert_array_equal(inside.best_estimator_.coef_, stored.best_estimator_.coef_)
    assert stored.best_estimator_.rows_ == "in memory" and "are loaded" in stored.best_estimator_.why_
    first, second = (folds_of_sklearn(LogisticHead(), x, y, cv=3)["test_score"] for x in (X, rows))
    np.testing.assert_array_equal(first, second)


@pytest.mark.keras
@pytest.mark.usefixtures("streaming")
@pytest.mark.parametrize("held_out", [False, True])
def test_the_streamed_dense_head_learns_what_the_one_in_memory_does(tmp_path: Path, held_out: bool) -> None:
    X, y = clusters(203, (12,), 3)
    settings: dict[str, Any] = {"hidden": (8,), "epochs": 4, "batch_size": 16, "batch_norm": True}
    if not held_out:
        settings["patience"] = None
    inside = DenseHead(**settings).fit(X, y)
    streamed = DenseHead(**settings).fit(on_disk(tmp_path, X), y)
    assert len(streamed.history_) == 4 and ("val_loss" in streamed.history_[0]) is held_out
    for ours, theirs in zip(streamed.history_, inside.history_, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    for name, array in inside.arrays_.items():
        np.testing.assert_allclose(streamed.arrays_[name], array, rtol=1e-3, atol=1e-4)


@pytest.mark.keras
def test_pieces_change_no_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bottleneck.heads import dense_training

    monkeypatch.setenv("BOTTLENECK_ROWS", "0")
    X, y = clusters(203, (12,), 3)
    rows = on_disk(tmp_path, X)
    head = DenseHead(hidden=(8,), epochs=2, batch_size=16, patience=None)
    whole = clone(head).fit(rows, y)
    monkeypatch.setattr(dense_training, "gather_rows", lambda _, batch: 3 * batch)
    pieces = clone(head).fit(rows, y)
    for name, array in whole.arrays_.items():
        np.testing.assert_allclose(pieces.arrays_[name], array, rtol=1e-4, atol=1e-5)
    assert pieces.history_[-1] == pytest.approx(whole.history_[-1], rel=1e-4)


@pytest.mark.parametrize("kind", [LogisticHead, pytest.param(DenseHead, marks=pytest.mark.keras)])
def test_a_head_answers_alike_for_rows_on_disk_and_in_memory(tmp_path: Path, kind: Any) -> None:
    X, y = clusters(120, (3, 4), 3)
    head = kind().fit(X, y)
    rows = on_disk(tmp_path, X)
    for ask in ("logits", "predict_proba", "predict"):
        np.testing.assert_array_equal(getattr(head, ask)(rows), getattr(head, ask)(X))
    with pytest.raises(BadRows, match="shape"):
        head.predict(rows.flat)


def test_rows_that_cannot_be_learnt_from_are_refused(tmp_path: Path) -> None:
    X, y = clusters(30, (6,), 3)
    rows = on_disk(tmp_path, X)
    with pytest.raises(BadRows, match="inconsistent numbers"):
        LogisticHead().fit(rows, y[:-1])
    with pytest.raises(BadRows, match="at least 2 classes"):
        LogisticHead().fit(rows, np.full(30, "a"))
    with pytest.raises(BadRows, match="y"):
        LogisticHead().fit(rows, None)
    with pytest.raises(BadRows, match="0 rows"):
        LogisticHead().fit(rows.select([]), [])


def test_damage_is_found_while_training(tmp_path: Path) -> None:
    X, y = clusters(60, (1200,), 3)
    rows = on_disk(tmp_path, X, task_rows=60)
    path = next(tmp_path.rglob("*.h5"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(DamagedShard, match="rows 0 to"):
        LogisticHead().fit(rows, y)


def test_measuring_by_pieces_is_measuring_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bottleneck.evaluation import cross_validation

    X, y = clusters(100, (6,), 3)
    y[:5] = "yak"
    head = LogisticHead().fit(X[5:], y[5:])
    classes = tuple(head.classes_.tolist())
    at_once = measure_head(head, X, y, classes)
    monkeypatch.setattr(cross_validation, "_CELLS", 7 * len(classes))
    assert measure_head(head, on_disk(tmp_path, X), y, classes) == at_once
    assert at_once.images == 100 and at_once.accuracy < 0.95


def test_a_run_on_rows_that_do_not_fit_streams_them_and_one_that_fits_loads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    table = features()
    lazy = replace(table, X=on_disk(tmp_path, table.X))
    splits = np.array(["train"] * 60 + ["validation"] * 30, object)

    def fitted(memory: str) -> Any:
        monkeypatch.setenv("BOTTLENECK_ROWS", memory)
        return fit.fit_and_measure(
            LogisticHead(), lazy, splits, table.classes, folds=None, seed=0, progress=Silent()
        )

    first, loaded, _ = fitted("1G")
    second, streamed, _ = fitted("0")
    assert (first.rows_, second.rows_) == ("in memory", "streamed")
    _, inside, _ = fit.fit_and_measure(
        LogisticHead(), table, splits, table.classes, folds=None, seed=0, progress=Silent()
    )
    assert loaded == inside
    assert streamed["validation"].accuracy == inside["validation"].accuracy
    assert streamed["validation"].log_loss == pytest.approx(inside["validation"].log_loss, rel=1e-2)


def test_folds_over_rows_on_disk_are_those_over_an_array(tmp_path: Path) -> None:
    table = features()
    given = (table.y, table.keys, table.groups, table.classes)
    inside = cross_validate(LogisticHead(), table.X, *given, count=3, seed=0)
    assert cross_validate(LogisticHead(), on_disk(tmp_path, table.X), *given, count=3, seed=0) == inside
