"""What the benchmarks run on: photographs that are made here, and networks at one layer with weights for both sides."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from measuring import say, watched

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


def photos(work: Path, count: int) -> tuple[Path, str]:
    """`count` structured JPEG files of 500 x 375 in ten class folders, and what they are made of. All differ."""
    import numpy as np
    from PIL import Image

    stamps = sorted(STAMPS.rglob("*.png"))
    made_of = "tuxpaint stamps on white" if stamps else "synthetic slopes, waves and noise"
    folder = work / f"photos-{count}"
    if len(list(folder.glob("*/*.jpg"))) == count:
        return folder, made_of
    say(f"making {count} JPEG files of {made_of}")
    shutil.rmtree(folder, ignore_errors=True)
    rng = np.random.default_rng(0)

    def synthetic() -> Image.Image:
        y, x = np.mgrid[0:375, 0:500].astype(np.float32)
        a, b, c = rng.uniform(0.01, 0.2, 3)
        planes = [127 + 100 * np.sin(a * x), 127 + 100 * np.sin(b * y), 127 + 100 * np.cos(c * (x + y))]
        noise = rng.normal(0, 20, (375, 500, 3)) * (x > 250)[..., None]
        return Image.fromarray(np.clip(np.stack(planes, -1) + noise, 0, 255).astype(np.uint8))

    def stamped(number: int) -> Image.Image:
        # A photo is full of detail from edge to edge: four stamps, turned, on white, with a little grain.
        sheet = Image.new("RGB", (500, 375), "white")
        for corner in range(4):
            with Image.open(stamps[(number * 4 + corner) % len(stamps)]) as file:
                stamp = file.convert("RGBA")
            stamp = stamp.rotate(float(rng.uniform(-30, 30)), expand=True).resize((250, 188))
            sheet.paste(stamp, (250 * (corner % 2), 187 * (corner // 2)), stamp)
        grain = rng.normal(0, 6, (375, 500, 1))
        return Image.fromarray(np.clip(np.asarray(sheet) + grain, 0, 255).astype(np.uint8))

    for number in range(count):
        path = folder / f"class{number % 10}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        (stamped(number) if stamps else synthetic()).save(path, quality=90)
    return folder, made_of


def weights(work: Path, base: str, size: int) -> list[str]:
    """`--weights` for both sides: SqueezeNet's trained ones, else one file of random numbers."""
    if base == "squeezenet":
        return []
    path = work / "weights" / f"{base}-{size}.weights.h5"
    if not path.is_file():
        say(f"writing random weights for {base}")
        path.parent.mkdir(parents=True, exist_ok=True)
        code = (
            "import sys; sys.path.insert(0, sys.argv[1]); import plain\n"
            "import keras; m, _ = plain.network(sys.argv[2], int(sys.argv[3]), None); m.save_weights(sys.argv[4])"
        )
        watched(
            [sys.executable, "-c", code, str(Path(__file__).parent), base, str(size), str(path)], timeout=600
        )
    return ["--weights", str(path)]


def asked(given: argparse.Namespace) -> list[str]:
    """The BASE options of our side: the layer that both sides average over."""
    cut, _, own_size = BASES[given.base]
    size = given.size or own_size
    pooling = ["--pooling", "avg"] if cut != "avg_pool" else []
    trained = weights(given.work, given.base, size)
    return ["--base", given.base, "--size", str(size), *trained, "--cut", cut, *pooling]
