"""Measure the memory of worker and parent as images grow.

Part of benchmarks/bench.py (`rss`). High-water marks of resident memory as the system keeps them, read while both live.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import measuring
import watching
from fashion_mnist import png
from measuring import OURS, Steps, say, spread, table

COUNTS = (1000, 5000, 20_000)
#: How far from the middle of them the worker's peaks may lie, and what the parent may take.
_MARGIN, _PARENT_MIB = 0.05, 150


def rss(given: argparse.Namespace, steps: Steps) -> dict[str, Any]:
    """Measure peak memory of both processes at each image count."""

    def once(count: int) -> dict[str, Any]:
        folder = _images(given.work, count)
        cache = measuring.fresh_cache(given.work, "bench-rss")
        command = [
            *OURS,
            "extract",
            str(folder),
            "--base",
            "squeezenet",
            "--size",
            "64",
            "--cache",
            str(cache),
        ]
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        parent = subprocess.Popen([*command, "--quiet"], env=environment, stderr=subprocess.DEVNULL)
        peaks = {"parent": 0, "worker": 0}
        while parent.poll() is None:
            peaks["parent"] = max(peaks["parent"], watching.high_water(parent.pid))
            for child in watching.descendants(parent.pid) - {parent.pid}:
                peaks["worker"] = max(peaks["worker"], watching.high_water(child))
            time.sleep(0.1)
        if parent.returncode:
            raise SystemExit(f"exit status {parent.returncode}")
        return {name: peak / watching.MIB for name, peak in peaks.items()}

    rounds = [
        steps.run(f"round {n + 1} of {given.rounds}", lambda: {str(count): once(count) for count in COUNTS})
        for n in range(given.rounds)
    ]
    found = {
        name: {count: spread(r[str(count)][name] for r in rounds) for count in COUNTS}
        for name in ("worker", "parent")
    }
    medians = [found["worker"][count]["median"] for count in COUNTS]
    off = (max(medians) - min(medians)) / (max(medians) + min(medians))
    most = max(one["max"] for one in found["parent"].values())
    table(
        f"rss: SqueezeNet at 64 px, {given.rounds} rounds",
        ["peak MiB", *(f"{count:,} images" for count in COUNTS)],
        [[name, *(measuring.shown(one, 0) for one in by_count.values())] for name, by_count in found.items()],
    )
    print(f"  the worker's medians lie within ± {off:.1%}; the parent never passed {most:.0f} MiB")
    return {
        "peak_mib": found,
        "worker_spread": off,
        "flat": off <= _MARGIN,
        "parent_small": most <= _PARENT_MIB,
        "rounds": rounds,
    }


def _images(work: Path, count: int) -> Path:
    """`count` small grey PNG files, all different, in ten folders."""
    import numpy as np

    folder = work / f"grey-{count}"
    if len(list(folder.glob("*/*.png"))) == count:
        return folder
    say(f"writing {count:,} PNG files")
    shutil.rmtree(folder, ignore_errors=True)
    draw = np.random.default_rng(count)
    for number in range(count):
        path = folder / f"class{number % 10}" / f"{number:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(draw.integers(0, 256, (48, 48), np.uint8)))
    return folder
