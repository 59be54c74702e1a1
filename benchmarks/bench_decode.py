"""Compare our JPEG decoder with Keras, antialiased resize and Pillow.

The last row is the least that any use of TensorFlow's codec, libjpeg-turbo, costs.

Part of benchmarks/bench.py (`decode`). One process, files in memory, as many threads as there are processors, in turn.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from measuring import Steps, shown, spread, table
from subjects import BASES, LARGE, USUAL, photos
from watching import watched

from bottleneck.extraction.worker import channel

LABELS = {
    "ours": "bottleneck: DCT ratio, box averages, bilinear",
    "graph": "the same pixels by TensorFlow's decoder alone, as without Numba",
    "plain": "tf.image.decode_jpeg + resize, as Keras does",
    "antialiased": "the same, antialias=True",
    "pillow": "Pillow, bilinear",
    "draft": "Pillow with draft(), bilinear",
    "floor": "libjpeg-turbo's least: grey at an eighth, undoing the entropy coding and little else",
}


def decode(given: argparse.Namespace, steps: Steps) -> dict[str, Any]:
    """Measure images a second from file bytes to pixels."""
    extent = LARGE if given.large else USUAL
    folder, made_of = photos(given.work, given.images, extent)
    size = given.size or BASES[given.base][2]
    command = [sys.executable, __file__, str(folder), "--size", str(size), "--rounds", str(given.rounds)]
    as_a_worker = channel.worker_environment()
    found = steps.run("all rounds", lambda: watched(command, timeout=given.timeout, extra=as_a_worker).json())
    rates = {name: spread(values) for name, values in found.items()}
    ratios = {
        name: spread(a / b for a, b in zip(found["ours"], found[name], strict=True))
        for name in found
        if name != "ours"
    }
    table(
        f"decode: {given.images} JPEG files of {extent[0]} x {extent[1]} ({made_of}) to {size} px, "
        f"{given.rounds} rounds",
        ["", "images/s", "ours against it"],
        [
            [LABELS[name], shown(rates[name], 1), shown(ratios[name]) if name in ratios else "-"]
            for name in rates
        ],
    )
    return {"images": given.images, "extent": extent, "size": size, "rates": rates, "ratios": ratios}


def main() -> None:
    """All rounds, in this process; prints one JSON line."""
    import numpy as np
    import tensorflow as tf
    from PIL import Image

    from bottleneck.pixels.contract.decode import decoder
    from bottleneck.pixels.decoder import Decoder
    from bottleneck.schema import Pixels

    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    size = given.size
    ours = Decoder(Pixels(height=size, width=size))
    signature = [tf.TensorSpec([], tf.string)]

    def resized(antialias: bool) -> Callable[[bytes], Any]:
        return tf.function(
            lambda data: tf.image.resize(
                tf.image.decode_jpeg(data, channels=3), (size, size), antialias=antialias
            ),
            input_signature=signature,
        )

    def pillow(data: bytes, draft: bool) -> Any:
        with Image.open(io.BytesIO(data)) as image:
            if draft:
                image.draft("RGB", (size, size))
            return np.asarray(
                image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR), np.float32
            )

    ways: dict[str, Callable[[bytes], Any]] = {
        "ours": ours,
        "graph": decoder(size, size),
        "plain": resized(False),
        "antialiased": resized(True),
        "pillow": lambda data: pillow(data, False),
        "draft": lambda data: pillow(data, True),
        "floor": tf.function(
            lambda data: tf.image.decode_jpeg(data, channels=1, ratio=8), input_signature=signature
        ),
    }
    files = [path.read_bytes() for path in sorted(given.folder.glob("*/*.jpg"))]
    rates: dict[str, list[float]] = {name: [] for name in ways}
    with ThreadPoolExecutor(os.cpu_count()) as pool:

        def run(way: Callable[[bytes], Any], some: list[bytes]) -> float:
            started = time.perf_counter()
            for pixels in pool.map(way, some):
                np.asarray(pixels)
            return len(some) / (time.perf_counter() - started)

        for name, way in ways.items():
            # Some of ours is set up only after many files.
            run(way, files if name == "ours" else files[:8])
        ours.ready()
        for number in range(given.rounds):
            for name in list(ways) if number % 2 else list(ways)[::-1]:
                rates[name].append(run(ways[name], files))
    print(json.dumps(rates))


if __name__ == "__main__":
    main()
