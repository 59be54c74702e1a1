"""Checks of a store on disk, and damage to it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from bottleneck.schema import Cache
from bottleneck.store.listing import list_store
from bottleneck.store.read import open_store
from tests.fakes import base, rows_by_hand


def served(folder: Path, source: Path) -> None:
    """Every image of `source` has its right row."""
    import hashlib

    store = open_store(Cache(folder.parents[1]), base().spec)
    for path, row in rows_by_hand(source).items():
        key = hashlib.sha256((source / os.fsdecode(path)).read_bytes()).digest()
        place = store.find(np.frombuffer(key, np.uint8).reshape(1, 32))
        np.testing.assert_array_equal(store.gather(place)[0], row)


def flip(folder: Path, rows: int) -> str:
    """One bit of the first row of the shard with so many rows; its record's name."""
    name, record = next((n, r) for n, r in list_store(folder).standing.items() if r.rows == rows)
    path = folder / "shards" / record.shard
    broken = bytearray(path.read_bytes())
    broken[record.features_offset] ^= 1
    path.write_bytes(broken)
    return name
