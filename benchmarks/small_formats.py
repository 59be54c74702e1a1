"""Measure what rounding costs in every kind of export.

    python benchmarks/small_formats.py [--images 1000]

The logistic head on `fire8` of the first 10,000 training images (Debian's ``dataset-fashion-mnist``), exported to every
kind by the command line; agreement with the cached head and accuracy are those that `export` itself measures, on
held-out images, by running each file in a process of its own. Figures go to benchmarks/results/small_formats.json; exit
status 1 when float16 is larger than 0.55 of float32 or is not delivered, or a kind below the gate is.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import fashion_mnist
import measuring
from measuring import OURS, Steps
from watching import watched

SIZE = 96
GATE = 0.97


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", type=Path, default=fashion_mnist.SOURCE, help="Folder of *-ubyte.gz.")
    parser.add_argument("--limit", type=int, default=10_000, help="Training images.")
    parser.add_argument("--images", type=int, default=1000, help="Held-out images to compare on.")
    parser.add_argument("--work", type=Path, default=measuring.WORK, help="Caches, runs, unfinished figures.")
    parser.add_argument("--again", action="store_true", help="Forget steps of a start that was cut off.")
    parser.add_argument("--timeout", type=float, default=3600, metavar="SECONDS", help="For each command.")
    given = parser.parse_args()
    work = given.work.resolve()
    images = work / f"fashion-mnist-{given.limit}"
    fashion_mnist.write_images(given.dataset, images, given.limit)
    measuring.squeezenet_weights(work)
    steps = Steps(work, "small_formats", {"limit": given.limit, "images": given.images}, again=given.again)
    run, out = work / "runs" / "small-formats", work / "exports" / "small-formats"
    cache = work / "caches" / "small-formats"

    def train() -> dict[str, Any]:
        measuring.fresh_cache(work, cache.name)
        shutil.rmtree(run, ignore_errors=True)
        command = [*OURS, "train", str(images), "--base", "squeezenet", "--size", str(SIZE), "--cut", "fire8"]
        done = watched([*command, "--run", str(run), "--cache", str(cache), "--json"], timeout=given.timeout)
        return {"metrics": {name: m["accuracy"] for name, m in done.json()["metrics"].items()}}

    def export() -> dict[str, Any]:
        command = [*OURS, "export", str(run), "--format", "all", "--images", str(given.images)]
        done = watched([*command, "--gate", str(GATE), "--out", str(out), "--json"], timeout=given.timeout)
        return {**done.figures(), "card": json.loads((out / "card.json").read_text("utf-8"))}

    trained, exported = steps.run("train", train), steps.run("export", export)
    card = exported["card"]
    tried = [{**item, "delivered": True} for item in card["artefacts"]]
    tried += [{**item, "delivered": False} for item in card["refused"]]
    rows, kinds = [], {}
    for item in tried:
        forms = [f for f in card["certificate"]["forms"] if f["form"] == item["kind"]]
        judged = [f for f in forms if f["images"] == "own images"] or forms
        form = judged[-1] if judged else None
        kinds[item["kind"]] = {**item, "top1": form and form["top1"], "accuracy": form and form["accuracy"]}
        accuracy = form and form["accuracy"]
        rows.append(
            [
                item["kind"],
                f"{item['bytes'] / 1e6:.2f}" if item.get("bytes") else "-",
                f"{item['milliseconds']:.1f}" if item.get("milliseconds") else "-",
                f"{form['top1']:.3f}" if form else "-",
                f"{accuracy['form']:.4f} ({accuracy['head']:.4f})" if accuracy else "-",
                "delivered" if item["delivered"] else "refused",
            ]
        )
    measuring.table(
        f"SqueezeNet at {SIZE} px, fire8, logistic, Fashion-MNIST; {given.images} held-out images",
        ["kind", "MB", "ms an image", "same first choice", "accuracy (head's)", ""],
        rows,
    )
    whole, half = kinds["litert"]["bytes"], kinds["litert-float16"]
    share = half["bytes"] / whole
    good = half["delivered"] and share <= 0.55
    good &= all(
        one["delivered"] == (one["top1"] >= GATE)
        for one in kinds.values()
        if "-" in one["kind"] and one["top1"] is not None
    )
    print(f"  float16 has {share:.2f} of float32's size; {'as asked for' if good else 'NOT as asked for'}")
    measuring.save(
        "small_formats",
        {
            "size": SIZE,
            "gate": GATE,
            "images": given.images,
            "trained": trained,
            "kinds": kinds,
            "float16_share": share,
        },
    )
    steps.forget()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
