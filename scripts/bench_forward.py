"""How fast the bare forward pass is: as a graph of Keras, frozen, in bfloat16, and compiled by XLA.

Part of scripts/bench.py (`forward`). One process, one batch in memory, all of them in turn, round by round.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import measuring
from measuring import Steps, shown, spread, table, watched

BATCH = 32


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
    found = steps.run("all rounds", lambda: watched(command, timeout=given.timeout).json())
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
    return {
        "base": given.base,
        "batch": BATCH,
        "rates": rates,
        "ratios": ratios,
        "set_up": found["set_up"],
        "drift": found["drift"],
    }


def main() -> None:
    """All rounds, in this process; prints one JSON line."""
    from pathlib import Path

    import numpy as np
    import tensorflow as tf

    from bottleneck.bases.load import load
    from bottleneck.bases.precision import here
    from bottleneck.extraction.forward import prepare_process
    from bottleneck.extraction.frozen_graph import freeze
    from bottleneck.extraction.rounding import drift
    from bottleneck.images.probes import probes
    from bottleneck.schema import BaseRequest, Cache

    parser = argparse.ArgumentParser()
    for name in ("--base", "--weights", "--cut", "--pooling", "--cache"):
        parser.add_argument(name)
    parser.add_argument("--size", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    given = vars(parser.parse_args())
    rounds, cache = given.pop("rounds"), Cache(Path(given.pop("cache")))
    prepare_process()
    base = load(BaseRequest(**given), cache)
    model, pixels = base.features_model, base.spec.recipe.pixels
    shape = (BATCH, pixels.height, pixels.width, 3)
    images = tf.constant(probes(BATCH, pixels.height, pixels.width))
    signature = [tf.TensorSpec(shape, tf.float32)]

    def traced(**options: Any) -> Any:
        return tf.function(lambda x: model(x, training=False), input_signature=signature, **options)

    def alone(call: Any) -> Any:
        return lambda x: call(x)[0]

    makers = {
        "keras": traced,
        "frozen": lambda: alone(freeze(model, shape, "float32")),
        "xla": lambda: traced(jit_compile=True),
    }
    reduced = here("auto")
    if reduced != "float32":
        makers[reduced] = lambda: alone(freeze(model, shape, reduced))
    calls, rows, set_up = {}, {}, {}
    for name, make in makers.items():
        started = time.perf_counter()
        calls[name] = make()
        rows[name] = np.asarray(calls[name](images))
        set_up[name] = time.perf_counter() - started
    rates: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        for name in list(calls) if number % 2 else list(calls)[::-1]:
            started = time.perf_counter()
            np.asarray(calls[name](images))
            rates[name].append(BATCH / (time.perf_counter() - started))
    costs = {
        name: drift(rows["keras"], rows[name]).model_dump(exclude={"format"})
        for name in rows
        if name != "keras"
    }
    print(json.dumps({"rates": rates, "set_up": set_up, "drift": costs}))


if __name__ == "__main__":
    main()
