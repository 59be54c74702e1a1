"""Compare two commands on Fashion-MNIST with a plain script.

    python benchmarks/fashion_mnist.py                         all 70,000 images (about 20 minutes on 2 cores)
    python benchmarks/fashion_mnist.py --limit 6000            a tenth of them
    python benchmarks/fashion_mnist.py --limit 6000 --cut fire8 --no-plain

The images come from Debian's package dataset-fashion-mnist (``apt-get install dataset-fashion-mnist``). They are
written once as PNG files to ``train/<class>/`` and ``test/<class>/``. Then, each in processes of its own:

- ours: ``bottleneck extract`` and ``bottleneck train --validation 0`` on a fresh cache;
- plain: ``benchmarks/plain.py accuracy``: image_dataset_from_directory, model.predict, StandardScaler and
  LogisticRegression(max_iter=1000), on the same files, network, weights and cut.

Asked for: ours within 0.3 points of plain, and at least 0.865. Exit status 1 when it is not so (on all images).
A start that was cut off goes on where it ended; figures go to benchmarks/results/fashion_mnist.json.
"""

from __future__ import annotations

import argparse
import gzip
import shutil
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import measuring
import numpy as np
from measuring import OURS, PLAIN, Steps, say
from watching import watched

SOURCE = Path("/usr/share/datasets/fashion-mnist")
FILES = {"train": "train", "test": "t10k"}
CLASSES = (
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot",
)  # fmt: skip
SIZE = 96
POINTS, LEAST = 0.3, 0.865


# ------------------------------------------------------------------------------------------------ files


def read_idx(path: Path) -> np.ndarray:
    """Read an array from an IDX file of bytes."""
    data = gzip.decompress(path.read_bytes())
    zero, kind, rank = struct.unpack(">HBB", data[:4])
    if zero or kind != 8:
        raise SystemExit(f"{path.name} is no IDX file of bytes")
    shape = struct.unpack(f">{rank}I", data[4 : 4 + 4 * rank])
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def png(image: np.ndarray) -> bytes:
    """A grey PNG of (height, width) bytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width = image.shape
    rows = np.zeros((height, width + 1), np.uint8)  # each row begins with its filter: 0, none
    rows[:, 1:] = image
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows.tobytes(), 6)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def write_images(source: Path, out: Path, limit: int | None) -> dict[str, int]:
    """Write the data set as PNG files; return counts by split."""
    missing = [n for f in FILES.values() for n in (_images(f), _labels(f)) if not (source / n).is_file()]
    if missing:
        raise SystemExit(
            f"{source} lacks {', '.join(missing)}: apt-get install dataset-fashion-mnist, "
            "or give the folder that holds these files with --dataset"
        )
    # The test split shrinks like the training split.
    most = {"train": limit, "test": -(-limit // 3) if limit else None}
    counts = {}
    for split, file in FILES.items():
        labels = read_idx(source / _labels(file))[: most[split]]
        counts[split] = len(labels)
        mark = out / f".{split}-complete"
        if mark.is_file() and mark.read_text("ascii") == str(len(labels)):
            continue
        say(f"writing {len(labels):,} PNG files to {split}/")
        shutil.rmtree(out / split, ignore_errors=True)
        for name in CLASSES:
            (out / split / name).mkdir(parents=True)
        for number, image in enumerate(read_idx(source / _images(file))[: most[split]]):
            (out / split / CLASSES[labels[number]] / f"{number:05d}.png").write_bytes(png(image))
        mark.write_text(str(len(labels)), "ascii")
    return counts


def _images(file: str) -> str:
    return f"{file}-images-idx3-ubyte.gz"


def _labels(file: str) -> str:
    return f"{file}-labels-idx1-ubyte.gz"


# ------------------------------------------------------------------------------------------------ the two ways


def ours(images: Path, work: Path, cut: str, steps: Steps, timeout: float) -> dict[str, Any]:
    """`extract` and `train` as a user would type them."""
    base = ["--base", "squeezenet", "--size", str(SIZE), "--cut", cut]
    cache = work / "caches" / f"fashion-{cut}"
    run = work / "runs" / f"fashion-{cut}"

    def extract() -> dict[str, Any]:
        measuring.fresh_cache(work, cache.name)
        done = watched(
            [*OURS, "extract", str(images), *base, "--cache", str(cache), "--json"], timeout=timeout
        )
        told = done.json()
        if told["computed"] + told["duplicates"] != told["images"] or told["reused"]:
            raise SystemExit(f"the cache was not fresh or images were rejected: {told}")
        return {
            **done.figures(),
            **{k: told[k] for k in ("images", "computed", "duplicates", "rows", "bottleneck_stage")},
        }

    def train() -> dict[str, Any]:
        shutil.rmtree(run, ignore_errors=True)
        command = [*OURS, "train", str(images), *base, "--validation", "0"]
        done = watched([*command, "--run", str(run), "--cache", str(cache), "--json"], timeout=timeout)
        told = done.json()
        return {
            **done.figures(),
            "fit_seconds": told["train_seconds"],
            "counts": told["counts"],
            "computed": told["extraction"]["computed"],
            "accuracy": told["metrics"]["test"]["accuracy"],
            "train_accuracy": told["metrics"]["train"]["accuracy"],
        }

    extracted = steps.run(f"ours, {cut}: extract", extract)
    trained = steps.run(f"ours, {cut}: train", train)
    if trained["computed"]:
        raise SystemExit(f"train computed {trained['computed']} images that extract should have stored")
    return {"extract": extracted, "train": trained, "accuracy": trained["accuracy"]}


def plain(images: Path, work: Path, cut: str, timeout: float) -> dict[str, Any]:
    """The script a user would write, in one process."""
    layer = {"avg_pool": "fire9_concat"}.get(cut, f"{cut}_concat")
    command = [*PLAIN, "accuracy", str(images), "--base", "squeezenet", "--size", str(SIZE), "--cut", layer]
    cache = {"BOTTLENECK_CACHE": str(work / "caches" / "weights")}
    done = watched(command, timeout=timeout, extra=cache)
    return {**done.figures(), **done.json()}


def report(found: dict[str, Any]) -> None:
    """Tables of all cuts that were measured."""
    rows = []
    for cut, both in found["cuts"].items():
        mine, other = both["ours"], both.get("plain")
        extract, train = mine["extract"], mine["train"]
        seconds = extract["seconds"] + train["seconds"]
        rows.append(
            [
                f"{cut}: bottleneck extract + train",
                f"{mine['accuracy']:.4f}",
                f"{extract['images'] / extract['seconds']:.0f}",
                f"{extract['seconds']:.1f}",
                f"{train['fit_seconds']:.1f}",
                f"{seconds:.1f}",
                f"{max(extract['peak_mib'], train['peak_mib']):.0f}",
            ]
        )
        if other:
            rows.append(
                [
                    f"{cut}: plain Keras + scikit-learn",
                    f"{other['accuracy']:.4f}",
                    f"{other['images'] / other['extract_seconds']:.0f}",
                    f"{other['extract_seconds']:.1f}",
                    f"{other['fit_seconds']:.1f}",
                    f"{other['seconds']:.1f}",
                    f"{other['peak_mib']:.0f}",
                ]
            )
    images = found["images"]
    measuring.table(
        f"Fashion-MNIST, SqueezeNet at {SIZE} px, {images['train']:,} train + {images['test']:,} test",
        ["", "test accuracy", "images/s", "extract s", "fit s", "all s", "peak MiB"],
        rows,
    )
    print(
        "  images/s: with process start (ours: the whole command; plain: from its first line after the imports);"
        "\n  fit s of ours holds the measuring of all splits; peak: parent and worker together, the larger command"
    )
    for cut, both in found["cuts"].items():
        if "points" in both:
            print(f"  {cut}: ours minus plain {both['points']:+.2f} points")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", type=Path, default=SOURCE, help="Folder of the *-ubyte.gz files.")
    parser.add_argument("--out", type=Path, help="Where the PNG files go.")
    parser.add_argument("--work", type=Path, default=measuring.WORK, help="Caches, runs, unfinished figures.")
    parser.add_argument(
        "--limit", type=int, metavar="N", help="The first N training images and a third as many for the test."
    )
    parser.add_argument("--cut", nargs="+", default=["fire8"], metavar="CUT", help="avg_pool, fire8.")
    parser.add_argument("--no-plain", action="store_true", help="Ours only.")
    parser.add_argument("--again", action="store_true", help="Forget steps of a start that was cut off.")
    parser.add_argument("--timeout", type=float, default=3600, metavar="SECONDS", help="For each step.")
    given = parser.parse_args()

    work = given.work.resolve()
    images = (given.out or work / f"fashion-mnist-{given.limit or 'all'}").resolve()
    counts = write_images(given.dataset, images, given.limit)
    measuring.squeezenet_weights(work)
    steps = Steps(work, "fashion_mnist", {"limit": given.limit, "images": str(images)}, again=given.again)
    found: dict[str, Any] = {"size": SIZE, "images": counts, "cuts": {}}
    for cut in given.cut:
        both: dict[str, Any] = {"ours": ours(images, work, cut, steps, given.timeout)}
        if not given.no_plain:
            both["plain"] = steps.run(f"plain, {cut}", lambda c=cut: plain(images, work, c, given.timeout))
            both["points"] = 100 * (both["ours"]["accuracy"] - both["plain"]["accuracy"])
        found["cuts"][cut] = both
    report(found)
    whole = given.limit is None
    met = [
        abs(both.get("points", 0.0)) <= POINTS and both["ours"]["accuracy"] >= LEAST
        for both in found["cuts"].values()
    ]
    found["met"] = any(met) if whole and not given.no_plain else None
    if found["met"] is not None:
        verdict = "met" if found["met"] else "NOT met"
        print(f"  asked for: within {POINTS} points of plain and at least {LEAST}: {verdict}")
    measuring.save("fashion_mnist" if whole else f"fashion_mnist_{given.limit}", found)
    steps.forget()
    return 1 if found["met"] is False else 0


if __name__ == "__main__":
    sys.exit(main())
