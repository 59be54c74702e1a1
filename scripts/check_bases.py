"""Hold every base of the catalog to plain Keras.

    python scripts/check_bases.py [--only NAME ...] [--table] [--features] [--small]

--table     the table's facts against built networks: parameters, feature shape, cuts, blocks, smallest size
--features  calibrated random weights, at a size as small as the base allows: features of 8 images equal those of the
            plain Keras model with its own `preprocess_input` on the same pixels (1e-4 of their spread), every broken
            twin that applies is noticed, the digest is the same afterwards
--small     leave the networks with a top out of --table (they are large)

Both by default. Exit status 1 when anything differs; the last full run is kept in benchmarks/results/.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from bottleneck.bases import family_of, specs
from bottleneck.schema import BaseSpec


def check(spec: BaseSpec, *, with_top: bool = True) -> list[str]:
    """Return what is wrong with `spec`, as sentences."""
    from bottleneck.bases.cut import cut_at, resolve_pooling, row_shape
    from bottleneck.bases.layer_names import blocks_of

    wrong: list[str] = []
    family: Any = family_of(spec.name)
    model = family.build(spec, top=False, size=spec.size)
    if model.count_params() != spec.parameters:
        wrong.append(f"parameters {model.count_params():,}, table {spec.parameters:,}")
    blocks = blocks_of(model, spec.blocks)
    if len(blocks) < 4:
        wrong.append(f"only {len(blocks)} blocks: {[b for b, _ in blocks]}")
    for alias, point in spec.cuts.items():
        if point.top:
            continue
        cut, path = cut_at(model, point.layer)
        shape = row_shape(cut.output_shape, resolve_pooling(point.pooling, "none", cut.output_shape), path)
        if alias == spec.cut and shape != spec.feature:
            wrong.append(f"feature {shape}, table {spec.feature}")
    del model
    small = family.build(spec, top=False, size=spec.smallest)
    if any(extent is not None and extent < 1 for extent in small.output_shape):
        wrong.append(f"at {spec.smallest} the output is {small.output_shape}")
    del small
    tops = [point for point in spec.cuts.values() if point.top]
    if tops and with_top:
        full = family.build(spec, top=True, size=spec.size)
        for point in tops:
            cut_at(full, point.layer)
    print(f"{spec.name:20} {len(blocks):3} blocks, top three: {', '.join(b for b, _ in blocks[-3:])}")
    return wrong


def check_features(spec: BaseSpec) -> list[str]:
    """What disagrees with plain Keras, as sentences; prints the figures."""
    import tempfile
    from pathlib import Path

    import numpy as np

    from bottleneck.bases.load import load_base
    from bottleneck.forward.keras_forward import KerasForward
    from bottleneck.heads.logistic import LogisticHead
    from bottleneck.models import certificate
    from bottleneck.models.comparison import TOLERANCE, compare, spread
    from bottleneck.models.twins import twins
    from bottleneck.pixels.probes import probes
    from bottleneck.schema import BaseRequest, Cache

    size = max(spec.smallest, 32)
    with tempfile.TemporaryDirectory() as folder:
        base = load_base(BaseRequest(base=spec.name, weights="random:0", size=size), Cache(Path(folder)))
    before = base.digest_now()
    forward = KerasForward([base], lambda _: 8)
    pixels = probes(32, size, size)
    rows = np.concatenate([forward.features(pixels[i : i + 8]) for i in range(0, 32, 8)])
    plain = plain_features(spec, base, pixels[:8])
    gap = float(np.abs(rows[:8] - plain).max()) / spread(rows)
    wrong = [] if gap <= TOLERANCE else [f"features differ from plain Keras by {gap:.2g} of their spread"]
    # Any head shows whether a break gets through to logits; this one tells two halves of the probes apart.
    head = LogisticHead().fit(rows, np.arange(32) % 2)
    reference = certificate.head_outputs(forward, head, pixels, rows)
    weakest = float("inf")
    for name, outputs in twins(base, head, pixels, 8).items():
        twin = compare(name, "probes", reference, outputs)
        least = min(d.largest for d in twin.differences if d.quantity != "probabilities")
        weakest = min(weakest, least)
        if least <= TOLERANCE:
            wrong.append(f"the twin '{name}' is not noticed ({least:.2g})")
    if base.digest_now() != before:
        wrong.append("the digest changed")
    print(
        f"{spec.name:20} {size:3} px: against plain Keras {gap:.1e}, weakest twin {weakest:.1e} of the spread"
    )
    return wrong


def plain_features(spec: BaseSpec, base: Any, pixels: Any) -> Any:
    """Compute the same rows by the recipe in Keras' guide."""
    import keras
    import numpy as np

    from bottleneck.bases.layer_names import fresh_names

    size = pixels.shape[1]
    if spec.name == "squeezenet":  # no base of Keras: its preprocessing is written out by hand
        from bottleneck.bases import squeezenet

        plain = squeezenet.network(size, top=False)
        prepared = pixels[..., ::-1] - np.array([103.939, 116.779, 123.68], np.float32)
    else:
        name = spec.builder.rpartition(":")[2]
        builder = getattr(keras.applications, name)
        module = sys.modules[builder.__module__]
        with fresh_names():
            # ConvNeXt keeps its last normalisation behind the pooling.
            pooling = {"pooling": "avg"} if name.startswith("ConvNeXt") else {}
            plain = builder(weights=None, include_top=False, input_shape=(size, size, 3), **pooling)
        prepared = module.preprocess_input(pixels.copy())
    for layer in base.model.layers:
        plain.get_layer(layer.name).set_weights(layer.get_weights())
    maps = plain.predict(prepared, batch_size=8, verbose=0)
    return maps.mean(axis=(1, 2)) if base.pooling == "avg" and maps.ndim == 4 else maps


def main() -> int:
    """Check every base, or those of ``--only``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--features", action="store_true")
    parser.add_argument("--only", nargs="+", default=list(specs()))
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    both = options.table == options.features
    failed = 0
    for name in options.only:
        start = time.perf_counter()
        try:
            wrong = check(specs()[name], with_top=not options.small) if options.table or both else []
            wrong += check_features(specs()[name]) if options.features or both else []
        except Exception as error:  # every base is reported
            wrong = [f"{type(error).__name__}: {error}"]
        failed += bool(wrong)
        print(
            f"{name:20} {'ok' if not wrong else 'WRONG: ' + '; '.join(wrong)} ({time.perf_counter() - start:.1f} s)"
        )
        sys.stdout.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
