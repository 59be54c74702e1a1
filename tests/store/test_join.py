"""Labels meet features: every image with a row, in inventory order, copies repeated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bottleneck.extraction.worker.main import Worker
from bottleneck.inventory.scan import scan_source
from bottleneck.schema import BaseRequest, Cache, Inventory
from bottleneck.sources.open import open_source
from bottleneck.store.join import join
from bottleneck.store.read import Store
from bottleneck.store.rows import Rows
from bottleneck.system.progress import Silent
from tests.fakes import FakeForward, rows_by_hand, write_images
from tests.in_process import extract_one


@pytest.fixture
def filled(tmp_path: Path) -> tuple[Path, Inventory, Store]:
    source = open_source(write_images(tmp_path / "in", {"cat": 9, "dog": 9}))
    cache = Cache(tmp_path / "cache")
    _, inventory, store = extract_one(
        source,
        lambda: scan_source(source, None),
        BaseRequest(base="object:fake"),
        cache,
        Silent(),
        worker=Worker(FakeForward(), source, cache),
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


def test_joining_and_picking_read_no_row_until_they_are_loaded(
    filled: tuple[Path, Inventory, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, inventory, store = filled
    with monkeypatch.context() as patched:
        patched.setattr(Store, "gather", lambda *_: pytest.fail("rows were read"))
        patched.setattr(Rows, "read", lambda *_: pytest.fail("rows were read"))
        rows = join(store, inventory)
        dogs = rows.where(rows.y == "dog").where(np.array([8, 0]))
    assert isinstance(dogs.X, Rows)
    read = dogs.loaded()
    assert isinstance(read.X, np.ndarray)
    by_hand = rows_by_hand(source)
    np.testing.assert_array_equal(read.X, [by_hand[path] for path in dogs.paths])
    assert rows.loaded(memory=0).X is rows.X
    assert rows.where(np.ones(18, bool)) is rows


def test_one_split_alone(filled: tuple[Path, Inventory, Store]) -> None:
    _, inventory, store = filled
    splits = pa.array((["train", "test", None] * 6), pa.string())
    table = inventory.table.set_column(inventory.table.column_names.index("split"), "split", splits)
    rows = join(store, Inventory(table, inventory.location), split="test")
    assert len(rows) == 6 and set(rows.splits) == {"test"}
    assert list(rows.paths) == table.column("path").take(list(range(1, 18, 3))).to_pylist()
    assert len(join(store, inventory, split="train")) == 0


def test_columns_cannot_be_written_to_because_it_would_be_lost(
    filled: tuple[Path, Inventory, Store],
) -> None:
    _, inventory, store = filled
    rows = join(store, inventory)
    for column in (rows.y, rows.groups, rows.splits, rows.paths):
        with pytest.raises(ValueError, match="read-only"):
            column[0] = "x"


def test_scikit_learn_takes_features_as_they_are(filled: tuple[Path, Inventory, Store]) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    _, inventory, store = filled
    rows = join(store, inventory)
    array = rows.X.read()
    model = LogisticRegression()
    expected = model.fit(array, rows.y).predict_proba(array)
    np.testing.assert_array_equal(LogisticRegression().fit(rows.X, rows.y).predict_proba(rows.X), expected)
    np.testing.assert_array_equal(
        cross_val_score(model, rows.X, rows.y, cv=3), cross_val_score(model, array, rows.y, cv=3)
    )
    piped = make_pipeline(StandardScaler(), model)
    search = GridSearchCV(piped, {"logisticregression__C": [0.1, 1.0]}, cv=3, n_jobs=2)
    found = search.fit(rows.X, rows.y).cv_results_["mean_test_score"]
    np.testing.assert_array_equal(found, search.fit(array, rows.y).cv_results_["mean_test_score"])
    for got, wanted in zip(
        train_test_split(rows.X, rows.y, random_state=0),
        train_test_split(array, rows.y, random_state=0),
        strict=True,
    ):
        np.testing.assert_array_equal(got, wanted)
