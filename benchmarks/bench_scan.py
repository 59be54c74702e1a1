"""Measure memory and time of scan and plan for large sources.

    python benchmarks/bench_scan.py [--entries 10000000]

The entries are synthetic: a source that lists them and gives a few bytes for each, so that no file system is measured
(the walk of a real one is `bench.py rerun`). Three runs, each in a process of its own: the first scan, which hashes
everything and writes the index; a second one, which finds everything in the index; both followed by the plan of a store
that has nothing yet. Peak resident memory is the process's own high-water mark. Figures go to
benchmarks/results/bench_scan.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import measuring
from measuring import say, table
from watching import MIB

_PNG = b"\x89PNG\r\n\x1a\n"
_CLASSES = 1000


class Synthetic:
    """List `count` entries in 1,000 class folders, out of order."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.location = f"/synthetic/{count}"

    def entries(self) -> Iterator[Any]:
        from bottleneck.schema import Entry

        # A stride that has no common factor with the count visits every number once.
        stride = 7919
        while self.count % stride == 0:
            stride += 2
        for step in range(self.count):
            number = step * stride % self.count
            name = f"class_{number % _CLASSES:04d}"
            path = f"{name}/photo_{number:012d}_synthetic.png".encode("ascii")
            yield Entry(path, (len(_PNG) + 12, 10**18 + number, 10**18 + number, number, 1), name)

    def read(self, path: bytes) -> bytes:
        return _PNG + path[17:29]

    def passed_over(self) -> Mapping[str, int]:
        return {}


def one(count: int, index: Path) -> dict[str, float]:
    """Scan and plan, here; this process's peak memory."""
    import numpy as np
    import pyarrow as pa

    from bottleneck.inventory.scan import scan_source
    from bottleneck.schema import Pixels, Preprocessing, Recipe, StoreSpec
    from bottleneck.store.plan import plan_tasks

    recipe = Recipe(
        base_digest="0" * 64,
        pooling="avg",
        pixels=Pixels(height=224, width=224),
        preprocessing=Preprocessing(),
        precision="float32",
        dtype="float32",
    )
    spec = StoreSpec(base="synthetic", cut="top", shape=(2048,), recipe=recipe)
    started = time.perf_counter()
    inventory = scan_source(Synthetic(count), index)  # type: ignore[arg-type]
    scanned = time.perf_counter()
    after_scan = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    made = plan_tasks(inventory, spec, np.zeros(len(inventory), bool))
    tasks = sum(1 for _ in range(len(made)))
    planned = time.perf_counter()
    if made.images != count or tasks != -(-count // spec.task_rows):
        raise SystemExit(f"expected {count} images in whole tasks, got {made.images} in {tasks}")
    return {
        "scan_seconds": scanned - started,
        "plan_seconds": planned - scanned,
        "peak_after_scan_mib": after_scan,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "arrow_mib": pa.total_allocated_bytes() / MIB,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--entries", type=int, default=10_000_000)
    parser.add_argument("--work", type=Path, default=measuring.WORK)
    parser.add_argument("--child", choices=["first", "second"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    index = given.work / "scan-index"
    if given.child:
        print(json.dumps(one(given.entries, index)))
        return
    for old in index.glob("*.parquet"):
        old.unlink()
    index.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = {"entries": given.entries}
    for name in ("first", "second"):
        say(f"the {name} scan of {given.entries:,} entries")
        done = subprocess.run(
            [
                sys.executable,
                __file__,
                "--entries",
                str(given.entries),
                "--work",
                str(given.work),
                "--child",
                name,
            ],
            stdout=subprocess.PIPE,
            check=True,
        )
        figures[name] = json.loads(done.stdout)
    table(
        f"scan and plan of {given.entries:,} synthetic entries",
        ["", "scan, s", "plan, s", "peak after scan, MiB", "peak, MiB"],
        [
            [
                name,
                f"{figures[name]['scan_seconds']:.0f}",
                f"{figures[name]['plan_seconds']:.0f}",
                f"{figures[name]['peak_after_scan_mib']:.0f}",
                f"{figures[name]['peak_mib']:.0f}",
            ]
            for name in ("first", "second")
        ],
    )
    measuring.save("bench_scan", figures)


if __name__ == "__main__":
    main()
