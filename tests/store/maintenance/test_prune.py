"""What nothing refers to goes, and only that; what would go is said first; ended at any moment, the rest is served."""

import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from bottleneck.errors import NewerFormat
from bottleneck.schema import Cache
from bottleneck.store.listing import list_store
from bottleneck.store.maintenance.prune import KeptContents, prune_store
from bottleneck.store.maintenance.verify import verify_store
from bottleneck.store.plan_files import publish_plan
from bottleneck.store.read import open_store
from bottleneck.store.task_locks import TaskLocks
from tests.store.kill_steps import kill_at, steps_of
from tests.store.maintenance.small_stores import SPEC, house, put, rejection, served, snapshot, some


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def test_a_dry_run_says_what_goes_and_removes_nothing(cache: Cache) -> None:
    folder, keys, rows = house(cache, 4)
    before = snapshot(folder)
    kept = KeptContents(np.concatenate([keys[:10], keys[10:15]]))
    said = prune_store(folder, kept)
    assert (said.done, said.rows, said.shards, said.rewritten) == (False, 25, 2, 1)
    assert snapshot(folder) == before
    done = prune_store(folder, kept, done=True)
    assert (done.done, done.rows, done.shards, done.rewritten, done.failed) == (True, 25, 2, 1, {})
    assert done.freed > 0
    np.testing.assert_array_equal(served(cache, keys[:15]), rows[:15])
    assert len(open_store(cache, SPEC)) == 15
    verdict = verify_store(folder)
    assert (verdict.damaged, verdict.orphans) == ((), ())


def test_a_shard_of_which_little_would_go_stays_as_it_is(cache: Cache) -> None:
    folder, keys, _ = house(cache, 1)
    before = snapshot(folder)
    done = prune_store(folder, KeptContents(keys[1:]), done=True)
    assert (done.rows, done.rewritten, snapshot(folder)) == (0, 0, before)


def test_without_sources_only_what_no_record_names_goes(cache: Cache) -> None:
    folder, keys, rows = house(cache, 2)
    record = put(cache, *some(5, 50))
    (folder / "shards" / f"{record.id}.json").unlink()
    (folder / "shards" / f".{record.id}.json.123.0badcafe.tmp").write_bytes(b"half a record")
    (folder / ".recipe.json.123.0badcafe.tmp").write_bytes(b"{")
    (folder / "shards" / "notes.txt").write_text("mine")
    said = prune_store(folder, None)
    done = prune_store(folder, None, done=True)
    assert (
        set(said.leftovers)
        == set(done.leftovers)
        == {
            f"shards/{record.shard}",
            f"shards/{record.blocks}",
            f"shards/.{record.id}.json.123.0badcafe.tmp",
            ".recipe.json.123.0badcafe.tmp",
        }
    )
    assert said.freed == done.freed > 0
    assert (folder / "shards" / "notes.txt").read_text() == "mine"
    np.testing.assert_array_equal(served(cache, keys), rows)
    assert not prune_store(folder, None).leftovers


def test_what_somebody_is_at_work_on_is_passed_over(cache: Cache) -> None:
    folder, _, _ = house(cache, 1)
    record = put(cache, *some(5, 50))
    (folder / "shards" / f"{record.id}.json").unlink()
    (folder / "locks").mkdir(exist_ok=True)
    lock = TaskLocks(folder / "locks").take(record.id)
    assert lock is not None
    before = snapshot(folder / "shards")
    assert prune_store(folder, None, done=True).leftovers == ()
    assert snapshot(folder / "shards") == before
    lock.release()
    assert len(prune_store(folder, None, done=True).leftovers) == 3  # the lock's file too
    assert not list((folder / "locks").iterdir())


def test_finished_plans_go_and_others_stay(cache: Cache) -> None:
    folder, keys, _ = house(cache, 2)
    (folder / "plans").mkdir(exist_ok=True)
    publish_plan(folder / "plans", keys, 10)
    open_plan = publish_plan(folder / "plans", some(5, 60)[0], 10)
    (folder / "plans" / ("0" * 16 + ".plan")).write_bytes(b"no plan")
    prune_store(folder, None, done=True)
    assert list((folder / "plans").iterdir()) == [open_plan]


def test_rejections_go_with_their_contents(cache: Cache) -> None:
    folder, keys, rows = house(cache, 1)
    put(cache, keys[:0], rows[:0], rejected=[rejection(1), rejection(2)])
    put(cache, keys[:0], rows[:0], rejected=[rejection(3)], environment={"forward": "other"})
    kept = KeptContents(np.frombuffer(bytes.fromhex(rejection(1).content), np.uint8).reshape(1, 32))
    prune_store(folder, kept, done=True)
    store = open_store(cache, SPEC)
    assert len(store) == 0
    assert {int(why.content, 16) for why in store.rejected.values()} >= {1}
    assert 3 not in {int(why.content, 16) for why in store.rejected.values()}


def test_damaged_shards_stay_and_are_named(cache: Cache) -> None:
    folder, keys, _ = house(cache, 3)
    names = list(list_store(folder).standing.items())
    content, rows = names[0], names[1]
    for record, offset in ((content[1], content[1].content_offset), (rows[1], rows[1].features_offset)):
        path = folder / "shards" / record.shard
        broken = bytearray(path.read_bytes())
        broken[offset] ^= 1
        path.write_bytes(broken)
    # One key of the second stays, so that it would be written anew.
    second = np.frombuffer(
        (folder / "shards" / rows[1].shard).read_bytes(), np.uint8, 32, rows[1].content_offset
    )
    done = prune_store(folder, KeptContents(second.reshape(1, 32)), done=True)
    assert set(done.damaged) == {content[0], rows[0]}
    assert {content[0], rows[0]} == set(list_store(folder).records)
    assert len(keys) == 30


def test_what_cannot_be_removed_is_named_and_the_rest_goes(cache: Cache) -> None:
    folder, _, _ = house(cache, 2)
    stuck = folder / "shards" / ("0" * 16 + "-" + "1" * 16 + ".h5")
    stuck.mkdir()
    done = prune_store(folder, KeptContents(some(1, 99)[0]), done=True)
    assert list(done.failed) == [stuck.name]
    assert [p.name for p in (folder / "shards").iterdir()] == [stuck.name]


@pytest.mark.fault(19)
@pytest.mark.needs_tool("chattr")
def test_an_immutable_shard_is_named_and_the_rest_goes(cache: Cache) -> None:
    folder, _, _ = house(cache, 3)
    record = next(iter(list_store(folder).standing.values()))
    path = folder / "shards" / f"{record.id}.json"
    if subprocess.run(["chattr", "+i", str(path)], capture_output=True, check=False).returncode:
        pytest.skip("this file system has no immutable files")
    try:
        done = prune_store(folder, KeptContents(some(1, 99)[0]), done=True)
        assert list(done.failed) == [path.name]
        left = {p.name for p in (folder / "shards").iterdir()}
        assert left == {path.name, record.shard, record.blocks}, "a record keeps its files"
    finally:
        subprocess.run(["chattr", "-i", str(path)], check=True)


def test_a_view_is_kept_by_the_content_of_its_image(cache: Cache) -> None:
    keys, rows = some(6)
    keys[:, 30:] = 0
    keys[3:, :30] = keys[:3, :30]
    keys[:, 31] = [1, 1, 1, 2, 2, 2]
    kept = KeptContents(np.concatenate([keys[:1, :30], np.full((1, 2), 77, np.uint8)], axis=1))
    np.testing.assert_array_equal(kept.contains(keys, 30), [True, False, False, True, False, False])
    assert not kept.contains(keys, 32).any()
    assert len(rows) == 6


@pytest.mark.fault(42)
def test_newer_stores_are_not_touched(cache: Cache) -> None:
    folder, _, _ = house(cache, 2)
    (folder / "recipe.json").write_text(
        (folder / "recipe.json").read_text().replace('"format": 1', '"format": 9')
    )
    before = snapshot(folder)
    with pytest.raises(NewerFormat):
        prune_store(folder, KeptContents(some(1, 99)[0]), done=True)
    assert snapshot(folder) == before


def test_killed_at_any_step_what_is_kept_is_served_and_the_next_time_finishes(tmp_path: Path) -> None:
    first = Cache(tmp_path / "first")
    _, keys, rows = house(first, 4)
    mine = np.concatenate([keys[:15], keys[38:]])
    theirs = np.concatenate([rows[:15], rows[38:]])

    def work(cache: Cache) -> None:
        prune_store(cache.stores / SPEC.folder, KeptContents(mine), done=True)

    def copied(name: str) -> Cache:
        shutil.copytree(first.root, tmp_path / name)
        return Cache(tmp_path / name)

    whole = copied("whole")
    work(whole)
    counted = copied("counted")
    steps = steps_of(lambda: work(counted))
    assert steps > 20
    for step in sorted({*random.Random(4).sample(range(steps), 16), steps - 1}):
        killed = copied(f"killed{step}")
        kill_at(step, lambda killed=killed: work(killed))
        np.testing.assert_array_equal(served(killed, mine), theirs, err_msg=f"after step {step}")
        work(killed)
        np.testing.assert_array_equal(served(killed, mine), theirs, err_msg=f"finished after step {step}")
        assert snapshot(killed.stores / SPEC.folder) == snapshot(whole.stores / SPEC.folder), step
