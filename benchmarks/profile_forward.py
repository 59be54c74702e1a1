"""Show where a forward pass spends its time.

Part of benchmarks/bench.py (`forward`). oneDNN tells every primitive that it runs, with its milliseconds, when it
is asked to; a process of many passes less one of few leaves those of the passes between. `elsewhere` is what is
left of the wall time: TensorFlow's own kernels, and waiting.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from pathlib import Path

from forward_ways import OpenVino, arguments, ways
from watching import watched

from bottleneck.system import onednn

FEW, MANY = 3, 9
_WALL = "wall-seconds "


def spent(way: str, base: list[str], cache: Path, timeout: float) -> dict[str, float]:
    """Return seconds of a pass by cause, longest first.

    Parameters
    ----------
    way : str
        One of `ways`.
    base : list of str
        Options that name the network.
    cache : Path
    timeout : float
        Seconds for each process.
    """

    # OpenVINO gives its own account, in which what oneDNN did for it is counted already.
    asked = {} if way.startswith("openvino") else {"ONEDNN_VERBOSE": "profile_exec"}
    # As `bench_forward` runs them.
    said = {**onednn.requested_environment(), **os.environ, **asked}

    def told(passes: int) -> Counter[str]:
        command = [
            sys.executable,
            __file__,
            *base,
            "--cache",
            str(cache),
            "--way",
            way,
            "--passes",
            str(passes),
        ]
        output = watched(command, timeout=timeout, extra=said).output
        seconds: Counter[str] = Counter()
        for line in output.splitlines():
            if line.startswith(_WALL):
                kind, _, took = line.removeprefix(_WALL).partition(" ")
                seconds[kind] += float(took)
            elif line.startswith("onednn_verbose") and ",exec,cpu," in line:
                kind, took = line.split(",exec,cpu,")[1].split(",")[0], line.rpartition(",")[2]
                seconds[kind] += float(took) / 1000
        return seconds

    few, many = told(FEW), told(MANY)
    found = {kind: (many[kind] - few[kind]) / (MANY - FEW) for kind in many}
    wall = found.pop("wall")
    parts = {kind: took for kind, took in found.items() if took > 0.001 * wall}
    parts["elsewhere"] = wall - sum(parts.values())
    return {"wall": wall, **dict(sorted(parts.items(), key=lambda part: -part[1]))}


def main() -> None:
    """Time passes of one way in this process."""
    import tensorflow as tf

    parser = arguments()
    parser.add_argument("--way", required=True)
    parser.add_argument("--passes", type=int, required=True)
    given = vars(parser.parse_args())
    way, passes = given.pop("way"), given.pop("passes")
    known = ways(given, count=True)
    call, pixels = known.makers[way](), tf.constant(known.pixels)
    seconds: Counter[str] = Counter()
    for _ in range(passes):
        started = time.perf_counter()
        call(pixels)
        seconds["wall"] += time.perf_counter() - started
        if isinstance(call, OpenVino):
            seconds.update(call.spent())
    for kind, took in seconds.items():
        print(f"\n{_WALL}{kind} {took}", flush=True)


if __name__ == "__main__":
    main()
