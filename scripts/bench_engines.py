"""Two one-thread workers against one, on every engine that is installed.

    python scripts/bench_engines.py [--images 600] [--rounds 3] [--engines local,dask,ray]

Each run is a process of its own with a cache of its own, MobileNetV2 with random weights at 224 pixels on 500 x 375
JPEG files. The rate is that of the steady part: from the second shard's record on, so that starting schedulers and
building the base do not count. Figures go to scripts/results/bench_engines.json.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import bench
import measuring

TASK_ROWS = 25
MODULES = {"local": "bottleneck", "dask": "distributed", "ray": "ray"}


def one(folder: Path, cache: Path, engine: str, workers: int) -> dict[str, Any]:
    """A whole extraction in this process, and its steady rate."""
    from bottleneck.extraction.fill import fill
    from bottleneck.images.scan import scan
    from bottleneck.progress import Silent
    from bottleneck.schema import BaseRequest, Cache, Team
    from bottleneck.sources.open import open_source

    opened, where = open_source(folder), Cache(cache)
    request = BaseRequest(base="mobilenetv2", weights="random:1", pooling="avg", batch=8)
    started = time.time()
    done, _, store = fill(
        opened,
        lambda: scan(opened, where.scans),
        request,
        where,
        Silent(),
        team=Team(engine=engine, workers=workers, threads=1),
        task_rows=TASK_ROWS,
    )
    times = sorted(path.stat().st_mtime for path in (store.folder / "shards").glob("*.json"))
    steady = (len(times) - 2) * TASK_ROWS / (times[-1] - times[1])
    return {"computed": done.computed, "seconds": time.time() - started, "images_per_second": steady}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engines", default=",".join(MODULES))
    parser.add_argument("--work", type=Path, default=measuring.WORK)
    parser.add_argument("--one", nargs=2, metavar=("ENGINE", "WORKERS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    folder, made_of = bench.photos(given.work, given.images)
    cache = given.work / "engines-cache"
    if given.one:
        print(json.dumps(one(folder, cache, given.one[0], int(given.one[1]))))
        return
    engines = [name for name in given.engines.split(",") if importlib.util.find_spec(MODULES[name])]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in engines}
    for _ in range(given.rounds):
        for name in engines:
            rates = {}
            for workers in (1, 2):
                shutil.rmtree(cache, ignore_errors=True)
                command = [sys.executable, __file__, "--one", name, str(workers)]
                command += ["--images", str(given.images), "--work", str(given.work)]
                said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                rates[workers] = json.loads(said.splitlines()[-1])["images_per_second"]
            found[name].append({"one": rates[1], "two": rates[2], "ratio": rates[2] / rates[1]})
            print(name, found[name][-1], flush=True)
            save(found, made_of, given.images)


def save(found: dict[str, list[dict[str, Any]]], made_of: str, images: int) -> None:
    """Write what is known so far."""
    document = {
        "what": "steady images/s of two one-thread workers against one; MobileNetV2, random weights, 224 px, batch 8",
        "images": images,
        "made_of": made_of,
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg(),
        "rounds": found,
        "median_ratio": {
            name: statistics.median(one["ratio"] for one in rounds)
            for name, rounds in found.items()
            if rounds
        },
    }
    target = Path(__file__).parent / "results" / "bench_engines.json"
    target.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
