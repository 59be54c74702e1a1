"""Features far from zero, and rows too small or too large for the weights of float32 layers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottleneck import DenseHead, LogisticHead
from bottleneck.errors import HeadError
from bottleneck.heads import persistence
from bottleneck.heads.inputs import BadRows
from bottleneck.heads.scaling import LeftOutWarning, fold, scaling_of
from bottleneck.schema import HeadSpec
from tests.heads.toy_rows import fake_rows
from tests.in_process import Call, InProcessWorker, caller

DENSE: dict[str, Any] = {"epochs": 20, "learning_rate": 0.02, "patience": None}


def split_by_one(n: int = 200, d: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Float64 rows (n, d) about zero whose first column says the label."""
    X = np.random.default_rng(1).normal(size=(n, d))
    return X, (X[:, 0] > 0).astype(int)


@pytest.mark.parametrize("off", [1e4, 1e5, 1e6])
def test_float32_rows_far_from_zero_are_learnt_as_scikit_learn_does(
    off: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    X, y = split_by_one()
    X = (X + off).astype(np.float32)
    Z = StandardScaler().fit_transform(X.astype(np.float64))
    wanted = LogisticRegression(tol=1e-8).fit(Z, y)
    head = LogisticHead().fit(X, y)
    assert head.converged_ and head.left_out_ == 0
    np.testing.assert_allclose(head.predict_proba(X), wanted.predict_proba(Z), atol=3e-3)
    spec = HeadSpec(name="logistic")
    persistence.save_head(head, spec, tmp_path, recipe="a" * 64, feature_shape=(20,), classes=[0, 1])
    assert (persistence.load_head(tmp_path)[0].logits(X) == head.logits(X)).all()
    monkeypatch.setenv("BOTTLENECK_ROWS", "0")
    streamed = LogisticHead().fit(fake_rows(X), y)
    assert streamed.rows_ == "streamed" and streamed.converged_
    np.testing.assert_allclose(streamed.predict_proba(X), head.predict_proba(X), atol=3e-3)


def test_wide_float32_rows_far_from_zero_are_learnt() -> None:
    X, y = split_by_one(60, 200)
    near, far = (LogisticHead().fit(rows, y) for rows in (X, (X + 1e6).astype(np.float32)))
    np.testing.assert_allclose(
        far.predict_proba((X + 1e6).astype(np.float32)), near.predict_proba(X), atol=0.02
    )


@pytest.mark.keras
@pytest.mark.parametrize("hidden", [(), (8,)])
def test_a_dense_head_says_of_rows_far_from_zero_what_it_learnt(hidden: tuple[int, ...]) -> None:
    X, y = split_by_one()
    near = DenseHead(hidden=hidden, **DENSE).fit(X.astype(np.float32), y)
    far = DenseHead(hidden=hidden, **DENSE).fit((X + 1e6).astype(np.float32), y)
    np.testing.assert_allclose(
        far.predict_proba((X + 1e6).astype(np.float32)), near.predict_proba(X), atol=0.06
    )


@pytest.mark.keras
def test_a_dense_head_loses_on_far_rows_what_its_training_lost() -> None:
    """Had another rounding of the mean been folded than was subtracted, every row would be shifted."""
    X, y = split_by_one()
    X = (1.5 * X + 1.2e6).astype(np.float32)
    head = DenseHead(hidden=(), epochs=20, learning_rate=0.1).fit(
        X[:150], y[:150], validation_data=(X[150:], y[150:])
    )
    own = head.predict_proba(X[150:])[np.arange(50), y[150:]]
    assert -np.log(own).mean() == pytest.approx(head.history_[head.best_epoch_ - 1]["val_loss"], rel=1e-4)


def test_the_layers_of_a_moderately_far_head_agree_with_it() -> None:
    """What Dense does in float32, in the plainest order."""
    X, y = split_by_one()
    X = (X + 1e4).astype(np.float32)
    head = LogisticHead().fit(X, y)
    assert head.rest_ is None
    np.testing.assert_allclose(X @ head.arrays_["kernel"] + head.arrays_["bias"], head.logits(X), atol=0.05)


def test_features_that_are_nearly_rounding_do_not_make_the_median() -> None:
    """Columns that move by 3e-6 of their size, as between two machines, beside fewer that say something."""
    random = np.random.default_rng(0)
    said, moved = random.normal(size=(100, 2)), 50 + 1.5e-4 * random.normal(size=(100, 7))
    X = np.concatenate([said, moved], axis=1).astype(np.float32)
    _, inverse = scaling_of(X, divide=True).pair
    assert (inverse[2:] > 0).all() and inverse[2:].max() < 20
    assert inverse[:2] == pytest.approx(1 / X[:, :2].astype(np.float64).std(axis=0))


@pytest.mark.parametrize("streamed", [False, True])
def test_features_left_out_though_they_vary_are_told(streamed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = split_by_one()
    X[:, 3:5] += 1e7
    X[:, 6] = 7.1  # constant: nothing is lost
    X = X.astype(np.float32)
    if streamed:
        monkeypatch.setenv("BOTTLENECK_ROWS", "0")
    with pytest.warns(LeftOutWarning, match="2 features vary, but only by a few steps") as told:
        head = LogisticHead().fit(fake_rows(X) if streamed else X, y)
    assert [warning.filename for warning in told] == [__file__]
    assert head.left_out_ == 2 and (head.coef_[:, [3, 4, 6]] == 0).all()


@pytest.mark.keras
def test_a_dense_head_tells_of_features_left_out() -> None:
    X, y = split_by_one()
    X[:, 3] += 1e7
    with pytest.warns(LeftOutWarning, match="1 feature varies") as told:
        head = DenseHead(epochs=1).fit(X.astype(np.float32), y)
    assert [warning.filename for warning in told] == [__file__] and head.left_out_ == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1e-38, 1e-39, 1e-42])
def test_rows_that_float32_cannot_be_divided_by_are_refused(size: float, dtype: Any) -> None:
    X, y = split_by_one()
    X = (X * size).astype(dtype)
    for head in (LogisticHead(), DenseHead(epochs=1, patience=None)):
        with pytest.raises(BadRows, match=r"columns \[0, 1, 2, 3, 4\] vary by .*; scale the rows"):
            head.fit(X, y)


def test_float64_rows_too_large_for_float32_weights_are_refused() -> None:
    X, y = split_by_one()
    with pytest.raises(BadRows, match="scale the rows"):
        LogisticHead().fit(X * 1e60, y)


def test_a_faint_feature_beside_others_is_none_of_that() -> None:
    X, y = split_by_one()
    X[:, 1] *= 1e-40
    assert LogisticHead().fit(X.astype(np.float32), y).score(X, y) > 0.95


def test_weights_beyond_float32_are_refused_by_their_columns() -> None:
    mean, inverse = np.zeros(3), np.array([1.0, 5e37, 1.0])
    with pytest.raises(BadRows, match=r"columns \[1\] vary by so little \(2e-38\)"):
        fold(np.full((3, 2), 10.0), np.zeros(2), mean, inverse)
    with pytest.raises(HeadError, match="no finite numbers"):
        fold(np.full((3, 2), np.nan), np.zeros(2), mean, inverse)


class TestTheCommandLine:
    """What `train` says, with bases that give such features."""

    @pytest.fixture
    def call(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
    ) -> Call:
        monkeypatch.setattr("bottleneck.extraction.run.ExtractionRun.worker_type", InProcessWorker)
        monkeypatch.setenv("BOTTLENECK_CACHE", str(tmp_path / "cache"))
        return caller(capfdbinary)

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        from tests.fakes import write_images

        return write_images(tmp_path / "in", {"cat": 25, "dog": 25})

    def test_features_left_out_are_advice(self, call: Call, source: Path, tmp_path: Path) -> None:
        given = ("--base", "tests.fakes:far_base", "--run", tmp_path / "run", "--folds", 2, "--json")
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always", LeftOutWarning)
            said = call("train", source, *given)
        assert said.status == 0 and not [w for w in warned if w.category is LeftOutWarning]
        (told,) = (text for text in said.json["advice"] if "count as constant" in text)
        assert "features vary, but only by a few steps of rounding" in told and said.err.count(told) == 1

    def test_features_too_faint_are_an_error(self, call: Call, source: Path, tmp_path: Path) -> None:
        said = call("train", source, "--base", "tests.fakes:faint_base", "--run", tmp_path / "run")
        assert said.status == HeadError.exit_status and "Traceback" not in said.err
        assert "expected a deviation from" in said.err and "scale the rows" in said.err
