"""Format numbers never lie: every store that was ever written is read, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bottleneck.schema import RECORD_FORMAT, Cache
from bottleneck.store.read import open_store
from tests.fakes import base
from tests.formats.make import rows

STORES = sorted(p for p in (Path(__file__).parent.parent / "formats").iterdir() if p.name.isdigit())


def test_there_is_a_store_of_each_format() -> None:
    assert [int(p.name) for p in STORES] == list(range(1, RECORD_FORMAT + 1))


@pytest.mark.fault(43)
@pytest.mark.parametrize("folder", STORES, ids=lambda p: p.name)
def test_a_store_of_this_format_is_read(folder: Path) -> None:
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    store = open_store(Cache(folder), base().spec)
    keys, features = rows()
    assert not store.damaged
    np.testing.assert_array_equal(store.gather(store.find(keys)), features)
    assert [why.reason for why in store.rejected.values()] == ["not an image"]
    given_up = {bytes.fromhex("cd" * 32): frozenset(["deadline 60 s"])} if int(folder.name) > 1 else {}
    assert store.given_up == given_up
    (record,) = folder.rglob("shards/*.json")
    assert json.loads(record.read_bytes())["format"] == int(folder.name)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
