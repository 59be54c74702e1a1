"""Two one-thread workers against one, on every engine that is installed.

    python benchmarks/bench_engines.py [--base inceptionv3] [--images 96] [--rounds 5] [--engines local,dask,ray]

Each run is a process of its own with a cache of its own, random weights, 500 x 375 JPEG files. The rate is that of the
steady part: from the second shard's record on, so that starting schedulers and building the base do not count. A worker
of one thread computes in one and decodes in another, so a base must be large for a second one to be worth a whole one
on two cores. Figures go to benchmarks/results/bench_engines.json.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import measuring
from measuring import shown, spread, table
from subjects import photos

TASK_ROWS, BATCH = 16, 8
MODULES = {"local": "bottleneck", "dask": "distributed", "ray": "ray"}


def one(folder: Path, cache: Path, base: str, engine: str, workers: int) -> dict[str, Any]:
    """A whole extraction in this process, and its steady rate."""
    from bottleneck.extraction.run import ExtractionRun
    from bottleneck.extraction.setup import RunOptions
    from bottleneck.inventory.scan import scan_source
    from bottleneck.schema import BaseRequest, Cache, WorkerConfig
    from bottleneck.sources.open import open_source
    from bottleneck.system.progress import Silent

    opened, where = open_source(folder), Cache(cache)
    request = BaseRequest(base=base, weights="random:1", pooling="avg", batch=BATCH)
    started = time.time()
    options = RunOptions(workers=WorkerConfig(engine=engine, workers=workers, threads=1))
    run = ExtractionRun(opened, lambda: scan_source(opened, where.scans), [request], where, Silent(), options)
    run.task_rows = TASK_ROWS
    ((done, store),), _ = run.run()
    times = sorted(path.stat().st_mtime for path in (store.folder / "shards").glob("*.json"))
    steady = (len(times) - 2) * TASK_ROWS / (times[-1] - times[1])
    return {"computed": done.computed, "seconds": time.time() - started, "images_per_second": steady}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--base", default="inceptionv3")
    parser.add_argument("--engines", default=",".join(MODULES))
    parser.add_argument("--work", type=Path, default=measuring.WORK)
    parser.add_argument("--one", nargs=2, metavar=("ENGINE", "WORKERS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    folder, made_of = photos(given.work, given.images)
    cache = given.work / "engines-cache"
    if given.one:
        print(json.dumps(one(folder, cache, given.base, given.one[0], int(given.one[1]))))
        return
    engines = [name for name in given.engines.split(",") if importlib.util.find_spec(MODULES[name])]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in engines}
    for _ in range(given.rounds):
        for name in engines:
            rates = {}
            for workers in (1, 2):
                shutil.rmtree(cache, ignore_errors=True)
                command = [sys.executable, __file__, "--one", name, str(workers), "--base", given.base]
                command += ["--images", str(given.images), "--work", str(given.work)]
                said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                rates[workers] = json.loads(said.splitlines()[-1])["images_per_second"]
            found[name].append({"one": rates[1], "two": rates[2], "ratio": rates[2] / rates[1]})
            measuring.say(f"{name}: {found[name][-1]}")
    figures = {
        name: {figure: spread(one[figure] for one in rounds) for figure in ("one", "two", "ratio")}
        for name, rounds in found.items()
    }
    table(
        f"engines: {given.images} JPEG files ({made_of}), {given.base}, {given.rounds} rounds",
        ["", "one worker, images/s", "two", "ratio"],
        [
            [name, shown(one["one"], 1), shown(one["two"], 1), shown(one["ratio"])]
            for name, one in figures.items()
        ],
    )
    measuring.save("bench_engines", {"base": given.base, "images": given.images, **figures, "rounds": found})


if __name__ == "__main__":
    main()
