"""The whole trip on real images: scikit-learn's digits through SqueezeNet."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bottleneck.errors import UsageError
from bottleneck.evaluation.metrics import Metrics
from bottleneck.exports.merged_file import MergedModel
from bottleneck.extraction.report import Extraction
from bottleneck.pipeline.export import merge
from bottleneck.pipeline.extract import extract
from bottleneck.pipeline.train import Trained, train
from bottleneck.schema import json_fields
from bottleneck.system.objects import local_path

# One block below the last: digits are far from ImageNet, and the last block is the one most made for it. A logistic
# head gets 0.982 of the held-out digits right from here, 0.962 from the last block (means over five splits).
BASE: Mapping[str, Any] = {"base": "squeezenet", "weights": "imagenet", "cut": "fire8", "size": 96}

HEADS: Mapping[str, Mapping[str, Any]] = {
    "logistic": {},
    "dense": {"hidden": (128,), "dropout": 0.2, "batch_norm": True, "epochs": 40},
}


@dataclass(frozen=True, eq=False)
class DemoResult:
    """What the demo did."""

    images: Path
    extraction: Extraction
    heads: Mapping[str, Trained]
    best: str
    delivery: MergedModel
    seconds: float

    def held_out(self, head: str) -> Metrics:
        """Figures on the images that the head did not see."""
        return _held_out(self.heads[head].metrics)

    def to_json(self) -> dict[str, Any]:
        """Describe the demo for a program."""
        return {
            **json_fields(self, "extraction", "heads", "best", "delivery"),
            "seconds": round(self.seconds, 2),
        }


def run_demo(
    out: Path,
    images: str | None,
    *,
    seed: int,
    say: Callable[[str], None],
    session: Mapping[str, Any],
) -> DemoResult:
    """Extract, train two heads, merge the better one and certify it.

    Parameters
    ----------
    out : Path
        Everything is written below it; made when it is not there.
    images : str or None
        The user's own source; the digits by default.
    seed : int
        Of the held-out split.
    say : callable
        Hears what happens next.
    session : mapping
        Cache and progress, as the pipeline takes them.

    Returns
    -------
    DemoResult
    """
    started = time.perf_counter()
    local_path(out, "--out")
    source = Path(images) if images else out / "digits"
    if not images:
        say(f"1. images: scikit-learn's 1,797 digits as PNG files in {source}")
        write_digits(source)
    say(f"2. features: each image once through {BASE['base']} with ImageNet weights")
    options = {**{name: value for name, value in BASE.items() if name != "base"}, **session}
    extraction = extract(source, BASE["base"], **options)
    trained = {}
    for step, (name, settings) in enumerate(HEADS.items(), 3):
        say(f"{step}. head: {name}, on the cached features")
        trained[name] = train(
            source, BASE["base"], name, run=out / "runs" / name, settings=settings, seed=seed, **options
        )
    best = max(trained, key=lambda name: _held_out(trained[name].metrics).accuracy)
    say(f"5. one model: {best} merged back on {BASE['base']} and compared with the cached head")
    delivery = merge(trained[best].folder.path, out / "model.keras", **session)
    return DemoResult(source, extraction, trained, best, delivery, time.perf_counter() - started)


def _held_out(metrics: Mapping[str, Metrics]) -> Metrics:
    for name in ("validation", "test"):
        if name in metrics:
            return metrics[name]
    raise UsageError("no image was held out: the demo compares heads on a validation split")


def write_digits(folder: Path) -> None:
    """Write scikit-learn's digits as PNG files, unless they are there."""
    import tensorflow as tf
    from sklearn.datasets import load_digits

    if len(list(folder.glob("*/*.png"))) == 1797:
        return
    bunch = load_digits()
    for number, (image, label) in enumerate(zip(bunch.images, bunch.target, strict=True)):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        # 0..16 shades, as they are in the data set, stretched to 0..255.
        shades = np.rint(image * (255 / 16)).astype(np.uint8)[..., None]
        (folder / str(label) / f"{number:04d}.png").write_bytes(tf.io.encode_png(shades).numpy())
