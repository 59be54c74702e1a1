"""Compare two cuts in one pass with the deeper one alone."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import measuring
from measuring import OURS, Steps, shown, table
from rounds import column, in_rounds, ratio
from watching import watched

#: The shallower cut, then the deeper one.
CUTS = {"vgg16": ("pool4", "pool5"), "mobilenetv2": ("block_13_expand_relu", "out_relu")}


def cuts(given: argparse.Namespace, steps: Steps, folder: Path) -> dict[str, Any]:
    """Fill the stores of two cuts, and of the deeper one."""
    if given.base not in CUTS:
        raise SystemExit(f"--base: one of {', '.join(CUTS)}")
    shallow, deep = CUTS[given.base]
    base = ["--base", given.base, "--weights", "random:0", "--pooling", "avg"]
    base += ["--size", str(given.size)] if given.size else []
    base += ["--precision", given.precision]

    def once(cut: str) -> dict[str, Any]:
        cache = measuring.fresh_cache(given.work, "bench-cuts")
        command = [*OURS, "extract", str(folder), *base, "--cut", cut, "--cache", str(cache), "--json"]
        done = watched(command, timeout=given.timeout)
        found = done.json()
        several = list(found.get("cuts", {"": found}).values())
        for one in several:
            if one["computed"] != given.images:
                raise SystemExit(f"not every image was computed: {done.output}")
        return {**done.figures(), "pass_seconds": several[0]["seconds"]}

    contenders = {"both": lambda _: once(f"{shallow},{deep}"), "deep": lambda _: once(deep)}
    rounds = in_rounds(steps, given.rounds, contenders)
    over = {name: ratio(rounds, "both", "deep", name) for name in ("seconds", "pass_seconds", "peak_mib")}
    rows = {
        name: {f: column(rounds, name, f) for f in ("seconds", "pass_seconds", "peak_mib")}
        for name in contenders
    }
    table(
        f"cuts: {given.images} JPEG files of 500 x 375, {given.base}, {given.rounds} rounds",
        ["", "all told, s", "extraction, s", "peak MiB"],
        [
            [label, *(shown(rows[name][f], digits) for f, digits in zip(rows[name], (1, 1, 0), strict=True))]
            for name, label in (("both", f"{shallow} and {deep}"), ("deep", f"{deep} alone"))
        ],
    )
    print(
        f"  both / deeper alone: all told {shown(over['seconds'])}, extraction {shown(over['pass_seconds'])}"
    )
    return {
        "base": given.base,
        "precision": given.precision,
        "cuts": [shallow, deep],
        "images": given.images,
        **rows,
        "ratio": over,
        "rounds": rounds,
    }
