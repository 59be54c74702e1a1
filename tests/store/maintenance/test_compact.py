"""Few large shards serve what many small ones did, whenever the work was ended."""

import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from bottleneck.errors import DamagedShard, NewerFormat
from bottleneck.schema import Cache, Rounding
from bottleneck.store.listing import list_store
from bottleneck.store.maintenance.compact import compact_store, plan_compaction
from bottleneck.store.maintenance.verify import verify_store
from bottleneck.store.read import open_store
from tests.store.kill_steps import kill_at, steps_of
from tests.store.maintenance.small_stores import SPEC, house, put, rejection, served, snapshot, some


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def test_rows_stay_and_shards_become_one(cache: Cache) -> None:
    folder, keys, rows = house(cache, 5)
    moved: list[int] = []
    done = compact_store(folder, moved=moved.append)
    assert (done.before, done.after, done.rows, done.damaged, done.failed) == (5, 1, 50, {}, {})
    assert sum(moved) > 0 and done.freed > 0
    np.testing.assert_array_equal(served(cache, keys), rows)
    assert len(list((folder / "shards").iterdir())) == 3
    verdict = verify_store(folder)
    assert (verdict.rows, verdict.damaged, verdict.orphans) == (50, (), ())
    before = snapshot(folder)
    assert compact_store(folder).rows == 0
    assert snapshot(folder) == before, "nothing is left to do"


def test_only_equal_environments_and_canaries_come_together(cache: Cache) -> None:
    folder, keys, rows = house(cache, 2)
    for seed, more in enumerate(({"environment": {"forward": "other"}}, {"canary": "1" * 64}), 10):
        put(cache, *some(5, seed), **more)
    assert compact_store(folder).after == 3
    standing = list_store(folder).standing.values()
    assert sorted(record.rows for record in standing) == [5, 5, 20]
    np.testing.assert_array_equal(served(cache, keys), rows)


def test_shards_are_packed_up_to_the_target_and_large_ones_left(cache: Cache) -> None:
    folder, _, _ = house(cache, 7)
    records = list_store(folder).standing
    size = next(iter(records.values())).file_bytes
    groups = plan_compaction(records, 3 * size)
    assert [len(group) for group in groups] == [3, 3]
    assert plan_compaction(records, 2 * size) == []
    assert compact_store(folder, target=3 * size).after == 3


def test_rejections_carry_over_each_once(cache: Cache) -> None:
    folder, keys, _ = house(cache, 1)
    has_row = rejection(int(keys[0].tobytes().hex(), 16), retry=True)
    put(cache, *some(3, 20), rejected=[rejection(1), rejection(2, retry=True), has_row])
    put(cache, *some(3, 21), rejected=[rejection(2), rejection(3, retry=True)])
    assert compact_store(folder).after == 1
    (record,) = list_store(folder).standing.values()
    assert [(int(r.content, 16), r.retry) for r in record.rejected] == [(1, False), (2, False), (3, True)]
    store = open_store(cache, SPEC)
    assert len(store.rejected) == 2 and len(store.suspects) == 1


def test_rejections_beside_a_shard_do_not_pass_for_it(cache: Cache) -> None:
    """A new shard with the very rows of an old one must not be taken for the old one."""
    folder, keys, rows = house(cache, 1)
    put(cache, keys[:0], rows[:0], rejected=[rejection(5)])
    assert compact_store(folder).after == 1
    (record,) = list_store(folder).standing.values()
    assert record.rows == 10 and [int(r.content, 16) for r in record.rejected] == [5]


def test_what_storing_cost_is_the_worst_of_all(cache: Cache) -> None:
    folder, _, _ = house(cache, 1)
    for seed, (relative, cosine) in enumerate([(0.1, 0.9), (0.2, 0.99)], 30):
        put(cache, *some(3, seed), rounding=Rounding(relative=relative, cosine=cosine))
    compact_store(folder)
    (record,) = list_store(folder).standing.values()
    assert record.rounding == Rounding(relative=0.2, cosine=0.9)


def test_a_damaged_shard_is_named_and_left_alone(cache: Cache) -> None:
    folder, _, _ = house(cache, 3)
    name, record = next(iter(list_store(folder).standing.items()))
    path = folder / "shards" / record.shard
    broken = bytearray(path.read_bytes())
    broken[record.features_offset] ^= 1
    path.write_bytes(broken)
    done = compact_store(folder)
    assert list(done.damaged) == [name] and done.after == 2
    assert path.read_bytes() == broken and (folder / "shards" / name).exists()


def test_older_shards_stay_while_what_supersedes_them_is_damaged(cache: Cache) -> None:
    folder, keys, rows = house(cache, 2)
    old = snapshot(folder)
    compact_store(folder)
    for name, data in old.items():
        (folder / name).write_bytes(data)  # a backup laid over it
    (fresh,) = (record for record in list_store(folder).records.values() if record.supersedes)
    path = folder / "shards" / fresh.shard
    broken = bytearray(path.read_bytes())
    broken[fresh.features_offset] ^= 1
    path.write_bytes(broken)
    compact_store(folder)
    assert old.items() <= snapshot(folder).items()
    np.testing.assert_array_equal(
        open_store(cache, SPEC, without=[f"{fresh.id}.json"]).gather(
            open_store(cache, SPEC, without=[f"{fresh.id}.json"]).find(keys)
        ),
        rows,
    )


@pytest.mark.fault(24)
def test_a_reader_keeps_its_snapshot_or_is_told(cache: Cache) -> None:
    folder, keys, rows = house(cache, 3)
    opened, fresh = open_store(cache, SPEC), open_store(cache, SPEC)
    places = opened.find(keys)
    opened.gather(places)
    compact_store(folder)
    np.testing.assert_array_equal(opened.gather(places), rows)
    # One that had opened no file yet is told that they are gone, not served something else.
    with pytest.raises(DamagedShard, match="removed since"):
        fresh.gather(places)


@pytest.mark.fault(42)
def test_newer_stores_are_not_touched(cache: Cache) -> None:
    folder, _, _ = house(cache, 3)
    path = next((folder / "shards").glob("*.json"))
    path.write_text(path.read_text().replace('"format": 1', '"format": 9'))
    before = snapshot(folder)
    with pytest.raises(NewerFormat):
        compact_store(folder)
    assert snapshot(folder) == before


def test_killed_at_any_step_it_serves_the_same_rows_and_finishes(tmp_path: Path) -> None:
    first = Cache(tmp_path / "first")
    folder, keys, rows = house(first, 3)
    whole = Cache(tmp_path / "whole")
    shutil.copytree(first.root, whole.root)
    compact_store(whole.stores / SPEC.folder)
    counted = Cache(tmp_path / "counted")
    shutil.copytree(first.root, counted.root)
    steps = steps_of(lambda: compact_store(counted.stores / SPEC.folder))
    assert steps > 20
    sample = random.Random(3).sample(range(steps), 16)
    for step in sorted({*sample, steps - 1}):
        killed = Cache(tmp_path / f"killed{step}")
        shutil.copytree(first.root, killed.root)
        place = killed.stores / SPEC.folder
        kill_at(step, lambda place=place: compact_store(place))
        np.testing.assert_array_equal(served(killed, keys), rows, err_msg=f"after step {step}")
        compact_store(place)
        np.testing.assert_array_equal(served(killed, keys), rows, err_msg=f"finished after step {step}")
        ends = {n: d for n, d in snapshot(place).items() if not n.endswith(".tmp")}
        assert ends == snapshot(whole.stores / SPEC.folder), f"after step {step}"
    assert folder.exists()


@pytest.mark.parametrize("again", range(10))
def test_rows_that_were_computed_again_do_not_cost_those_that_were_there(cache: Cache, again: int) -> None:
    """A slow builder commits a task that was compacted: all rows of the new shard are in the compacted one."""
    folder, keys, rows = house(cache, 2)
    compact_store(folder)
    put(cache, keys[again : again + 1], rows[again : again + 1])
    compact_store(folder)
    np.testing.assert_array_equal(served(cache, keys), rows)
    assert compact_store(folder).after == 1
