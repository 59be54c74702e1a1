"""Compare the forecast of a dry run with the run itself.

Part of benchmarks/bench.py (`predict`).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import measuring
from measuring import OURS, Steps, spread, table
from watching import watched


def predict(given: argparse.Namespace, steps: Steps, folder: Path, base: list[str]) -> dict[str, Any]:
    """Make a dry run, then the run, each on a fresh cache.

    Parameters
    ----------
    given : argparse.Namespace
    steps : Steps
    folder : Path
        The images.
    base : list of str
        The BASE options of the command line.
    """

    def once(number: int) -> dict[str, Any]:
        cache = measuring.fresh_cache(given.work, "bench-predict")
        command = [*OURS, "extract", str(folder), *base, "--cache", str(cache), "--json"]
        told = watched([*command, "--dry-run"], timeout=given.timeout)
        done = watched(command, timeout=given.timeout)
        shards = Path(done.json()["store"]) / "shards"
        word = told.json()["prediction"]
        return {
            "dry_run_seconds": told.seconds,
            "foretold": word,
            "seconds": done.json()["seconds"],
            "bytes": sum(path.stat().st_size for path in shards.iterdir()),
            "bottleneck_stage": done.json()["bottleneck_stage"],
        }

    rounds = [
        steps.run(f"round {number + 1} of {given.rounds}", lambda n=number: once(n))
        for number in range(given.rounds)
    ]
    time_ratio = spread(r["foretold"]["seconds"] / r["seconds"] for r in rounds)
    bytes_ratio = spread(r["foretold"]["bytes"] / r["bytes"] for r in rounds)
    rows = [
        [
            f"round {number + 1}",
            f"{r['foretold']['seconds']:.1f}",
            f"{r['seconds']:.1f}",
            f"{r['foretold']['seconds'] / r['seconds']:.2f}",
            f"{r['foretold']['bytes'] / r['bytes']:.4f}",
            f"{r['dry_run_seconds']:.1f}",
        ]
        for number, r in enumerate(rounds)
    ]
    table(
        f"predict: {given.images} images, {given.base}",
        ["", "foretold, s", "took, s", "ratio", "bytes, ratio", "the dry run, s"],
        rows,
    )
    return {
        "base": given.base,
        "precision": given.precision,
        "images": given.images,
        "time_ratio": time_ratio,
        "bytes_ratio": bytes_ratio,
        "rounds": rounds,
    }
