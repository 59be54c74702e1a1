"""Measure an epoch of fine-tuning: cached prefix, pixels, plain Keras.

Part of benchmarks/bench.py (`finetune`). One size, one batch and the same trained layers on all three sides; the
prefix's extraction, which happens once, is stated apart. Weights are random: this is about time.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measuring
from measuring import OURS, PLAIN, Steps, shown, spread, table
from watching import watched

BATCH = 16
EPOCHS = 2
#: Base -> cut, what trains, the last frozen layer, the name plain.py has for the averaged layer, size.
BASES = {
    "vgg16": ("pool5", "block5", "block4_pool", "block5_pool", 224),
    "inceptionv3": ("avg_pool", "top:2", "mixed8", "mixed10", 299),
}


def finetune(given: argparse.Namespace, steps: Steps, images: Path) -> dict[str, Any]:
    """Return seconds of an epoch, without the first, which traces."""
    cut, unfreeze, below, layer, own_size = BASES[given.base]
    size = given.size or own_size
    cache = given.work / "caches" / f"bench-finetune-{given.base}"
    run = given.work / "runs" / f"bench-finetune-{given.base}"
    base = ["--base", given.base, "--size", str(size)]
    # Calibrated: what Keras' initializers give grows from layer to layer in InceptionV3, and its loss is no number.
    ours_base = [*base, "--weights", "random:0"]

    def start() -> dict[str, Any]:
        """Train the first head and cache the prefix; time both."""
        measuring.fresh_cache(given.work, cache.name)
        shutil.rmtree(run, ignore_errors=True)
        pooling = ["--pooling", "avg"]
        command = [*OURS, "train", str(images), *ours_base, "--cut", cut, *pooling, "--validation", "0.2"]
        watched([*command, "--run", str(run), "--cache", str(cache), "--json"], timeout=given.timeout)
        prefix = [*OURS, "extract", str(images), *ours_base, "--cut", below, "--pooling", "none"]
        done = watched([*prefix, "--cache", str(cache), "--json"], timeout=given.timeout)
        told = done.json()
        return {"seconds": done.seconds, "computed": told["computed"], "seconds_inside": told["seconds"]}

    def ours(*more: str) -> dict[str, Any]:
        to = given.work / "runs" / "bench-finetune-done"
        shutil.rmtree(to, ignore_errors=True)
        command = [*OURS, "finetune", str(run), "--unfreeze", unfreeze, "--epochs", str(EPOCHS), *more]
        command += ["--batch-size", str(BATCH), "--patience", "0", "--run", str(to), "--json"]
        done = watched(command, timeout=given.timeout)
        (stage,) = done.json()["tuned"]["stages"]
        if (stage["prefix"] is None) != ("--full" in more):
            raise SystemExit(f"expected the other way: {stage['prefix']}")
        seconds = [entry["seconds"] for entry in stage["history"] if entry["epoch"] > 1]
        return {**done.figures(), "epoch_seconds": statistics.median(seconds), "prefix": stage["prefix"]}

    def plain() -> dict[str, Any]:
        command = [*PLAIN, "finetune", str(images), *base, "--cut", layer, "--below", below]
        done = watched(
            [*command, "--batch", str(BATCH), "--epochs", str(EPOCHS)],
            timeout=given.timeout,
            extra={"BOTTLENECK_CACHE": str(given.work / "caches" / "weights")},
        )
        return {**done.figures(), "epoch_seconds": statistics.median(done.json()["epoch_seconds"][1:])}

    contenders: dict[str, Callable[[], dict[str, Any]]] = {"prefix": ours, "full": lambda: ours("--full")}
    first = steps.run("head and prefix", start)
    rounds = []
    for number in range(given.rounds):
        order = list(contenders)[:: 1 if number % 2 else -1]
        rounds.append(
            steps.run(
                f"round {number + 1} of {given.rounds}",
                lambda o=order: {name: contenders[name]() for name in o},
            )
        )
    alone = steps.run("Keras, once", plain)
    count = len([*images.glob("*/*")])
    # An epoch of ours trains on 80 % and measures the rest; Keras' trains on all and measures nothing.
    learnt = round(0.8 * count)
    per = {name: spread(1000 * r[name]["epoch_seconds"] / learnt for r in rounds) for name in contenders}
    per["plain"] = spread([1000 * alone["epoch_seconds"] / count])
    shorter = spread(r["full"]["epoch_seconds"] / r["prefix"]["epoch_seconds"] for r in rounds)
    took = {name: spread(r[name]["seconds"] for r in rounds) for name in contenders}
    took["plain"] = spread([alone["seconds"]])
    labels = {
        "prefix": f"finetune, cached prefix ({rounds[0]['prefix']['prefix']})",
        "full": "finetune --full",
        "plain": "Keras fit, the same layers trained, one run",
    }
    table(
        f"finetune: {given.base} at {size} px, {unfreeze} and the head, batch {BATCH}, {count} images, "
        f"{given.rounds} rounds",
        ["", "epoch, ms a training image", "command, s"],
        [[label, shown(per[name], 1), shown(took[name], 1)] for name, label in labels.items()],
    )
    print(
        f"  an epoch on the prefix is {shown(shorter)} times shorter than --full; the prefix once: "
        f"{first['computed']} images in {first['seconds']:.1f} s\n"
        "  ms of ours hold the measuring of the held-out 20 % after each epoch"
    )
    return {
        "base": given.base,
        "size": size,
        "batch": BATCH,
        "unfreeze": unfreeze,
        "images": count,
        "prefix_extraction": first,
        "ms_an_image": per,
        "shorter": shorter,
        "rounds": rounds,
        "plain": alone,
    }
