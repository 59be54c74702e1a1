"""Measure what caching costs and saves against what users write.

    python benchmarks/bench.py extract [--base squeezenet|mobilenetv2|vgg16|inceptionv3] [--images 1000] [--size N]
                                    [--precision float32,bfloat16] [--peers] [--onednn] [--large]
    python benchmarks/bench.py decode  [--images 400]        (in bench_decode.py)
    python benchmarks/bench.py forward [--base …]            (in bench_forward.py)
    python benchmarks/bench.py pipeline [--base …] [--images 1000] [--precision auto]     (in bench_pipeline.py)
    python benchmarks/bench.py rss                           (in bench_rss.py)
    python benchmarks/bench.py cuts --base vgg16|mobilenetv2 [--images 192]               (in bench_cuts.py)
    python benchmarks/bench.py predict [--base …] [--images 5000] [--precision auto]      (in bench_predict.py)
    python benchmarks/bench.py heads   [--images 2000]         (in bench_heads.py)
    python benchmarks/bench.py rerun   [--images 10000]
    python benchmarks/bench.py import
    python benchmarks/bench.py finetune --base vgg16|inceptionv3 [--images 72]     (in bench_finetune.py)
    python benchmarks/bench.py store | open | memory     (in bench_store.py)

Contenders run in turn, round by round, on one machine in one go, each in processes of its own; figures are medians
(min-max) over the rounds, and a ratio is the median of the rounds' own ratios. The other side of each measurement
is written out in benchmarks/plain.py. Figures go to benchmarks/results/bench_*.json; a start that was cut off goes
on with the round it was in.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bench_cuts
import bench_decode
import bench_extract
import bench_finetune
import bench_forward
import bench_heads
import bench_pipeline
import bench_predict
import bench_rss
import bench_store
import measuring
import watching
from measuring import OURS, Steps, say, shown, spread, table
from rounds import column, in_rounds
from subjects import BASES, FEW, asked, photos
from watching import watched

# ------------------------------------------------------------------------------------------------ measurements


def rerun(given: argparse.Namespace, steps: Steps) -> dict[str, Any]:
    """Time a second `extract` of unchanged files."""
    from fashion_mnist import png

    folder = given.work / f"tiny-{given.images}"
    cache = given.work / "caches" / "bench-rerun"
    base = ["--base", "squeezenet", "--size", "31", "--cache", str(cache), "--json"]
    command = [*OURS, "extract", str(folder), *base]

    def fill() -> None:
        import numpy as np

        say(f"writing {given.images:,} small PNG files")
        shutil.rmtree(folder, ignore_errors=True)
        rng = np.random.default_rng(0)
        for number in range(given.images):
            path = folder / f"class{number % 10}" / f"{number:06d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(rng.integers(0, 256, (16, 16), np.uint8)))
        measuring.fresh_cache(given.work, cache.name)
        time.sleep(2.5)  # the scan index does not trust files younger than 2 s
        watched(command, timeout=given.timeout)

    def again(_: int) -> dict[str, Any]:
        done = watched(command, timeout=given.timeout)
        told = done.json()
        if told["computed"] or told["reused"] != given.images:
            raise SystemExit(f"expected {given.images} reused: {done.output}")
        return {**done.figures(), "inner_seconds": told["seconds"], "processes": done.processes}

    def imports() -> dict[str, Any]:
        done = watched(command, timeout=given.timeout, extra={"PYTHONPROFILEIMPORTTIME": "1"})
        names = {line.rpartition("|")[2].strip().split(".")[0] for line in done.errors.splitlines()}
        heavy = ("tensorflow", "keras", "sklearn", "h5py", "pandas", "pyarrow")
        return {name: name in names for name in heavy}

    def changed() -> dict[str, Any]:
        """Change one file in a hundred; only these are computed."""
        import numpy as np

        count = given.images // 100
        rng = np.random.default_rng(1)
        for path in sorted(folder.glob("*/*.png"))[:: given.images // count][:count]:
            path.write_bytes(png(rng.integers(0, 256, (16, 16), np.uint8)))
        done = watched(command, timeout=given.timeout)
        told = done.json()
        if told["computed"] != count or told["reused"] != given.images - count:
            raise SystemExit(f"expected {count} computed: {done.output}")
        return {"changed": count, "computed": told["computed"], **done.figures()}

    steps.run(f"a store of {given.images:,} images", fill)
    rounds = in_rounds(steps, given.rounds, {"rerun": again})
    imported = steps.run("what it imports", imports)
    renewed = steps.run("a hundredth of the files changed", changed)
    found = {f: column(rounds, "rerun", f) for f in ("seconds", "inner_seconds", "peak_mib", "processes")}
    per = spread(1e6 * r["rerun"]["seconds"] / given.images for r in rounds)
    table(
        f"rerun: extract over {given.images:,} unchanged files, {given.rounds} rounds",
        ["", "command, s", "without start, s", "µs a file", "peak MiB", "processes", "TensorFlow"],
        [
            [
                "bottleneck extract",
                shown(found["seconds"]),
                shown(found["inner_seconds"]),
                shown(per, 0),
                shown(found["peak_mib"], 0),
                f"{found['processes']['max']}",
                "IMPORTED" if imported["tensorflow"] else "not imported",
            ]
        ],
    )
    print(f"  imported: {', '.join(n for n, there in imported.items() if there) or 'none of the heavy ones'}")
    print(
        f"  {renewed['changed']:,} files changed: {renewed['computed']:,} computed, {renewed['seconds']:.1f} s"
    )
    return {"images": given.images, **found, "imported": imported, "changed": renewed, "rounds": rounds}


def face(given: argparse.Namespace, steps: Steps) -> dict[str, Any]:
    """`import bottleneck` and `bottleneck --help` in fresh interpreters."""
    found = steps.run("times", lambda: face_times(max(11, given.rounds)))
    table(
        f"import: {found['import_ms']['n']} fresh interpreters each",
        ["", "median (min-max)"],
        [
            ["import bottleneck, less a bare interpreter, ms", shown(found["import_ms"])],
            ["a bare interpreter, ms", shown(found["bare_ms"])],
            ["the same in processor time, ms", shown(found["import_cpu_ms"])],
            ["bottleneck --help, s", shown(found["help_s"])],
            ["the same in processor time, s", shown(found["help_cpu_s"])],
        ],
    )
    return found


def face_times(count: int) -> dict[str, Any]:
    """Time the import against a bare interpreter, and ``--help``.

    Wall time, and processor time, which other programs on the machine disturb less.
    """

    def timed(command: list[str]) -> tuple[float, float]:
        before, started = watching.processor_time(), time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60)
        return time.perf_counter() - started, watching.processor_time() - before

    rows = []
    for number in range(count + 1):
        bare, cpu = timed([sys.executable, "-c", "pass"])
        ours, our_cpu = timed([sys.executable, "-c", "import bottleneck"])
        helped, help_cpu = timed([*OURS, "--help"])
        if number:  # the first one fills the page cache
            rows.append((1000 * bare, 1000 * (ours - bare), 1000 * (our_cpu - cpu), helped, help_cpu))
    names = ("bare_ms", "import_ms", "import_cpu_ms", "help_s", "help_cpu_s")
    return {name: spread(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}


def finetune(given: argparse.Namespace, steps: Steps) -> dict[str, Any]:
    """Compare epochs of fine-tuning on a prefix, from pixels, by Keras."""
    if given.base not in bench_finetune.BASES:
        raise SystemExit(f"--base: one of {', '.join(bench_finetune.BASES)}")
    folder, _ = photos(given.work, given.images)
    return bench_finetune.finetune(given, steps, folder)


def forward(given: argparse.Namespace, steps: Steps) -> dict[str, Any]:
    """The bare forward pass, in several ways."""
    return bench_forward.forward(given, steps, asked(given))


def predict(given: argparse.Namespace, steps: Steps) -> dict[str, Any]:
    """A dry run's word against the run."""
    folder, _ = photos(given.work, given.images)
    return bench_predict.predict(given, steps, folder, [*asked(given), "--precision", given.precision])


def pipeline(given: argparse.Namespace, steps: Steps) -> dict[str, Any]:
    """The command's steady rate against its decoding and its forward pass alone."""
    folder, _ = photos(given.work, given.images)
    few, _ = photos(given.work, FEW)
    base = [*asked(given), "--precision", given.precision]
    return bench_pipeline.pipeline(given, steps, folder, few, base)


def cuts(given: argparse.Namespace, steps: Steps) -> dict[str, Any]:
    """Two cuts in one pass against the deeper one alone."""
    folder, _ = photos(given.work, given.images)
    return bench_cuts.cuts(given, steps, folder)


MEASUREMENTS: dict[str, tuple[Callable[[argparse.Namespace, Steps], dict[str, Any]], int]] = {
    "extract": (bench_extract.extract, 1000),
    "decode": (bench_decode.decode, 400),
    "forward": (forward, 0),
    "pipeline": (pipeline, 1000),
    "predict": (predict, 5000),
    "cuts": (cuts, 192),
    "rss": (bench_rss.rss, 0),
    "heads": (bench_heads.heads, 1000),
    "rerun": (rerun, 10_000),
    "import": (face, 0),
    "finetune": (finetune, 72),
    "store": (bench_store.store, 0),
    "open": (bench_store.opening, 0),
    "memory": (bench_store.memory, 0),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=MEASUREMENTS)
    parser.add_argument("--images", type=int, metavar="N", help=f"More than {FEW}.")
    parser.add_argument("--base", choices=BASES, default="squeezenet")
    parser.add_argument("--size", type=int, help="Pixels.  [default: the base's own]")
    parser.add_argument("--precision", default="float32", help="Of our side; extract: several, with commas.")
    parser.add_argument(
        "--onednn",
        action="store_true",
        help="extract: the recipe with TF_ENABLE_ONEDNN_OPTS=1 too, which few set.",
    )
    parser.add_argument(
        "--peers", action="store_true", help="extract: torch too; benchmarks/peers installs it."
    )
    parser.add_argument("--large", action="store_true", help="extract, decode: photographs of 12 megapixels.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, default=measuring.WORK)
    parser.add_argument("--again", action="store_true", help="Forget rounds of a start that was cut off.")
    parser.add_argument("--timeout", type=float, default=1800, metavar="SECONDS", help="For each command.")
    given = parser.parse_args()
    measure, images = MEASUREMENTS[given.what]
    given.images = given.images or images
    if images and given.images <= FEW:
        parser.error(f"--images: more than {FEW}")
    given.work = Path(os.path.abspath(given.work))
    if given.peers and not bench_extract.PEERS.exists():
        parser.error("--peers: run benchmarks/peers first, which installs torch")
    names = ("images", "base", "size", "rounds", "precision", "peers", "onednn", "large")
    options = {name: getattr(given, name) for name in names}
    steps = Steps(given.work, f"bench_{given.what}", options, again=given.again)
    if images or given.what in ("forward", "rss"):
        measuring.squeezenet_weights(given.work)
    found = measure(given, steps)
    name = f"bench_{given.what}"
    if given.what in ("extract", "forward", "pipeline", "predict", "cuts", "heads", "finetune"):
        name += f"_{given.base}"
    if given.large:
        name += "_large"
    if given.peers:
        name += "_peers"
    if given.precision != "float32" and given.what != "extract":
        name += f"_{given.precision}"
    measuring.save(name, found)
    steps.forget()


if __name__ == "__main__":
    main()
