"""The deepest bases on photographs: what the certificate measures, allows and notices.

    python benchmarks/certify_deep.py [--only NAME ...]

`inception_v4` at 299 pixels as its user had it: two classes, 24 photographs to learn from and 12 to test, one
softmax layer by RMSprop and batches of one; merged, and exported to Keras, SavedModel, LiteRT and ONNX, each run by
a process without this package. Then the five bases of the catalog with the most layers, merged, at 224 pixels. All
have calibrated random weights; the photographs are parts of Debian's mate-backgrounds. For each: the network's
rounding as measured, what is allowed by it, the largest difference of any form in any way to call it, and the
distance of every broken twin. Figures go to benchmarks/results/certify_deep.json, of some bases alone to
certify_deep_part.json; exit status 1 when anything is not certified. A start that was cut off goes on where it
ended. Merging took 7 GiB at its peak, exporting 18 GiB in all processes together.
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

PHOTOGRAPHS = Path("/usr/share/backgrounds/mate/nature")
CLASSES = {
    "plants": ("Garden", "GreenMeadow", "LadyBird", "TwoWings", "FreshFlower", "YellowFlower"),
    "others": ("Aqua", "Blinds", "Dune", "RainDrops", "Storm", "Wood"),
}
#: Photographs of each class in each split: 24 and 12 in all.
SPLITS = {"train": 12, "test": 6}
EXPORTED = "inception_v4"
#: Of the catalog by layers, the quickest first.
DEEPEST = ("nasnetmobile", "inceptionresnetv2", "efficientnetb7", "nasnetlarge", "efficientnetv2l")
FORMATS = "keras,saved_model,litert,onnx"
HEAD = ["--head", "dense"]
for _setting in ("hidden=", "optimizer=rmsprop", "batch_size=1", "epochs=5", "patience=none"):
    HEAD += ["--set", _setting]


def photographs(work: Path) -> Path:
    """Cut photographs into `train` and `test` class folders, without overlap."""
    import numpy as np
    from PIL import Image

    folder = work / "photographs-deep"
    if folder.is_dir():
        return folder
    if not PHOTOGRAPHS.is_dir():
        raise SystemExit(f"{PHOTOGRAPHS} is not there: apt-get install mate-backgrounds")
    aside = folder.with_suffix(".new")
    shutil.rmtree(aside, ignore_errors=True)
    draw = np.random.default_rng(0)
    for label, names in CLASSES.items():
        for half, (split, count) in enumerate(SPLITS.items()):
            (aside / split / label).mkdir(parents=True)
            for number in range(count):
                with Image.open(PHOTOGRAPHS / f"{names[number % len(names)]}.jpg") as file:
                    picture = file.convert("RGB")
                width, height = picture.width // 2, picture.height
                side = int(min(width, height) * draw.uniform(0.6, 1.0))
                left = half * width + int(draw.integers(0, width - side + 1))
                top = int(draw.integers(0, height - side + 1))
                part = picture.crop((left, top, left + side, top + side)).resize((400, 400))
                part.save(aside / split / label / f"{number:02d}.jpg", quality=92)
    aside.rename(folder)
    return folder


def delivered(base: str, images: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Train, merge and export by the command line; return the certificates."""
    cache = given.work / "caches" / "certify-deep"
    run, out = (given.work / kind / f"deep-{base}" for kind in ("runs", "exports"))
    for place in (run, out):
        shutil.rmtree(place, ignore_errors=True)
    size = "299" if base == EXPORTED else "224"
    command = [*OURS, "train", str(images), "--base", base, "--weights", "random:0", "--size", size, *HEAD]
    asked = ["--cache", str(cache), "--json"]
    watched([*command, "--run", str(run), *asked], timeout=given.timeout)
    merging = [*OURS, "merge", str(run), "--out", str(out / "merged.keras"), *asked]
    figures = watched(merging, timeout=given.timeout).figures()
    found = {"size": int(size), "merge": figures, **told(out / "merged.parity.json")}
    if base == EXPORTED:
        command = [*OURS, "export", str(run), "--format", FORMATS, "--out", str(out / "all"), *asked]
        figures = watched([*command, "--images", "36"], timeout=given.timeout).figures()
        found["export"] = {**figures, **told(out / "all" / "parity.json")}
    shutil.rmtree(out)
    return found


def told(path: Path) -> dict[str, Any]:
    """Return the figures of a certificate that are kept."""
    proof = json.loads(path.read_text("utf-8"))
    distances = {
        twin["form"]: {d["quantity"]: d["largest"] for d in twin["differences"]} for twin in proof["twins"]
    }
    forms: dict[str, float] = {}
    for form in proof["forms"]:
        largest = max(item["largest"] for item in form["differences"])
        forms[form["form"]] = max(forms.get(form["form"], 0.0), largest)
    return {
        "verdict": proof["verdict"], "bound": proof["bound"], "forms": forms, "twins": distances,
        "still": proof["still"],
    }  # fmt: skip


def row(name: str, found: dict[str, Any]) -> tuple[list[str], bool]:
    """Return a line of the table, and whether it passed."""
    bound, forms = found["bound"], found["forms"]
    widest = max(forms, key=forms.__getitem__)
    weakest = min(
        (min(part for stage, part in parts.items() if stage != "probabilities"), twin)
        for twin, parts in found["twins"].items()
    )
    good = found["verdict"] == "certified" and weakest[0] > bound["margin"] * bound["value"]
    cells = [
        name, found["verdict"], f"{bound['measured']:.1e}", f"{bound['value']:.1e}", f"{forms[widest]:.1e}", widest,
        f"{weakest[0]:.2g}", weakest[1], f"{weakest[0] / bound['value']:,.0f}",
    ]  # fmt: skip
    return cells, good


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = (EXPORTED, *DEEPEST)
    parser.add_argument("--only", nargs="+", choices=names, default=list(names))
    parser.add_argument("--work", type=Path, default=measuring.WORK, help="Caches, runs, unfinished figures.")
    parser.add_argument("--again", action="store_true", help="Forget what an earlier start certified.")
    parser.add_argument("--timeout", type=float, default=3600, metavar="SECONDS", help="For each command.")
    given = parser.parse_args()
    given.work = given.work.resolve()
    images = photographs(given.work)
    steps = Steps(given.work, "certify-deep", {"splits": SPLITS, "head": HEAD}, again=given.again)
    found, rows, good = {}, [], True
    for base in given.only:
        found[base] = steps.run(base, lambda b=base: delivered(b, images, given))
        parts = {base: found[base]} | (
            {f"{base} exported": found[base]["export"]} if base == EXPORTED else {}
        )
        lines = [row(name, part) for name, part in parts.items()]
        rows += [cells for cells, _ in lines]
        fine = all(right for _, right in lines)
        good &= fine
        say(f"{base}: {'as it should be' if fine else 'NOT as it should be'}")
    header = ["", "verdict", "rounding", "allowed", "largest", "by", "weakest twin", "which", "of allowed"]
    measuring.table("deep bases on 24 and 12 photographs", header, rows)
    whole = set(given.only) == set(names)
    name = "certify_deep" if whole else "certify_deep_part"
    measuring.save(name, {"splits": SPLITS, "head": HEAD, "found": found})
    if whole:
        steps.forget()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
