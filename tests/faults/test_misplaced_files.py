"""Sound bytes in a wrong place: rows 32 to 34, 36 and 41."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import bottleneck
from bottleneck.errors import DamagedShard
from bottleneck.schema import Cache
from bottleneck.store.plan import task_id
from bottleneck.store.read import open_store
from bottleneck.store.record import read_record
from tests.fakes import write_images
from tests.faults.reference_stores import (
    FAKE,
    SPEC,
    WIDE,
    check_served,
    files,
    patched,
    put,
    serve,
    shards_of,
    snapshot,
    some,
    some_store,
)

Note = Callable[[str], None]

# --------------------------------------------------------------------------------- 32, 33, 34: right bytes, wrong place


@pytest.mark.fault(32)
def test_swapped_rows_chunks_and_blocks(cache: Cache, full: bool, note: Note) -> None:
    """Two stretches of a shard exchange their places: rows, pages and whole blocks, in either of its two arrays."""
    keys, rows = some_store(cache, 1, 40, WIDE)
    (shard,) = files(cache, ".h5")
    record = read_record(shard.parent, f"{task_id(keys)}.json")
    data = shard.read_bytes()
    draw = np.random.default_rng(0)
    count = 0
    for start, size, stretch in (
        (record.features_offset, rows.nbytes, WIDE.row_bytes),
        (record.features_offset, rows.nbytes, 4096),
        (record.features_offset, rows.nbytes, WIDE.row_bytes * record.block_rows),
        (record.content_offset, keys.nbytes, 32),
    ):
        for _ in range(100 if full else 10):
            first, second = start + stretch * draw.choice(size // stretch, 2, replace=False)
            with patched(
                shard, {first: data[second : second + stretch], second: data[first : first + stretch]}
            ):
                served = serve(cache, keys, rows, WIDE)
            assert served.verdict == "detected", (first, second, stretch, served)
            count += 1
    note(f"{count} pairs")


@pytest.mark.fault(32, 33)
@pytest.mark.parametrize("suffix", [".h5", ".blocks", ".json"])
def test_swapped_files_of_two_shards(cache: Cache, suffix: str) -> None:
    keys, rows = some_store(cache, 3, 20)
    one, other = files(cache, suffix)[:2]
    first, second = one.read_bytes(), other.read_bytes()
    assert first != second
    one.write_bytes(second)
    other.write_bytes(first)
    served = serve(cache, keys, rows)
    assert served.verdict == "detected", served
    assert served.right == 20


@pytest.mark.fault(33)
def test_all_three_files_of_a_shard_under_the_name_of_another(cache: Cache) -> None:
    """Every hash fits within the three files; only the names lie."""
    keys, rows = some_store(cache, 2, 20)
    folder = shards_of(cache)
    victim, donor = (read_record(folder, f"{task_id(k)}.json") for k in (keys[:20], keys[20:]))
    for name in (victim.shard, victim.blocks, f"{victim.id}.json"):
        (folder / name).unlink()
    for name in (donor.shard, donor.blocks, f"{donor.id}.json"):
        (folder / name.replace(donor.id, victim.id)).write_bytes((folder / name).read_bytes())
    served = serve(cache, keys, rows)
    assert served.verdict == "detected", served
    assert (served.right, served.missing) == (20, 20)


@pytest.mark.fault(34)
def test_the_shard_of_another_base_in_place_of_one(tmp_path: Path, cache: Cache, worker_here: None) -> None:
    """Same images, same task id, same sizes: only the numbers are another base's."""
    images = write_images(tmp_path / "in", {"x": 6})
    bottleneck.extract(images, FAKE, cache=cache.root)
    mine = shards_of(cache)
    bottleneck.extract(images, "tests.fakes:other_base", cache=tmp_path / "other")
    theirs = shards_of(Cache(tmp_path / "other"))
    name = next(mine.glob("*.json")).name
    record, foreign = read_record(mine, name), read_record(theirs, name)
    (mine / record.shard).write_bytes((theirs / foreign.shard).read_bytes())
    with pytest.raises(DamagedShard):
        check_served(images, cache.root)
    (mine / record.blocks).write_bytes((theirs / foreign.blocks).read_bytes())
    with pytest.raises(DamagedShard):
        check_served(images, cache.root)
    # With their record too it is a sound shard: of another recipe, and so none of this store.
    for part in (foreign.shard, foreign.blocks, name):
        (mine / part).write_bytes((theirs / part).read_bytes())
    assert bottleneck.extract(images, FAKE, cache=cache.root).computed == 6
    assert check_served(images, cache.root) == 6


# ------------------------------------------------------------------------------------------------- 36: no record


@pytest.mark.fault(36)
def test_a_shard_without_a_record_is_a_miss_and_is_computed_again(
    tmp_path: Path, cache: Cache, worker_here: None
) -> None:
    images = write_images(tmp_path / "in", {"x": 6, "y": 5})
    bottleneck.extract(images, FAKE, cache=cache.root)
    before = snapshot(shards_of(cache))
    next(shards_of(cache).glob("*.json")).unlink()
    store = open_store(cache, SPEC)
    assert (len(store), dict(store.damaged)) == (0, {})
    done = bottleneck.extract(images, FAKE, cache=cache.root)
    assert (done.computed, dict(done.damaged)) == (11, {})
    assert snapshot(shards_of(cache)) == before
    check_served(images, cache.root)


@pytest.mark.fault(36)
def test_other_bytes_without_a_record_are_in_nobodys_way(cache: Cache) -> None:
    """A shard that lost its record, and rows computed on another machine since: both shards lie there, one counts."""
    keys, rows = some(20)
    put(cache, keys, rows)
    next(shards_of(cache).glob("*.json")).unlink()
    put(cache, keys, rows + 1)
    assert len(files(cache, ".h5")) == 2
    assert serve(cache, keys, rows + 1).right == 20


# --------------------------------------------------------------------------------------------------- 41: an old copy


@pytest.mark.fault(41)
@pytest.mark.parametrize("emptied", [False, True], ids=["laid over", "put back"])
def test_an_older_copy_of_the_store(tmp_path: Path, cache: Cache, worker_here: None, emptied: bool) -> None:
    images = write_images(tmp_path / "in", {"a": 6})
    bottleneck.extract(images, FAKE, cache=cache.root)
    shutil.copytree(cache.root, tmp_path / "old")
    write_images(images, {"b": 5}, seed=1)
    (images / "a" / "000.png").unlink()
    bottleneck.extract(images, FAKE, cache=cache.root)
    newest = snapshot(shards_of(cache))
    if emptied:
        shutil.rmtree(cache.root)
    shutil.copytree(tmp_path / "old", cache.root, dirs_exist_ok=True)
    done = bottleneck.extract(images, FAKE, cache=cache.root)
    assert (done.computed, done.reused) == ((5, 5) if emptied else (0, 10))
    assert check_served(images, cache.root) == 10
    assert snapshot(shards_of(cache)) == newest


@pytest.mark.fault(41)
def test_half_of_an_older_copy_over_a_newer_store(cache: Cache, tmp_path: Path, full: bool) -> None:
    """A copy that stopped anywhere: any subset of the old files over the new ones, or missing from them."""
    keys, rows = some_store(cache, 4, 5)
    whole = tmp_path / "whole"
    shutil.copytree(cache.root, whole)
    names = [path.relative_to(whole) for path in sorted(whole.rglob("*")) if path.is_file()]
    draw = np.random.default_rng(0)
    for _ in range(200 if full else 20):
        shutil.rmtree(cache.root)
        shutil.copytree(whole, cache.root)
        gone = [name for name in names if draw.random() < 0.3]
        for name in gone:
            (cache.root / name).unlink()
        served = serve(cache, keys, rows)
        assert not served.wrong
        lost = {name.name[:16] for name in gone if name.parent.name == "shards"}
        if not any(name.name == "recipe.json" for name in gone):
            assert served.right == 5 * (4 - len(lost)), (gone, served)
        for seed in range(4):
            put(cache, *some(5, seed))
        served = serve(cache, keys, rows)
        assert (served.verdict, served.right) == ("harmless", 20), (gone, served)
