"""Compare extraction of JPEG files with the recipes people write.

Part of benchmarks/bench.py (`extract`). The recipes are benchmarks/plain.py and, with --peers,
benchmarks/plain_torch.py, each with the number of its own that is fastest here: Keras' batch, torch's loaders.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import measuring
from measuring import OURS, PLAIN, Steps, say, shown, table
from rounds import column, in_rounds, ratio
from subjects import BASES, FEW, LARGE, USUAL, asked, photos, weights
from watching import Watched, watched

#: So many images tell which batch, or how many loaders, are fastest.
TUNING = 384

PEERS = measuring.ROOT / ".venv-peers" / "bin" / "python"
_TORCH = str(Path(__file__).with_name("plain_torch.py"))


def extract(given: argparse.Namespace, steps: Steps) -> dict[str, Any]:
    """Time our command and `image_dataset_from_directory` + `predict` + `np.save`."""
    _, layer, own_size = BASES[given.base]
    size = given.size or own_size
    extent = LARGE if given.large else USUAL
    folder, made_of = photos(given.work, given.images, extent)
    few, _ = photos(given.work, FEW, extent)
    some, _ = photos(given.work, min(given.images, TUNING), extent)
    base = ["--base", given.base, "--size", str(size), *weights(given.work, given.base, size)]

    def ours(precision: str, images: Path) -> Watched:
        cache = measuring.fresh_cache(given.work, "bench-extract")
        command = [*OURS, "extract", str(images), *asked(given), "--precision", precision]
        done = watched([*command, "--cache", str(cache), "--json"], timeout=given.timeout)
        if done.json()["computed"] != done.json()["images"]:
            raise SystemExit(f"not every image was computed: {done.output}")
        return done

    def plain(batch: int, images: Path, said: Mapping[str, str] = MappingProxyType({})) -> Watched:
        out = given.work / "plain-features.npy"
        out.unlink(missing_ok=True)
        command = [*PLAIN, "features", str(images), "--out", str(out), *base, "--cut", layer]
        cache = {"BOTTLENECK_CACHE": str(given.work / "caches" / "weights")}
        return watched([*command, "--batch", str(batch)], timeout=given.timeout, extra={**cache, **said})

    def torch(loaders: int, more: list[str], images: Path) -> Watched:
        out = given.work / "torch-features.npy"
        out.unlink(missing_ok=True)
        command = [
            str(PEERS),
            _TORCH,
            str(images),
            "--out",
            str(out),
            "--base",
            given.base,
            "--size",
            str(size),
        ]
        return watched([*command, "--loaders", str(loaders), *more], timeout=given.timeout)

    def figures(run: Callable[[Path], Watched]) -> dict[str, Any]:
        short, whole = run(few), run(folder)
        images, seconds = given.images - FEW, whole.seconds - short.seconds
        return {
            **whole.figures(),
            "start_seconds": short.seconds,
            "images_per_second": given.images / whole.seconds,
            "steady_images_per_second": images / seconds if seconds > 0.1 * whole.seconds else None,
            "steady_cpu_ms": 1000 * (whole.cpu_seconds - short.cpu_seconds) / images,
        }

    def fastest(what: str, choices: Sequence[int], run: Callable[[int, Path], Watched]) -> int:
        """By one run each."""

        def tried() -> dict[str, float]:
            return {str(choice): run(choice, some).seconds for choice in choices}

        seconds: dict[str, float] = steps.run(what, tried)
        tuned[what] = seconds
        chosen = min(seconds, key=seconds.__getitem__)
        say(f"{what}: {chosen}")
        return int(chosen)

    tuned: dict[str, dict[str, float]] = {}
    ways = given.precision.split(",")
    batch = fastest("batch of the Keras recipe", (16, 32, 64), plain)
    runs: dict[str, Callable[[Path], Watched]] = {way: functools.partial(ours, way) for way in ways}
    runs["plain"] = functools.partial(plain, batch)
    if given.onednn:
        said = {"TF_ENABLE_ONEDNN_OPTS": "1"}
        batch = fastest(
            "batch of the Keras recipe with oneDNN", (16, 32, 64), functools.partial(plain, said=said)
        )
        runs["plain onednn"] = functools.partial(plain, batch, said=said)
    if given.peers:
        for name, more in {"torch": [], "torch bfloat16": ["--bfloat16"]}.items():
            loaders = fastest(
                f"loaders of {name}",
                (1, 2),
                lambda count, images, extra=more: torch(count, extra, images),  # type: ignore[misc]
            )
            runs[name] = functools.partial(torch, loaders, more)
    contenders = {name: (lambda _, run=run: figures(run)) for name, run in runs.items()}
    # Finding the fastest numbers has brought the libraries into memory; the files are brought there as well.
    for path in folder.glob("*/*.jpg"):
        path.read_bytes()
    rounds = in_rounds(steps, given.rounds, contenders, warm=False)
    wanted = {
        "seconds": ("all told, s", 1),
        "start_seconds": (f"{FEW} images, s", 1),
        "images_per_second": ("images/s", 1),
        "steady_images_per_second": ("steady images/s", 1),
        "steady_cpu_ms": ("CPU ms an image", 2),
        "peak_mib": ("peak MiB", 0),
    }
    rows = {name: {f: column(rounds, name, f) for f in wanted} for name in contenders}
    rates = ("images_per_second", "steady_images_per_second")
    speed = {way: {f: ratio(rounds, way, "plain", f) for f in rates} for way in ways}
    for way in ways if given.peers else []:
        peer = "torch" if way == "float32" else "torch bfloat16"
        speed[f"{way} against {peer}"] = {f: ratio(rounds, way, peer, f) for f in rates}
    for way in ways if given.onednn else []:
        speed[f"{way} against plain onednn"] = {f: ratio(rounds, way, "plain onednn", f) for f in rates}
    labels = {way: f"bottleneck extract, {way}" for way in ways} | {"plain": "Keras + np.save"}
    labels |= {"plain onednn": "Keras + np.save, oneDNN asked for"}
    labels |= {"torch": "torch + np.save", "torch bfloat16": "torch + np.save, bfloat16"}
    table(
        f"extract: {given.images} JPEG files of {extent[0]} x {extent[1]} ({made_of}), {given.base} at {size} px, "
        f"{given.rounds} rounds",
        ["", *(title for title, _ in wanted.values())],
        [
            [labels[name], *(shown(rows[name][f], digits) for f, (_, digits) in wanted.items())]
            for name in contenders
        ],
    )
    for way, found in speed.items():
        name = way if "against" in way else f"{way} against plain"
        print(
            f"  {name}: images/s {shown(found['images_per_second'])}, steady "
            f"{shown(found['steady_images_per_second'])}; steady: {given.images} images less the {FEW}"
        )
    return {
        "base": given.base,
        "size": size,
        "images": given.images,
        "extent": extent,
        "made_of": made_of,
        "tuned_seconds": tuned,
        **rows,
        "ratio": speed,
        "rounds": rounds,
    }
