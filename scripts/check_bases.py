"""Hold the table of bases to built networks: parameters, feature shape, cuts, blocks, smallest size.

    python scripts/check_bases.py [--only NAME ...] [--small]

Exit status 1 when anything differs. `--small` leaves the networks with a top out (they are large).
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from bottleneck.bases import family_of, specs
from bottleneck.schema import BaseSpec


def check(spec: BaseSpec, *, with_top: bool = True) -> list[str]:
    """What is wrong with `spec`, as sentences; empty when it tells the truth."""
    from bottleneck.bases.cut import cut_at, resolve_pooling, row_shape
    from bottleneck.bases.listing import blocks_of

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


def main() -> int:
    """Check every base, or those of ``--only``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=list(specs()))
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    failed = 0
    for name in options.only:
        start = time.perf_counter()
        try:
            wrong = check(specs()[name], with_top=not options.small)
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
