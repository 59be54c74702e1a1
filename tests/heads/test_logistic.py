"""Logistic head: the optimum is scikit-learn's, whatever road leads to it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, log_softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from bottleneck.errors import UsageError
from bottleneck.heads import logistic
from bottleneck.heads.inputs import BadRows
from bottleneck.heads.logistic import LogisticHead
from bottleneck.heads.scaling import fold, scaling_of
from tests.heads.toy_rows import clusters

#: scikit-learn's checks that this head does not meet, and why. Empty: it meets them all.
EXPECTED_FAILURES: dict[str, str] = {}


@parametrize_with_checks([LogisticHead()], expected_failed_checks=lambda _: EXPECTED_FAILURES)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def reference(X, y, **settings):
    """Plain scikit-learn on standardised float64 rows, driven to the optimum."""
    Z = StandardScaler().fit_transform(X.reshape(len(X), -1).astype(np.float64))
    return Z, LogisticRegression(tol=1e-10, max_iter=10_000, **settings).fit(Z, y)


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("solver", ["newton-cg", "lbfgs"])
def test_probabilities_are_scikit_learns(classes, solver):
    X, y = clusters(120, (12,), classes)
    Z, plain = reference(X, y, C=0.3)
    head = LogisticHead(C=0.3, solver=solver, tol=1e-12, max_iter=5000).fit(X, y)
    np.testing.assert_allclose(head.predict_proba(X), plain.predict_proba(Z), atol=2e-5)
    assert (head.predict(X) == plain.predict(Z)).all()
    assert head.predict_proba(X).dtype == head.logits(X).dtype == np.float32
    assert head.converged_


def test_wide_rows_are_rotated_and_reach_the_same_optimum(monkeypatch):
    X, y = clusters(60, (3, 3, 40), 4)
    _, plain = reference(X, y)
    rotated = LogisticHead(tol=1e-9).fit(X, y)
    monkeypatch.setattr(logistic, "_rotation", lambda *_: pytest.fail("rotated"))
    monkeypatch.setattr(logistic, "ROTATE", 10**9)
    straight = LogisticHead(tol=1e-9).fit(X, y)
    np.testing.assert_allclose(rotated.predict_proba(X), straight.predict_proba(X), atol=1e-4)
    np.testing.assert_allclose(rotated.coef_, straight.coef_, atol=1e-4 * np.abs(plain.coef_).max())


def test_centring_alone_leaves_raw_optimum():
    X, y = clusters(150, (6,), 3)
    X = X[:, 1:] - np.array([0, 500, 0, 0, 0], np.float32)  # without what makes plain scikit-learn crawl
    plain = LogisticRegression(tol=1e-10, max_iter=10_000).fit(X.astype(np.float64), y)
    head = LogisticHead(standardize=False, tol=1e-9).fit(X, y)
    np.testing.assert_allclose(head.predict_proba(X), plain.predict_proba(X.astype(np.float64)), atol=2e-5)


def test_two_classes_give_two_logits_whose_softmax_is_the_sigmoid():
    X, y = clusters(60, (8,), 2)
    head = LogisticHead().fit(X, y)
    logits = head.logits(X)
    assert logits.shape == (60, 2)
    assert (logits[:, 0] == 0).all()
    np.testing.assert_allclose(head.predict_proba(X)[:, 1], expit(logits[:, 1]), atol=1e-6)


def test_constant_features_say_nothing_even_when_they_wake_up():
    X, y = clusters(80, (6,), 2)
    head = LogisticHead().fit(X, y)
    woken = X.copy()
    woken[:, :2] = 1e4
    assert np.isfinite(head.predict_proba(woken)).all()
    assert (head.predict_proba(woken) == head.predict_proba(X)).all()
    assert (head.coef_[:, :2] == 0).all()


def test_all_features_constant_gives_the_prior():
    X, y = np.ones((6, 4), np.float32), np.array(["a"] * 4 + ["b"] * 2)
    for wide in (X, np.ones((6, 40), np.float32)):
        head = LogisticHead().fit(wide, y)
        np.testing.assert_allclose(head.predict_proba(wide[:1]), [[2 / 3, 1 / 3]], atol=1e-3)


def test_stopping_early_is_told():
    X, y = clusters(120, (12,), 5)
    with pytest.warns(ConvergenceWarning, match="not converged after 1 iterations"):
        head = LogisticHead(max_iter=1, solver="lbfgs").fit(X, y)
    assert not head.converged_
    assert head.n_iter_ == 1
    assert LogisticHead().fit(X, y).converged_


def test_default_tolerance_reaches_the_optimum():
    X, y = clusters(200, (20,), 5)
    Z, plain = reference(X, y, C=100.0)
    head = LogisticHead(C=100.0).fit(X, y)
    codes = np.searchsorted(head.classes_, y)

    def objective(logits, coefficients):
        return -log_softmax(logits, axis=1)[np.arange(200), codes].mean() + (coefficients**2).sum() / 4e4

    _, inverse = scaling_of(X, divide=True).pair
    standardised = head.coef_ / np.where(inverse == 0, 1, inverse)
    best = objective(plain.decision_function(Z), plain.coef_)
    assert objective(head.logits(X).astype(np.float64), standardised) < best * (1 + 1e-3) + 1e-7


def test_class_weight_moves_the_balance_and_knows_its_labels():
    X, y = clusters(120, (8,), 3)
    kept = np.concatenate([np.flatnonzero(y != "class c"), np.flatnonzero(y == "class c")[:4]])
    X, y = X[kept], y[kept]
    plain = LogisticHead(C=0.01).fit(X, y).predict_proba(X)[:, 2].mean()
    assert LogisticHead(C=0.01, class_weight="balanced").fit(X, y).predict_proba(X)[:, 2].mean() > plain * 1.5
    assert (
        LogisticHead(C=0.01, class_weight={"class c": 20.0}).fit(X, y).predict_proba(X)[:, 2].mean()
        > plain * 1.5
    )
    with pytest.raises(BadRows, match="class d"):
        LogisticHead(class_weight={"class d": 2.0}).fit(X, y)


def test_settings_are_checked_at_fit():
    with pytest.raises(UsageError, match="C=0"):
        LogisticHead(C=0).fit(*clusters(10, (4,), 2))


def test_fold_does_to_raw_rows_what_scaling_and_kernel_do():
    X, _ = clusters(50, (8,), 2)
    mean, inverse = scaling_of(X, divide=True).pair
    assert inverse[:2].tolist() == [0, 0]
    assert (inverse[2:] > 0).all()
    random = np.random.default_rng(0)
    kernel, bias = random.normal(size=(8, 3)), random.normal(size=3)
    folded, shifted, _ = fold(kernel, bias, mean, inverse)
    wanted = (X - mean) * inverse @ kernel + bias
    np.testing.assert_allclose(X.astype(np.float64) @ folded + shifted, wanted, atol=2e-4)


def test_rounding_is_no_spread():
    X = np.full((20, 1), 1000.0, np.float32)
    X[::2] += 1e-3
    assert scaling_of(X, divide=True).pair[1].tolist() == [0.0]
    X[::2] += 1.0
    assert scaling_of(X, divide=True).pair[1][0] > 0
