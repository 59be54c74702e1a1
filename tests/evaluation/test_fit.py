"""Fitting on the training rows and measuring the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bottleneck.evaluation.fit import fit_and_measure, measure_splits
from bottleneck.heads.logistic import LogisticHead
from bottleneck.store.join import Features
from bottleneck.system.progress import Silent
from tests.fakes import FakeForward
from tests.heads.toy_rows import clusters


def rows(n: int = 90, strange: slice = slice(0)) -> Features:
    X, y = clusters(n, (12,), 3)
    classes = tuple(sorted(set(y)))
    y[strange] = "yak"
    nothing = pa.nulls(n, pa.string())
    paths = pa.array([b"%d" % i for i in range(n)], pa.binary())
    return Features(
        X=X,
        keys=np.random.default_rng(0).integers(0, 256, (n, 32)).astype(np.uint8),
        table=pa.table({"path": paths, "label": pa.array(y), "group": nothing, "split": nothing}),
        classes=classes,
        spec=FakeForward().spec,
    )


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the head was fitted on."""
    noted: dict[str, Any] = {}
    fit = LogisticHead.fit

    def spy(self: LogisticHead, X: Any, y: Any, validation_data: Any = None, **more: Any) -> Any:
        noted.update(X=X.copy(), validation=validation_data)
        return fit(self, X, y, validation_data=validation_data, **more)

    monkeypatch.setattr(LogisticHead, "fit", spy)
    return noted


def test_a_head_is_fitted_on_the_training_rows_alone(seen: dict[str, Any]) -> None:
    table = rows()
    splits = np.array(["train", "validation", "test"], object)[np.arange(90) // 3 % 3]
    _, figures, folds = fit_and_measure(
        LogisticHead(), table, splits, table.classes, folds=None, seed=0, progress=Silent()
    )
    np.testing.assert_array_equal(seen["X"], table.X[splits == "train"])
    np.testing.assert_array_equal(seen["validation"][0], table.X[splits == "validation"])
    assert list(figures) == ["train", "validation", "test"]
    assert {name: m.images for name, m in figures.items()} == dict.fromkeys(figures, 30)
    assert folds == ()


def test_validation_rows_of_unknown_classes_are_measured_and_not_fitted_on(seen: dict[str, Any]) -> None:
    table = rows(strange=slice(60, 65))
    splits = np.array(["train"] * 60 + ["validation"] * 30, object)
    _, figures, _ = fit_and_measure(
        LogisticHead(), table, splits, table.classes, folds=None, seed=0, progress=Silent()
    )
    assert len(seen["validation"][0]) == 25
    assert figures["validation"].images == 30
    assert figures["validation"].accuracy <= 25 / 30


def test_folds_use_the_training_rows_alone() -> None:
    table = rows()
    splits = np.array(["train"] * 60 + ["test"] * 30, object)
    _, figures, folds = fit_and_measure(
        LogisticHead(), table, splits, table.classes, folds=3, seed=0, progress=Silent()
    )
    assert [m.images for m in folds] == [20, 20, 20]
    assert list(figures) == ["train", "test"]


def test_splits_without_rows_and_rows_without_split_are_left_out() -> None:
    table = rows()
    splits = np.array(["all"] * 60 + [None] * 30, object)
    head = LogisticHead().fit(table.X, table.y.astype(str))
    found = measure_splits(head, table, splits, table.classes)
    assert {name: m.images for name, m in found.items()} == {"all": 60}
