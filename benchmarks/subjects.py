"""Make the photographs and networks that the benchmarks run on."""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from measuring import say
from watching import watched

STAMPS = Path("/usr/share/tuxpaint/stamps")
#: Layer that both sides average over, and its name as a cut of ours.
BASES = {
    "squeezenet": ("avg_pool", "fire9_concat", 227),
    "mobilenetv2": ("avg_pool", "out_relu", 224),
    "vgg16": ("pool5", "block5_pool", 224),
    "inceptionv3": ("avg_pool", "mixed10", 299),
}
#: A run over so few images is nearly all start; the difference to it gives the steady rate (none where there is
#: hardly a difference: then there are too few images, or others use the machine).
FEW = 64


#: Width and height of photographs: as data sets have them, and as telephones take them (12 megapixels).
USUAL, LARGE = (500, 375), (4000, 3000)
#: So many pictures of 12 megapixels are drawn (up to a second each); the files after them repeat them.
DRAWN = 400


def photos(work: Path, count: int, extent: tuple[int, int] = USUAL) -> tuple[Path, str]:
    """Write `count` structured JPEG files in ten class folders.

    All files differ; one of 12 megapixels has 3 MB. Of those, the 401st shows the first picture again, under a comment
    of its own, and so on: a decoder has the same work, neither side can take two files for one.
    """
    stamps = sorted(STAMPS.rglob("*.png"))
    made_of = "tuxpaint stamps on white" if stamps else "synthetic slopes, waves and noise"
    drawn = count if extent == USUAL else min(count, DRAWN)
    if drawn < count:
        made_of += f", {drawn} pictures that recur"
    folder = work / (f"photos-{count}" if extent == USUAL else f"photos-{count}-{extent[0]}x{extent[1]}")
    if len(list(folder.glob("*/*.jpg"))) == count:
        return folder, made_of
    say(f"making {count} JPEG files of {made_of}")
    shutil.rmtree(folder, ignore_errors=True)
    for number in range(10):
        (folder / f"class{number}").mkdir(parents=True)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        shares = range(os.cpu_count() or 1)
        list(pool.map(functools.partial(_photos, folder, drawn, extent, stamps, len(shares)), shares))
    for number in range(drawn, count):
        picture = _place(folder, number % drawn).read_bytes()
        _place(folder, number).write_bytes(_commented(picture, f"file {number}"))
    return folder, made_of


def _place(folder: Path, number: int) -> Path:
    return folder / f"class{number % 10}" / f"{number:05d}.jpg"


def _commented(jpeg: bytes, comment: str) -> bytes:
    """That JPEG file with a comment segment after its first marker."""
    text = comment.encode()
    return jpeg[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + jpeg[2:]


def _photos(
    folder: Path, count: int, extent: tuple[int, int], stamps: list[Path], shares: int, share: int
) -> None:
    import numpy as np
    from PIL import Image

    width, height = extent
    noise = np.random.default_rng(0).normal(0, 1, (height, width)).astype(np.float32)

    def synthetic(rng: np.random.Generator) -> Image.Image:
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        a, b, c = rng.uniform(0.01, 0.2, 3)
        planes = [127 + 100 * np.sin(a * x), 127 + 100 * np.sin(b * y), 127 + 100 * np.cos(c * (x + y))]
        return grained(np.stack(planes, -1), 20, rng)

    def stamped(rng: np.random.Generator, number: int) -> Image.Image:
        # A photo is full of detail from edge to edge: four stamps, turned, on white, with a little grain.
        sheet = Image.new("RGB", extent, "white")
        tile = ((width + 1) // 2, (height + 1) // 2)
        for corner in range(4):
            with Image.open(stamps[(number * 4 + corner) % len(stamps)]) as file:
                stamp = file.convert("RGBA")
            stamp = stamp.rotate(float(rng.uniform(-30, 30)), expand=True).resize(tile)
            sheet.paste(stamp, (width // 2 * (corner % 2), height // 2 * (corner // 2)), stamp)
        return grained(np.asarray(sheet), 6, rng)

    def grained(values: np.ndarray, strength: float, rng: np.random.Generator) -> Image.Image:
        moved = np.roll(noise, tuple(rng.integers(0, (height, width))), (0, 1))
        return Image.fromarray(np.clip(values + strength * moved[..., None], 0, 255).astype(np.uint8))

    for number in range(share, count, shares):
        rng = np.random.default_rng(number)
        image = stamped(rng, number) if stamps else synthetic(rng)
        image.save(_place(folder, number), quality=90)


def weights(work: Path, base: str, size: int) -> list[str]:
    """`--weights` for both sides: SqueezeNet's trained ones, else one file of `plain.random_numbers`."""
    if base == "squeezenet":
        return []
    path = work / "weights" / f"{base}-{size}-none-zero.weights.h5"
    if not path.is_file():
        say(f"writing random weights for {base}")
        path.parent.mkdir(parents=True, exist_ok=True)
        code = (
            "import sys; sys.path.insert(0, sys.argv[1]); import plain\n"
            "plain.random_numbers(sys.argv[2], int(sys.argv[3])).save_weights(sys.argv[4])"
        )
        watched(
            [sys.executable, "-c", code, str(Path(__file__).parent), base, str(size), str(path)], timeout=600
        )
    return ["--weights", str(path)]


def asked(given: argparse.Namespace) -> list[str]:
    """Return the BASE options of our side."""
    cut, _, own_size = BASES[given.base]
    size = given.size or own_size
    pooling = ["--pooling", "avg"] if cut != "avg_pool" else []
    trained = weights(given.work, given.base, size)
    return ["--base", given.base, "--size", str(size), *trained, "--cut", cut, *pooling]
