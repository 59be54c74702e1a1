"""Compare `extract` with decoding alone and forward pass alone.

Part of benchmarks/bench.py (`pipeline`). Both parts are measured in a process of their own, with the command's own
objects: its decoder on as many threads, its forward pass with as many under way. On processors they share, the best
that a pipeline can do is 1 / (1 / decoding + 1 / forward).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import measuring
from measuring import OURS, Steps, shown, spread, table
from rounds import column, in_rounds
from watching import watched

from bottleneck.extraction.worker import channel

#: Seconds that a forward pass is run for, and passes at least.
_SECONDS, _PASSES = 8.0, 6

#: Files after which all of the decoder is set up.
_WARM = 512


def pipeline(
    given: argparse.Namespace, steps: Steps, folder: Path, few: Path, base: list[str]
) -> dict[str, Any]:
    """Steady images a second of the command, against what its parts allow.

    Parameters
    ----------
    given : argparse.Namespace
    steps : Steps
    folder, few : Path
        Many images and a few, whose difference gives the steady rate.
    base : list of str
        The BASE options of the command line.
    """
    fewer = len(list(few.glob("*/*.jpg")))

    def ours(_: int) -> dict[str, Any]:
        def once(images: Path) -> float:
            cache = measuring.fresh_cache(given.work, "bench-pipeline")
            command = [*OURS, "extract", str(images), *base, "--cache", str(cache), "--json"]
            done = watched(command, timeout=given.timeout).json()
            if done["computed"] != done["images"]:
                raise SystemExit(f"not every image was computed: {done}")
            return float(done["seconds"])

        return {"rate": (given.images - fewer) / (once(folder) - once(few))}

    def parts(_: int) -> dict[str, Any]:
        cache = measuring.fresh_cache(given.work, "bench-pipeline-parts")
        command = [sys.executable, __file__, str(folder), *base, "--cache", str(cache)]
        as_a_worker = channel.worker_environment()
        found: dict[str, Any] = watched(command, timeout=given.timeout, extra=as_a_worker).json()
        return found

    # The parts before and after: a machine that others use changes its pace within a round.
    rounds = in_rounds(steps, given.rounds, {"before": parts, "ours": ours, "after": parts})
    for one in rounds:
        one["parts"] = {
            part: (one["before"][part] + one["after"][part]) / 2 for part in ("decode", "forward")
        }
    allowed = [1 / (1 / r["parts"]["decode"] + 1 / r["parts"]["forward"]) for r in rounds]
    reached = [r["ours"]["rate"] for r in rounds]
    rates = {
        "pipeline": column(rounds, "ours", "rate"),
        "decode": column(rounds, "parts", "decode"),
        "forward": column(rounds, "parts", "forward"),
        "allowed": spread(allowed),
    }
    of_forward = spread(r["ours"]["rate"] / r["parts"]["forward"] for r in rounds)
    of_allowed = spread(a / b for a, b in zip(reached, allowed, strict=True))
    labels = {
        "pipeline": "extract, steady",
        "decode": "reading, hashing and decoding alone",
        "forward": "the forward pass alone",
        "allowed": "1 / (1 / decoding + 1 / forward)",
    }
    table(
        f"pipeline: {given.images} JPEG files of 500 x 375, {given.base} in {given.precision}, {given.rounds} rounds",
        ["", "images/s"],
        [[labels[name], shown(found, 1)] for name, found in rates.items()],
    )
    print(f"  of the forward pass {shown(of_forward)}, of what both parts allow {shown(of_allowed)}")
    return {
        "base": given.base,
        "precision": given.precision,
        "images": given.images,
        "rates": rates,
        "of_forward": of_forward,
        "of_allowed": of_allowed,
        "rounds": rounds,
    }


def main() -> None:
    """Time both parts in this process; print one JSON line."""
    from concurrent.futures import ThreadPoolExecutor

    from bottleneck.extraction.worker.task import IN_FLIGHT
    from bottleneck.forward.cuts import forward_rows
    from bottleneck.forward.keras_forward import open_forward
    from bottleneck.pixels.probes import probes
    from bottleneck.schema import BaseRequest, Cache

    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    for name in ("--base", "--weights", "--cut", "--pooling", "--precision", "--cache"):
        parser.add_argument(name)
    parser.add_argument("--size", type=int)
    given = vars(parser.parse_args())
    files = sorted(given.pop("folder").glob("*/*.jpg"))
    cache = Cache(Path(given.pop("cache")))
    forward = open_forward([BaseRequest(**given)], cache)

    def decode(path: Path) -> int:
        data = path.read_bytes()
        hashlib.sha256(data).digest()
        return len(forward.decode(data))

    with ThreadPoolExecutor(1 + (os.cpu_count() or 1)) as pool:
        # Some of it is set up only after many files.
        list(pool.map(decode, files[:_WARM]))
        forward.ready()
        started = time.perf_counter()
        for _ in pool.map(decode, files):
            pass
        decoding = len(files) / (time.perf_counter() - started)
    size = forward.spec.recipe.pixels
    pixels = probes(forward.batch, size.height, size.width)
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        list(pool.map(lambda _: forward_rows(forward, pixels), range(2)))
        started = time.perf_counter()
        forward_rows(forward, pixels)
        passes = max(_PASSES, int(_SECONDS / (time.perf_counter() - started)))
        started = time.perf_counter()
        for _ in pool.map(lambda _: forward_rows(forward, pixels), range(passes)):
            pass
        computing = passes * forward.batch / (time.perf_counter() - started)
    print(json.dumps({"decode": decoding, "forward": computing}))


if __name__ == "__main__":
    main()
