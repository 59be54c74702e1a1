"""Compare features of large photographs with full decoding and antialiased resize.

    python benchmarks/fidelity.py [--base squeezenet|mobilenetv2] [--images 64]

Beside ours, the pixels of the usual Keras recipe (full decoding, bilinear without antialiasing) are compared with the
same reference. Cosines are given as they are, and after the mean over the images is taken out: features share a large
part, which hides differences in the first. MobileNetV2 has random weights here. Figures go to
benchmarks/results/fidelity_*.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measuring
import numpy as np
from measuring import table
from subjects import BASES, LARGE, asked, photos


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", choices=("squeezenet", "mobilenetv2"), default="squeezenet")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--work", type=Path, default=measuring.WORK)
    given = parser.parse_args()
    given.size = BASES[given.base][2]
    measuring.squeezenet_weights(given.work)
    folder, made_of = photos(given.work, given.images, LARGE)
    rows = features(given, sorted(folder.glob("*/*.jpg")))
    found = {name: cosines(rows["antialiased"], rows[name]) for name in ("ours", "plain")}
    labels = {"ours": "bottleneck", "plain": "decode_jpeg + resize, as Keras does"}
    figures = ("min", "mean", "centred_min", "centred_mean")
    table(
        f"fidelity: {given.images} photographs of {LARGE[0]} x {LARGE[1]} ({made_of}), {given.base} at "
        f"{given.size} px: cosine to full decoding + antialiased resize",
        ["", "smallest", "mean", "centred: smallest", "mean"],
        [[labels[name], *(f"{one[figure]:.5f}" for figure in figures)] for name, one in found.items()],
    )
    measuring.save(
        f"fidelity_{given.base}",
        {"base": given.base, "images": given.images, "extent": LARGE, "made_of": made_of, **found},
    )


def features(given: argparse.Namespace, files: list[Path]) -> dict[str, np.ndarray]:
    """Compute the rows of each way from file to pixels."""
    import tensorflow as tf

    from bottleneck.forward.keras_forward import open_forward
    from bottleneck.schema import BaseRequest, Cache

    options = dict(zip(asked(given)[::2], asked(given)[1::2], strict=True))
    request = BaseRequest(**{name.removeprefix("--"): value for name, value in options.items()})
    forward: Any = open_forward([request], Cache(measuring.fresh_cache(given.work, "fidelity")))

    def resized(antialias: bool) -> Callable[[bytes], Any]:
        def pixels(data: bytes) -> Any:
            image = tf.image.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")
            return tf.image.resize(image, (given.size, given.size), antialias=antialias)

        return pixels

    ways = {"ours": forward.decode, "plain": resized(False), "antialiased": resized(True)}
    rows: dict[str, list[np.ndarray]] = {name: [] for name in ways}
    for at in range(0, len(files), forward.batch):
        data = [path.read_bytes() for path in files[at : at + forward.batch]]
        for name, way in ways.items():
            pixels = np.zeros((forward.batch, given.size, given.size, 3), np.float32)
            for slot, one in enumerate(data):
                pixels[slot] = way(one)
            rows[name].append(forward.features(pixels)[: len(data)])
    return {name: np.concatenate(parts).astype(np.float64) for name, parts in rows.items()}


def cosines(reference: np.ndarray, rows: np.ndarray) -> dict[str, float]:
    """Return smallest and mean cosine, with and without the mean."""

    def of(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.asarray((a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)))

    mean = reference.mean(0)
    plain, centred = of(reference, rows), of(reference - mean, rows - mean)
    return {
        "min": float(plain.min()),
        "mean": float(plain.mean()),
        "centred_min": float(centred.min()),
        "centred_mean": float(centred.mean()),
    }


if __name__ == "__main__":
    main()
