"""Views in a store of their own: keys, what is planned, and all views of an image read as one array."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottleneck.errors import UsageError
from bottleneck.schema import Cache, Inventory, StoreSpec, ViewPolicy
from bottleneck.store.commit import commit
from bottleneck.store.header import begin_store, find_store
from bottleneck.store.plan import plan_tasks, task_id
from bottleneck.store.read import open_store
from bottleneck.store.views import (
    ViewRows,
    epoch_views,
    group_rows,
    is_of,
    stand_ins,
    view_keys,
    view_rows,
    views_wanted,
)
from tests.fakes import base

PLAIN = base().spec
POLICY = ViewPolicy.parse("rotation=0.1")
VIEWS = PLAIN.model_copy(update={"views": POLICY})


def contents(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32)).astype(np.uint8)


def inventory(keys: np.ndarray) -> Inventory:
    paths = [b"%05d" % i for i in range(len(keys))]
    return Inventory(
        pa.table(
            {
                "path": pa.array(paths, pa.binary()),
                "content": pa.array([key.tobytes() for key in keys], pa.binary(32)),
                "label": pa.array(["a"] * len(keys), pa.string()),
            }
        ),
        "/nowhere",
    )


@given(st.integers(0, 5), st.integers(1, 400), st.integers(0, 300))
def test_keys_are_the_content_and_the_number(images: int, first: int, more: int) -> None:
    keys = contents(images)
    made = view_keys(keys, first, first + more)
    expected = [
        key.tobytes()[:30] + number.to_bytes(2, "big")
        for key in keys
        for number in range(first, first + more)
    ]
    assert [key.tobytes() for key in made] == expected
    assert all(
        is_of(made[i * more + k].tobytes(), keys[i].tobytes()) for i in range(images) for k in range(more)
    )
    assert not is_of(keys[0].tobytes(), contents(1, seed=9)[0].tobytes()) if images else True


@pytest.mark.parametrize(("first", "stop"), [(0, 2), (3, 2), (1, 65537)])
def test_numbers_that_two_bytes_cannot_hold_are_refused(first: int, stop: int) -> None:
    with pytest.raises(UsageError, match="numbered from 1 to 65,535"):
        view_keys(contents(1), first, stop)


def test_views_are_planned_side_by_side_and_copies_once() -> None:
    keys = contents(4)[[0, 1, 0, 2, 3]]
    there = np.array([True, True, True, False, True])
    wanted = views_wanted(inventory(keys), there, 3)
    assert wanted.table.column("path").to_pylist() == [
        p for p in (b"00000", b"00001", b"00002", b"00004") for _ in "12"
    ]
    np.testing.assert_array_equal(wanted.keys, view_keys(keys[there], 1, 3))
    made = plan_tasks(wanted, VIEWS, np.zeros(len(wanted), bool), task_rows=4)
    tasks = list(made)
    assert [path for task in tasks for path in task.paths] == [b"00000"] * 2 + [b"00001"] * 2 + [b"00004"] * 2
    assert [int(key[31]) for task in tasks for key in task.keys] == [1, 2] * 3
    assert not len(views_wanted(inventory(keys), there, 1))
    assert not len(views_wanted(inventory(keys), np.zeros(5, bool), 3))


def put(cache: Cache, spec: StoreSpec, keys: np.ndarray, rows: np.ndarray) -> None:
    folder, _ = begin_store(cache, spec, 4)
    commit(
        folder / "shards",
        task_id(keys),
        spec,
        keys,
        rows.astype(np.float32),
        rejected=[],
        environment={},
        canary="0" * 64,
    )


def values(keys: np.ndarray) -> np.ndarray:
    """A row that says whose it is."""
    return np.stack([keys[:, i].astype(np.float32) for i in (0, 1, 2, 29, 30, 31)], axis=1)


def test_a_views_store_is_another_store_for_each_policy(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    other = VIEWS.model_copy(update={"views": ViewPolicy.parse("rotation=0.1,seed=1")})
    assert len({spec.folder for spec in (PLAIN, VIEWS, other)}) == 3
    assert VIEWS.folder == f"{PLAIN.folder}-views-{POLICY.fingerprint[:8]}"
    assert len({spec.identity for spec in (PLAIN, VIEWS, other)}) == 3
    assert PLAIN.identity == PLAIN.recipe.fingerprint == VIEWS.recipe.fingerprint
    # Pinned: records on disk are bound to it.
    assert (VIEWS.identity[:16], VIEWS.folder) == (
        "60262a8c24dba485",
        "fake-top-225449494f11-views-b3acad68",
    )
    keys = contents(3)
    put(cache, PLAIN, keys, values(keys))
    views = view_keys(keys, 1, 3)
    put(cache, VIEWS, views, values(views))
    for spec, count in ((PLAIN, 3), (VIEWS, 6), (other, 0)):
        assert find_store(cache, spec)[0].name == spec.folder
        assert len(open_store(cache, spec)) == count


def test_a_record_of_another_policy_is_not_taken_for_ours(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    other = VIEWS.model_copy(update={"views": ViewPolicy.parse("rotation=0.1,seed=1")})
    views = view_keys(contents(3), 1, 3)
    put(cache, VIEWS, views, values(views))
    begin_store(cache, other, 4)
    for path in (cache.stores / VIEWS.folder / "shards").iterdir():
        (cache.stores / other.folder / "shards" / path.name).write_bytes(path.read_bytes())
    laid_over = open_store(cache, other)
    assert len(laid_over) == 0 and "of recipe" in next(iter(laid_over.damaged.values()))


def test_many_views_of_one_content_are_found_each_and_served_once(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    keys = contents(40)
    views = view_keys(keys, 1, 9)
    shuffled = np.random.default_rng(3).permutation(len(views))
    for part in np.array_split(shuffled, 5):
        put(cache, VIEWS, views[part], values(views[part]))
    again = shuffled[10:50]  # the same views in two shards, as two builders leave them
    put(cache, VIEWS, views[again], values(views[again]))
    store = open_store(cache, VIEWS)
    assert len(store) == len(views)
    np.testing.assert_array_equal(store.gather(store.find(views)), values(views))
    assert (store.find(view_keys(keys, 9, 12)) == -1).all()
    assert store.known(view_keys(keys, 1, 12)).reshape(40, 11)[:, :8].all()


def test_raising_the_number_of_views_plans_only_the_new_ones(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    keys = contents(6)
    four = view_keys(keys, 1, 4)
    put(cache, VIEWS, four, values(four))
    store = open_store(cache, VIEWS)
    wanted = views_wanted(inventory(keys), np.ones(6, bool), 6)
    made = plan_tasks(wanted, VIEWS, store.known(wanted.keys))
    np.testing.assert_array_equal(np.concatenate([task.keys for task in made]), view_keys(keys, 4, 6))


@pytest.fixture(params=["on disk", "in memory"])
def of_four(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[ViewRows, np.ndarray]:
    """Views (5, 4, 2, 3) over two stores, one view lost, and what they must give."""
    cache = Cache(tmp_path)
    plain, made = (spec.model_copy(update={"shape": (2, 3)}) for spec in (PLAIN, VIEWS))
    keys = contents(6)
    whole = np.random.default_rng(1).normal(size=(6, 4, 2, 3)).astype(np.float32)
    put(cache, plain, keys, whole[:, 0])
    views, rows = view_keys(keys, 1, 4), whole[:, 1:].reshape(18, 2, 3)
    order = np.random.default_rng(2).permutation(18)
    order = order[order != 1 * 3 + 1]  # view 2 of image 1 was rejected
    for part in np.array_split(order, 3):
        put(cache, made, views[part], rows[part])
    whole[1, 2] = whole[1, 0]
    chosen = np.array([3, 1, 0, 5, 1])
    stores = open_store(cache, plain), open_store(cache, made)
    assert stand_ins(stores[1], keys, 4) == 1 and stand_ins(stores[1], keys, 1) == 0
    found = view_rows(*stores, keys[chosen], 4)
    return found if request.param == "on disk" else found.loaded(), whole[chosen]


@pytest.mark.parametrize(
    "key",
    [
        2,
        -1,
        slice(None),
        slice(1, 4, 2),
        slice(3, 0, -1),
        np.array([4, 0, 0]),
        np.array([True, False, True, True, False]),
        (slice(None), 0),
        (slice(None), slice(1, None)),
        (3, 2),
        (np.array([0, 4, 4]), np.array([3, 0, 1])),
        (np.array([[0], [2]]), np.array([[1, 2]])),
        ...,
        (..., 1),
        (2, ..., 0),
        (slice(None), 1, 0, 2),
        (slice(0, 0),),
    ],
    ids=str,
)
def test_views_are_indexed_as_the_array_they_stand_for(
    key: Any, of_four: tuple[ViewRows, np.ndarray]
) -> None:
    views, whole = of_four
    found = views[key]
    np.testing.assert_array_equal(found, whole[key])
    assert np.shape(found) == np.shape(whole[key])


def test_views_say_what_they_are_and_flatten_for_a_head(of_four: tuple[ViewRows, np.ndarray]) -> None:
    views, whole = of_four
    assert (views.shape, views.dtype, views.ndim, len(views)) == ((5, 4, 2, 3), np.float32, 4, 5)
    np.testing.assert_array_equal(np.asarray(views), whole)
    rows = whole.reshape(20, 2, 3)
    assert (views.flat.shape, len(views.flat)) == ((20, 2, 3), 20)
    np.testing.assert_array_equal(np.asarray(views.flat), rows)
    subset = views.where(np.array([4, 0, 3]))
    assert type(subset.flat) is type(views.flat)
    np.testing.assert_array_equal(np.asarray(subset), whole[[4, 0, 3]])
    np.testing.assert_array_equal(group_rows([3, 1], 4), [12, 13, 14, 15, 4, 5, 6, 7])
    again = pickle.loads(pickle.dumps(views))
    np.testing.assert_array_equal(again[2:], whole[2:])


def test_one_view_is_the_image_itself_and_no_image_is_no_view(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    keys = contents(3)
    put(cache, PLAIN, keys, values(keys))
    plain, made = open_store(cache, PLAIN), open_store(cache, VIEWS)
    np.testing.assert_array_equal(np.asarray(view_rows(plain, made, keys, 1)), values(keys)[:, None])
    assert view_rows(plain, made, keys[:0], 4).shape == (0, 4, 6)


def test_each_epoch_draws_views_anew_and_all_of_them_alike() -> None:
    drawn = np.stack([epoch_views(7, epoch, 500, 4) for epoch in range(1, 41)])
    np.testing.assert_array_equal(drawn[0], epoch_views(7, 1, 500, 4))
    assert (drawn[0] != drawn[1]).any() and (drawn[0] != epoch_views(8, 1, 500, 4)).any()
    counts = np.bincount(drawn.ravel(), minlength=4)
    # 20,000 draws: five standard deviations of a fair one.
    assert len(counts) == 4 and np.abs(counts - 5000).max() < 5 * np.sqrt(20000 * 0.25 * 0.75)
    assert (drawn.max(axis=0) > drawn.min(axis=0)).all(), "no image is stuck on one view"
