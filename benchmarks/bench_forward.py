"""Compare the bare forward pass: Keras, frozen, bfloat16, XLA, OpenVINO.

Part of benchmarks/bench.py (`forward`). One process, one batch in memory, all of them in turn, round by round. Where
the time of a pass goes is asked afterwards (benchmarks/profile_forward.py).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any

import measuring
import profile_forward
from forward_ways import BATCH, arguments, ways
from measuring import Steps, shown, spread, table
from watching import watched

from bottleneck.system import onednn

#: Of passes of each way in a round, one at least.
_SECONDS = 2.0

#: Whose time is told in parts.
_PROFILED = ("frozen", "frozen bfloat16", "openvino", "openvino bfloat16")


def forward(given: argparse.Namespace, steps: Steps, base: list[str]) -> dict[str, Any]:
    """Images a second of each way to run the same network.

    Parameters
    ----------
    given : argparse.Namespace
    steps : Steps
    base : list of str
        `--base` and `--size` with what else names the network.
    """
    cache = measuring.fresh_cache(given.work, "bench-forward")
    command = [sys.executable, __file__, *base, "--rounds", str(given.rounds), "--cache", str(cache)]
    # As in a worker, and Keras' own graph too, though its users may have Eigen's kernels.
    said = {**onednn.requested_environment(), **os.environ}
    found = steps.run("all rounds", lambda: watched(command, timeout=given.timeout, extra=said).json())
    profiled = [name for name in found["rates"] if name in _PROFILED]
    where = {
        name: steps.run(
            f"where the time goes: {name}",
            lambda name=name: profile_forward.spent(name, base, cache, given.timeout),
        )
        for name in profiled
    }
    rates = {name: spread(found["rates"][name]) for name in found["rates"]}
    plain = found["rates"]["keras"]
    ratios = {name: spread(a / b for a, b in zip(found["rates"][name], plain, strict=True)) for name in rates}
    table(
        f"forward: {given.base}, batch {BATCH}, {given.rounds} rounds",
        ["", "images/s", "against Keras' graph", "set up, s"],
        [
            [name, shown(rates[name], 1), shown(ratios[name]), f"{found['set_up'][name]:.1f}"]
            for name in rates
        ],
    )
    for name, parts in where.items():
        told = ", ".join(f"{part} {1000 * took:.0f}" for part, took in parts.items())
        print(f"  {name}, ms a pass: {told}")
    return {
        "base": given.base,
        "batch": BATCH,
        "rates": rates,
        "ratios": ratios,
        "set_up": found["set_up"],
        "drift": found["drift"],
        "seconds_by_kind": where,
    }


def main() -> None:
    """All rounds, in this process; prints one JSON line."""
    import numpy as np
    import tensorflow as tf

    from bottleneck.forward.drift import measure_drift

    parser = arguments()
    parser.add_argument("--rounds", type=int, default=5)
    given = vars(parser.parse_args())
    rounds = given.pop("rounds")
    known = ways(given)
    makers, images = known.makers, tf.constant(known.pixels)
    calls, rows, set_up = {}, {}, {}
    for name, make in makers.items():
        started = time.perf_counter()
        calls[name] = make()
        rows[name] = np.asarray(calls[name](images))
        set_up[name] = time.perf_counter() - started
    rates: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(-1, rounds):
        for name in list(calls) if number % 2 else list(calls)[::-1]:
            started, passes = time.perf_counter(), 0
            while not passes or time.perf_counter() - started < _SECONDS:
                np.asarray(calls[name](images))
                passes += 1
            if number >= 0:
                rates[name].append(passes * BATCH / (time.perf_counter() - started))
    costs = {
        name: measure_drift(rows["keras"], rows[name]).model_dump(exclude={"format"})
        for name in rows
        if name != "keras"
    }
    print(json.dumps({"rates": rates, "set_up": set_up, "drift": costs}))


if __name__ == "__main__":
    main()
