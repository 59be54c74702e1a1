"""Certify every artefact of six networks with two heads.

    python benchmarks/certify.py [--only NAME ...] [--head NAME ...] [--images 16]

VGG16, InceptionV3, ResNet50, MobileNetV2 and EfficientNetB0 with calibrated random weights at about half of their size,
SqueezeNet with its own weights at its own, under a logistic head and a dense one with batch normalisation and dropout,
trained on coloured drawings (Debian's tuxpaint-stamps-default) by the command line as a user would. Each is exported to
every float32 format and to LiteRT float16; each artefact is run by a process without this package; what the
certificates say is put in one table. Figures go to benchmarks/results/certify.json; exit status 1 when anything is not
certified or a twin gets through. A start that was cut off goes on where it ended.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import measuring
from measuring import OURS, Steps, say
from watching import watched

STAMPS = Path("/usr/share/tuxpaint/stamps")
CLASSES = ("animals", "food", "plants", "seasonal", "symbols", "town")
BASES = {
    "vgg16": ["--weights", "random:0", "--size", "128"],
    "inceptionv3": ["--weights", "random:0", "--size", "160"],
    "resnet50": ["--weights", "random:0", "--size", "128"],
    "mobilenetv2": ["--weights", "random:0", "--size", "128"],
    "efficientnetb0": ["--weights", "random:0", "--size", "128"],
    "squeezenet": [],
}
HEADS = {
    "logistic": [],
    "dense": [
        *("--set", "hidden=64", "--set", "batch_norm=true", "--set", "dropout=0.3"),
        *("--set", "epochs=20", "--set", "patience=none"),
    ],
}
#: Drawings that each form is compared on, beside the 32 probes.
OWN = 32
FORMATS = ("keras", "saved_model", "litert", "litert-float16", "onnx", "openvino")


def drawings(work: Path, count: int) -> Path:
    """Class folders of `count` drawings each, at most 500 KB a file."""
    folder = work / f"drawings-{count}"
    if folder.is_dir():
        return folder
    if not STAMPS.is_dir():
        raise SystemExit(f"{STAMPS} is not there: apt-get install tuxpaint-stamps-default")
    aside = folder.with_suffix(".new")
    shutil.rmtree(aside, ignore_errors=True)
    for name in CLASSES:
        (aside / name).mkdir(parents=True)
        files = sorted(f for f in (STAMPS / name).rglob("*.png") if f.stat().st_size < 500_000)
        for number, file in enumerate(files[:: max(1, len(files) // count)][:count]):
            shutil.copyfile(file, aside / name / f"{number:03d}-{file.name}")
    aside.rename(folder)
    return folder


def certified(base: str, head: str, images: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Train and export by the command line; what the certificate says."""
    cache = given.work / "caches" / "certify"
    run, out = (given.work / kind / f"certify-{base}-{head}" for kind in ("runs", "exports"))
    shutil.rmtree(run, ignore_errors=True)
    train = [*OURS, "train", str(images), "--base", base, *BASES[base], "--head", head, *HEADS[head]]
    watched(
        [*train, "--run", str(run), "--cache", str(cache), "--max-bad", "0.05", "--json"],
        timeout=given.timeout,
    )
    export = [*OURS, "export", str(run), "--format", ",".join(FORMATS), "--out", str(out), "--json"]
    done = watched([*export, "--images", str(OWN)], timeout=given.timeout)
    proof = json.loads((out / "parity.json").read_text("utf-8"))
    sizes = {f.name: sum(p.stat().st_size for p in [f, *f.rglob("*")] if p.is_file()) for f in out.iterdir()}
    shutil.rmtree(out)
    return {**done.figures(), "certificate": proof, "bytes": sizes}


def row(base: str, head: str, found: dict[str, Any]) -> tuple[list[str], bool]:
    """Return a line of the table, and whether it passed."""
    proof = found["certificate"]
    worst: dict[str, float] = {}
    agreement: dict[str, float] = {}
    for form in proof["forms"]:
        name = form["form"]
        largest = max(item["largest"] for item in form["differences"])
        worst[name] = max(worst.get(name, 0.0), largest)
        agreement[name] = min(agreement.get(name, 1.0), form["top1"])
    held = {name: value for name, value in worst.items() if not name.startswith("litert")}
    noticed = [t for t in proof["twins"] if not t["passed"]]
    weakest = min(
        max(item["largest"] for item in t["differences"] if item["quantity"] == "logits")
        for t in proof["twins"]
    )
    good = (
        proof["verdict"] == "certified"
        and len(noticed) == len(proof["twins"])
        and max(held.values()) <= proof["bound"]["value"]
    )
    least = min((agreement[n] for n in agreement if "16" in n), default=float("nan"))
    cells = [
        f"{base} {head}",
        proof["verdict"],
        str(len(worst)),
        f"{max(held.values()):.1e}",
        max(held, key=held.__getitem__),
        f"{worst['litert']:.1e}",
        f"{least:.3f}",
        f"{len(noticed)} of {len(proof['twins'])}",
        f"{weakest:.2g}",
        f"{found['seconds']:.0f}",
    ]
    return cells, good


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=BASES, default=list(BASES))
    parser.add_argument("--head", nargs="+", choices=HEADS, default=list(HEADS))
    parser.add_argument("--images", type=int, default=16, help="Of each of the six classes.")
    parser.add_argument("--work", type=Path, default=measuring.WORK, help="Caches, runs, unfinished figures.")
    parser.add_argument("--again", action="store_true", help="Forget what an earlier start certified.")
    parser.add_argument("--timeout", type=float, default=3600, metavar="SECONDS", help="For each command.")
    given = parser.parse_args()
    given.work = given.work.resolve()
    images = drawings(given.work, given.images)
    steps = Steps(given.work, "certify", {"images": given.images, "own": OWN}, again=given.again)
    found, rows, good = {}, [], True
    for base in given.only:
        for head in given.head:
            name = f"{base} {head}"
            found[name] = steps.run(name, lambda b=base, h=head: certified(b, h, images, given))
            cells, fine = row(base, head, found[name])
            rows.append(cells)
            good &= fine
            say(f"{name}: {'as it should be' if fine else 'NOT as it should be'}")
    measuring.table(
        f"certified exports, {given.images} drawings of each of {len(CLASSES)} classes",
        [
            "",
            "verdict",
            "forms",
            "largest",
            "by",
            "LiteRT",
            "float16 top-1",
            "twins refused",
            "weakest twin",
            "export s",
        ],
        rows,
    )
    print(
        "  largest: of a float32 form, as a share of the spread between images; the bound is allowed, LiteRT 1e-3"
    )
    whole = set(given.only) == set(BASES) and set(given.head) == set(HEADS)
    if whole:
        measuring.save("certify", {"images": given.images, "own": OWN, "formats": FORMATS, "found": found})
        steps.forget()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
