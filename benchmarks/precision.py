"""Measure what bfloat16 costs on real weights and images.

    python benchmarks/precision.py [--limit 10000] [--size 96] [--cut avg_pool]

Every image goes through the base twice, in float32 and in the precision that this machine has hardware for, each into
a store of its own. Asked for: a centred cosine of 0.999 or more for every image, and a logistic head within 0.3
points. The digits' head is cross-validated on all 1,797, Fashion-MNIST's measured on its test split. Figures go to
benchmarks/results/precision_<size>.json; exit status 1 when it is not so.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import measuring
import numpy as np
from fashion_mnist import SOURCE, write_images
from measuring import Steps, table

COSINE, POINTS = 0.999, 0.3


def compared(images: Path, base: dict[str, Any], work: Path, name: str, precision: str) -> dict[str, Any]:
    """Features and heads of one set of images in both precisions."""
    import bottleneck

    rows, accuracy = {}, {}
    for each in ("float32", precision):
        options = {**base, "precision": each, "cache": work / "caches" / "precision"}
        rows[each] = bottleneck.features(images, "squeezenet", **options).X
        run = work / "runs" / f"precision-{name}-{each}"
        split = {"folds": 5, "validation": 0.2} if name == "digits" else {"validation": 0.0}
        done = bottleneck.train(images, "squeezenet", run=run, **split, **options)
        folds = done.folder.figures.folds
        accuracy[each] = (
            float(np.mean([fold.accuracy for fold in folds])) if folds else done.metrics["test"].accuracy
        )
    full, reduced = (np.asarray(rows[each], np.float64).reshape(len(rows[each]), -1) for each in rows)
    mean = full.mean(axis=0)
    own, other = full - mean, reduced - mean
    lengths = np.linalg.norm(own, axis=1) * np.linalg.norm(other, axis=1)
    cosines = (own * other).sum(axis=1) / lengths
    return {
        "images": len(full),
        "smallest_cosine": float(cosines.min()),
        "mean_cosine": float(cosines.mean()),
        "below": int((cosines < COSINE).sum()),
        "accuracy": accuracy,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limit", type=int, default=10_000, help="Training images of Fashion-MNIST.")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--cut", default="avg_pool")
    parser.add_argument("--dataset", type=Path, default=SOURCE)
    parser.add_argument("--work", type=Path, default=measuring.WORK)
    given = parser.parse_args()
    from bottleneck.bases.precision import isa, resolve_precision
    from bottleneck.pipeline.demo import write_digits

    precision = resolve_precision("auto", isa(), None)
    if precision == "float32":
        raise SystemExit("this processor has no hardware for a lower precision")
    measuring.squeezenet_weights(given.work)
    measuring.fresh_cache(given.work, "precision")
    digits, fashion = given.work / "digits", given.work / "fashion-precision"
    write_digits(digits)
    write_images(given.dataset, fashion, given.limit)
    steps = Steps(
        given.work, "precision", {"limit": given.limit, "size": given.size, "cut": given.cut}, again=True
    )
    base = {"size": given.size, "cut": given.cut}
    found = {
        name: steps.run(name, lambda i=images, n=name: compared(i, base, given.work, n, precision))
        for name, images in {"digits": digits, "fashion-mnist": fashion}.items()
    }
    table(
        f"SqueezeNet at {given.size} px, {given.cut}: {precision} against float32",
        ["", "images", "smallest centred cosine", "mean", "accuracy float32", precision],
        [
            [
                name,
                f"{one['images']:,}",
                f"{one['smallest_cosine']:.6f}",
                f"{one['mean_cosine']:.6f}",
                *(f"{value:.4f}" for value in one["accuracy"].values()),
            ]
            for name, one in found.items()
        ],
    )
    lost = {
        name: 100 * abs(one["accuracy"]["float32"] - one["accuracy"][precision])
        for name, one in found.items()
    }
    kept = all(one["smallest_cosine"] >= COSINE for one in found.values()) and max(lost.values()) <= POINTS
    measuring.save(
        f"precision_{given.size}",
        {"precision": precision, "size": given.size, "cut": given.cut, **found, "points": lost, "kept": kept},
    )
    steps.forget()
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
