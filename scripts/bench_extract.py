"""JPEG files to features on disk: our command, in several precisions, against the recipes people write.

Part of scripts/bench.py (`extract`). The recipes are scripts/plain.py and, with --peers, scripts/plain_torch.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import measuring
from measuring import OURS, PLAIN, Steps, Watched, shown, table, watched
from rounds import column, in_rounds, ratio
from subjects import BASES, FEW, asked, photos, weights

PEERS = measuring.ROOT / ".venv-peers" / "bin" / "python"


def extract(given: argparse.Namespace, steps: Steps) -> dict[str, Any]:
    """JPEG files to features on disk: our command against image_dataset_from_directory + predict + np.save."""
    _, layer, own_size = BASES[given.base]
    size = given.size or own_size
    folder, made_of = photos(given.work, given.images)
    few, _ = photos(given.work, FEW)
    base = ["--base", given.base, "--size", str(size), *weights(given.work, given.base, size)]

    def ours(precision: str) -> dict[str, Any]:
        def once(images: Path) -> Watched:
            cache = measuring.fresh_cache(given.work, "bench-extract")
            command = [*OURS, "extract", str(images), *asked(given), "--precision", precision]
            done = watched([*command, "--cache", str(cache), "--json"], timeout=given.timeout)
            if done.json()["computed"] != done.json()["images"]:
                raise SystemExit(f"not every image was computed: {done.output}")
            return done

        return figures(once(few), once(folder))

    def plain(_: int) -> dict[str, Any]:
        def once(images: Path) -> Watched:
            out = given.work / "plain-features.npy"
            out.unlink(missing_ok=True)
            command = [*PLAIN, "features", str(images), "--out", str(out), *base, "--cut", layer]
            cache = {"BOTTLENECK_CACHE": str(given.work / "caches" / "weights")}
            return watched(command, timeout=given.timeout, extra=cache)

        return figures(once(few), once(folder))

    def torch(*more: str) -> dict[str, Any]:
        def once(images: Path) -> Watched:
            out = given.work / "torch-features.npy"
            out.unlink(missing_ok=True)
            command = [
                str(PEERS),
                str(Path(__file__).with_name("plain_torch.py")),
                str(images),
                "--out",
                str(out),
            ]
            command += ["--base", given.base, "--size", str(size), *more]
            return watched(command, timeout=given.timeout)

        return figures(once(few), once(folder))

    def figures(short: Watched, whole: Watched) -> dict[str, Any]:
        images, seconds = given.images - FEW, whole.seconds - short.seconds
        return {
            **whole.figures(),
            "start_seconds": short.seconds,
            "images_per_second": given.images / whole.seconds,
            "steady_images_per_second": images / seconds if seconds > 0.1 * whole.seconds else None,
            "steady_cpu_ms": 1000 * (whole.cpu_seconds - short.cpu_seconds) / images,
        }

    ways = given.precision.split(",")
    contenders = {way: (lambda _, precision=way: ours(precision)) for way in ways} | {"plain": plain}
    if given.peers:
        contenders |= {"torch": lambda _: torch(), "torch bfloat16": lambda _: torch("--bfloat16")}
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
    labels = {way: f"bottleneck extract, {way}" for way in ways} | {"plain": "Keras + np.save"}
    labels |= {"torch": "torch + np.save", "torch bfloat16": "torch + np.save, bfloat16"}
    table(
        f"extract: {given.images} JPEG files of 500 x 375 ({made_of}), {given.base} at {size} px, "
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
        "made_of": made_of,
        **rows,
        "ratio": speed,
        "rounds": rounds,
    }
