"""Check that several builders of one store share the work.

    python benchmarks/builders.py share    [--images 69000] [--builders 2 8]
    python benchmarks/builders.py identity [--images 20000]

`share` starts `bottleneck extract` so many times at once over one empty cache and adds up the rows that each says it
computed: one result, no row lost, at most 10 % computed twice. `identity` makes one store by one undisturbed run, and
another by four builders that are all killed (SIGKILL, workers too) once half of the shards are there, and by four that
are started after them; each builder has its own table of the same images in an order of its own. Threads and batch
are pinned. Both stores must hold the same shard files, byte for byte.

The images are Fashion-MNIST as PNG files (Debian's dataset-fashion-mnist), the base SqueezeNet at 31 px. Exit status 1
when it is not so. Figures go to benchmarks/results/builders_*.json.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import measuring
from fashion_mnist import SOURCE, write_images
from measuring import OURS, say, table

BASE = ["--base", "squeezenet", "--size", "31", "--batch", "32", "--json", "--quiet"]
#: oneDNN leaves bits alone whatever the threads; they are pinned all the same, so that the claim is the narrow one.
PINNED = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
TWICE = 0.10


def start(source: Path, cache: Path) -> subprocess.Popen[str]:
    """One builder: the command as anybody types it."""
    return subprocess.Popen(
        [*OURS, "extract", str(source), *BASE, "--cache", str(cache)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **PINNED, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )


def finish(builder: subprocess.Popen[str], timeout: float) -> dict[str, Any]:
    """What it reports."""
    out, err = builder.communicate(timeout=timeout)
    if builder.returncode:
        raise SystemExit(f"a builder ended with {builder.returncode}: {err.strip()[-1000:]}")
    return dict(json.loads(out))


def shards(cache: Path) -> dict[str, str]:
    """Shard files of the cache's one store, with their sha256."""
    stores = list((cache / "stores").iterdir()) if (cache / "stores").is_dir() else []
    if len(stores) > 1:
        raise SystemExit(f"expected one store, found {len(stores)}")
    files = sorted(stores[0].glob("shards/*.h5")) if stores else []
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def listing(images: Path, count: int, where: Path, seed: int) -> Path:
    """Write a table of `count` images, in an order of `seed`."""
    files = sorted(images.glob("*/*/*.png"))[:count]
    if len(files) < count:
        raise SystemExit(f"{images} holds {len(files)} images; {count} were asked for")
    random.Random(seed).shuffle(files)
    path = where / f"order-{seed}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        writer.writerows([os.path.relpath(image, path.parent), image.parent.name] for image in files)
    return path


def share(given: argparse.Namespace, images: Path) -> dict[str, Any]:
    source = listing(images, given.images, given.work / "builders", 0)
    found: dict[str, Any] = {"images": given.images}
    rows = []
    for count in given.builders:
        cache = measuring.fresh_cache(given.work, f"builders-{count}")
        say(f"{count} builders over {given.images:,} images")
        started = time.perf_counter()
        running = [start(source, cache) for _ in range(count)]
        reports = [finish(builder, given.timeout) for builder in running]
        seconds = time.perf_counter() - started
        distinct = reports[0]["rows"]
        twice = sum(report["computed"] for report in reports) / distinct - 1
        files = shards(cache)
        found[str(count)] = {
            "seconds": seconds,
            "twice": twice,
            "shards": len(files),
            "rows": [report["rows"] for report in reports],
            "computed": [report["computed"] for report in reports],
        }
        rows.append([f"{count}", f"{len(files)}", f"{distinct:,}", f"{100 * twice:.2f} %", f"{seconds:.0f}"])
        if len({report["rows"] for report in reports}) > 1 or any(report["rejected"] for report in reports):
            raise SystemExit(f"rows were lost: {reports}")
        if twice > TWICE:
            raise SystemExit(f"{count} builders computed {100 * twice:.1f} % of the rows twice")
        if len(files) < 64 and given.images >= 69_000:
            raise SystemExit(f"{len(files)} shards; at least 64 were wanted")
        shutil.rmtree(cache)
    table("builders of one store at once", ["builders", "shards", "rows", "computed twice", "s"], rows)
    return found


def _kill(builders: list[subprocess.Popen[str]]) -> None:
    # Only the parents: a worker must not outlive its own.
    for builder in builders:
        builder.send_signal(signal.SIGKILL)
    for builder in builders:
        builder.wait()
        for stream in (builder.stdout, builder.stderr):
            if stream is not None:
                stream.close()


def identity(given: argparse.Namespace, images: Path) -> dict[str, Any]:
    tables = [listing(images, given.images, given.work / "builders", seed) for seed in range(1, 10)]
    one = measuring.fresh_cache(given.work, "builders-one")
    say(f"one builder over {given.images:,} images")
    straight = finish(start(tables[0], one), given.timeout)
    whole = shards(one)
    four = measuring.fresh_cache(given.work, "builders-four")
    say("four builders, to be killed at half of the shards")
    running = [start(source, four) for source in tables[1:5]]
    deadline = time.monotonic() + given.timeout
    while len(list(four.glob("stores/*/shards/*.json"))) < len(whole) // 2:
        if time.monotonic() > deadline or any(builder.poll() is not None for builder in running):
            raise SystemExit("the builders were not at work to be killed")
        time.sleep(0.02)
    _kill(running)
    kept = len(list(four.glob("stores/*/shards/*.json")))
    say(f"four others go on after {kept} of {len(whole)} shards")
    reports = [finish(builder, given.timeout) for builder in [start(source, four) for source in tables[5:9]]]
    parts = shards(four)
    same = parts == whole
    found = {
        "images": given.images,
        "rows": straight["rows"],
        "shards": len(whole),
        "shards_at_the_kill": kept,
        "computed_after": [report["computed"] for report in reports],
        "identical": same,
        "digest": hashlib.sha256(json.dumps(sorted(parts.items())).encode()).hexdigest(),
    }
    table(
        "one builder against four that were killed halfway and four that went on",
        ["images", "shards", "there at the kill", "computed after", "identical files"],
        [[f"{given.images:,}", f"{len(whole)}", f"{kept}", f"{sum(found['computed_after'])}", str(same)]],
    )
    if not same:
        print("  only here:", sorted(set(whole) ^ set(parts))[:6])
        raise SystemExit("the shard files differ")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["share", "identity"])
    parser.add_argument("--images", type=int)
    parser.add_argument("--builders", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--dataset", type=Path, default=SOURCE)
    parser.add_argument("--work", type=Path, default=measuring.WORK)
    parser.add_argument("--timeout", type=float, default=1800)
    given = parser.parse_args()
    given.images = given.images or {"share": 69_000, "identity": 20_000}[given.what]
    images = given.work / "fashion"
    write_images(given.dataset, images, None)
    found = share(given, images) if given.what == "share" else identity(given, images)
    measuring.save(f"builders_{given.what}", found)


if __name__ == "__main__":
    main()
