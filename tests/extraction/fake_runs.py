"""Extractions of the fake base in this process, and checks of what they store."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from bottleneck.extraction.report import Extraction
from bottleneck.extraction.worker.main import Worker
from bottleneck.inventory.scan import scan_source
from bottleneck.schema import BaseRequest, Cache
from bottleneck.sources.open import open_source
from bottleneck.store.join import join
from bottleneck.system.progress import Silent
from tests.fakes import FakeForward, rows_by_hand
from tests.in_process import extract_one

FAKE = "tests.fakes:base"


def here(
    source: Path, cache: Path, forward: FakeForward | None = None, task_rows: int | None = None
) -> tuple:
    """An extraction in this process: as the worker does it, without the process."""
    opened = open_source(source)
    return extract_one(
        opened,
        lambda: scan_source(opened, cache / "scans"),
        BaseRequest(base="object:fake"),
        Cache(cache),
        Silent(),
        worker=Worker(forward or FakeForward(), opened, Cache(cache)),
        task_rows=task_rows,
    )


def counts(done: Extraction) -> dict[str, int]:
    assert done.images == done.computed + done.reused + done.duplicates + done.rejected
    assert done.rows == done.computed + done.reused
    names = ("computed", "reused", "duplicates", "rejected", "ignored")
    return {name: getattr(done, name) for name in names if getattr(done, name)}


def shards(done: Extraction) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (done.store / "shards").iterdir()}


def check_served(source: Path, cache: Path, forward: FakeForward | None = None) -> None:
    """Every served row equals the one made by hand from the file's bytes as they are now."""
    _, inventory, store = here(source, cache, forward)
    rows = join(store, inventory)
    by_hand = rows_by_hand(source, forward)
    assert set(rows.paths) == set(by_hand)
    for path, row in zip(rows.paths, rows.X, strict=True):
        np.testing.assert_array_equal(row, by_hand[path])
