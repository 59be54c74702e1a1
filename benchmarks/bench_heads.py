"""Heads on cached features against what caching replaces.

Part of benchmarks/bench.py (`heads`).
"""

from __future__ import annotations

import argparse
import shutil
from typing import Any

import measuring
from measuring import OURS, PLAIN, Steps, shown, table
from rounds import column, in_rounds, ratio
from subjects import BASES, photos, weights
from watching import Watched, watched


def heads(given: argparse.Namespace, steps: Steps) -> dict[str, Any]:
    """Compare heads on cached features with `fit` of the whole network."""
    cut, layer, own_size = BASES[given.base]
    size = given.size or own_size
    folder, made_of = photos(given.work, given.images)
    trained = weights(given.work, given.base, size)
    pooling = ["--pooling", "avg"] if cut != "avg_pool" else []
    base = ["--base", given.base, "--size", str(size), *trained]
    cache = given.work / "caches" / "bench-heads"

    def fill() -> None:
        measuring.fresh_cache(given.work, cache.name)
        command = [*OURS, "extract", str(folder), *base, "--cut", cut, *pooling, "--cache", str(cache)]
        watched([*command, "--quiet"], timeout=given.timeout)

    def train(head: str, *settings: str) -> Watched:
        run = given.work / "runs" / "bench-heads"
        shutil.rmtree(run, ignore_errors=True)
        command = [*OURS, "train", str(folder), *base, "--cut", cut, *pooling, "--head", head]
        for setting in settings:
            command += ["--set", setting]
        done = watched([*command, "--run", str(run), "--cache", str(cache), "--json"], timeout=given.timeout)
        if done.json()["extraction"]["computed"]:
            raise SystemExit("features were not in the store")
        return done

    def logistic(_: int) -> dict[str, Any]:
        done = train("logistic")
        return {**done.figures(), "fit_seconds": done.json()["train_seconds"]}

    def dense(_: int) -> dict[str, Any]:
        # The difference of a long and a short run, so that neither start nor tracing is in an epoch.
        short, long = 2, 22
        alike = ("hidden=(128,)", "patience=None")
        first = train("dense", *alike, f"epochs={short}").json()["train_seconds"]
        done = train("dense", *alike, f"epochs={long}")
        fit = done.json()["train_seconds"]
        return {**done.figures(), "fit_seconds": fit, "epoch_seconds": (fit - first) / (long - short)}

    def plain(_: int) -> dict[str, Any]:
        command = [*PLAIN, "epochs", str(folder), *base, "--cut", layer, "--hidden", "128", "--epochs", "2"]
        known = {"BOTTLENECK_CACHE": str(given.work / "caches" / "weights")}
        done = watched(command, timeout=given.timeout, extra=known)
        return {**done.figures(), "epoch_seconds": done.json()["epoch_seconds"][1]}

    steps.run("features into the store", fill)
    rounds = in_rounds(steps, given.rounds, {"logistic": logistic, "dense": dense, "plain": plain})
    rows = {
        name: {f: column(rounds, name, f) for f in figures}
        for name, figures in {
            "logistic": ("seconds", "fit_seconds", "peak_mib"),
            "dense": ("seconds", "fit_seconds", "epoch_seconds", "peak_mib"),
            "plain": ("seconds", "epoch_seconds", "peak_mib"),
        }.items()
    }
    saved = ratio(rounds, "plain", "dense", "epoch_seconds")
    labels = {
        "logistic": "train --head logistic, to convergence",
        "dense": "train --head dense, 22 epochs",
        "plain": "Keras fit through the frozen network, 2 epochs",
    }
    table(
        f"heads: {given.images} images ({made_of}), 10 classes, {given.base} at {size} px, {given.rounds} rounds",
        ["", "one epoch, s", "fit, s", "command, s", "peak MiB"],
        [
            [
                labels[name],
                shown(found["epoch_seconds"], 3) if "epoch_seconds" in found else "-",
                shown(found["fit_seconds"]) if "fit_seconds" in found else "-",
                shown(found["seconds"], 1),
                shown(found["peak_mib"], 0),
            ]
            for name, found in rows.items()
        ],
    )
    print(
        f"  an epoch through the network takes {shown(saved, 0)} times one on cached features; an epoch of ours has\n"
        "  80 % of the images, the rest is held out and measured. Keras' epoch is its second; fit s holds measuring"
    )
    return {
        "base": given.base,
        "size": size,
        "images": given.images,
        **rows,
        "epoch_ratio": saved,
        "rounds": rounds,
    }
