"""What must hold of a cache after its disk failed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bottleneck.inventory.scan import scan_source
from bottleneck.schema import Cache
from bottleneck.sources.open import open_source
from bottleneck.store.join import join
from bottleneck.store.read import open_store
from tests.fakes import FakeForward, base, rows_by_hand
from tests.faults.command_runs import again, leftovers, shard_files

IMAGES = 12


def check_kept(source: Path, cache: Path, forward: FakeForward | None = None) -> int:
    """Every row that the store serves as it is now is right, and no record is half there; gives their number."""
    forward = forward or base()
    store = open_store(Cache(cache), forward.spec)
    assert store.damaged == {}
    opened = open_source(source)
    rows = join(store, scan_source(opened, None))
    by_hand = rows_by_hand(source, forward)
    for path, row in zip(rows.paths, np.asarray(rows.X), strict=True):
        np.testing.assert_array_equal(row, by_hand[path])
    assert len(rows) == len(store)
    return len(rows)


def check_goes_on(source: Path, cache: Path, straight: dict[str, str], kept: int) -> None:
    """Once what was wrong is put right, the same command completes, and computes only what was not kept."""
    done = again(source, cache)
    assert (done.computed, done.reused) == (IMAGES - kept, kept)
    assert shard_files(cache) == straight
    # Where nothing is lacking nothing is written, and a plan that was not cleared away stays for `prune`.
    assert leftovers(cache) == [] or kept == IMAGES
