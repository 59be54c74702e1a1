"""Labels meet features: every image with a row, in inventory order, copies repeated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bottleneck.extraction.fill import fill
from bottleneck.extraction.worker import Worker
from bottleneck.images.scan import scan
from bottleneck.progress import Silent
from bottleneck.schema import BaseRequest, Cache, Inventory
from bottleneck.sources.open import open_source
from bottleneck.store.join import join
from bottleneck.store.read import Store
from tests.fakes import FakeForward, rows_by_hand, write_images


@pytest.fixture
def filled(tmp_path: Path) -> tuple[Path, Inventory, Store]:
    source = open_source(write_images(tmp_path / "in", {"cat": 9, "dog": 9}))
    cache = Cache(tmp_path / "cache")
    _, inventory, store = fill(
        source,
        lambda: scan(source, None),
        BaseRequest(base="object:fake"),
        cache,
        Silent(),
        worker=Worker(FakeForward(), cache),
        task_rows=5,
    )
    return tmp_path / "in", inventory, store


def test_rows_meet_their_own_labels_in_any_order(filled: tuple[Path, Inventory, Store]) -> None:
    source, inventory, store = filled
    by_hand = rows_by_hand(source)
    for seed in range(3):
        order = np.random.default_rng(seed).integers(0, 18, 40)
        rows = join(store, Inventory(inventory.table.take(order), inventory.location))
        assert list(rows.paths) == [inventory[int(i)].path for i in order]
        for path, label, key, row in zip(rows.paths, rows.y, rows.keys, rows.X, strict=True):
            np.testing.assert_array_equal(row, by_hand[path])
            assert path.startswith(label.encode())
            assert key.tobytes() in {r.content for r in inventory if r.path == path}
    assert rows.classes == ("cat", "dog")


def test_images_without_a_row_are_left_out_and_what_is_unknown_stays_none(
    filled: tuple[Path, Inventory, Store],
) -> None:
    _, inventory, store = filled
    strange = pa.table(
        {
            "path": pa.array([b"x"], pa.binary()),
            "content": pa.array([b"\xff" * 32], pa.binary(32)),
            "label": pa.array(["yak"]),
            "group": pa.array(["g"]),
            "split": pa.array(["test"]),
        }
    )
    table = pa.concat_tables([inventory.table, strange.cast(inventory.table.schema)])
    rows = join(store, Inventory(table, inventory.location))
    assert len(rows) == 18
    assert "yak" not in set(rows.y)
    assert set(rows.groups) == set(rows.splits) == {None}
    nothing = join(store, Inventory(strange.cast(inventory.table.schema), inventory.location))
    assert nothing.X.shape == (0, 6) and len(nothing.paths) == 0


def test_a_part_keeps_columns_together(filled: tuple[Path, Inventory, Store]) -> None:
    _, inventory, store = filled
    rows = join(store, inventory)
    dogs = rows.where(rows.y == "dog")
    assert len(dogs) == 9 and dogs.classes == rows.classes
    assert all(path.startswith(b"dog/") for path in dogs.paths)
    np.testing.assert_array_equal(dogs.X, rows.X[9:])
    np.testing.assert_array_equal(dogs.keys, rows.keys[9:])
