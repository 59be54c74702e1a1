"""Bytes on the disk that are not the bytes that were committed: rows 29 to 38 and 41."""

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
from tests.faults.bit_flips import Tally, added_to, positions, stored, sweep
from tests.faults.reference_stores import (
    FAKE,
    SPEC,
    WIDE,
    check_served,
    patched,
    put,
    serve,
    shards_of,
    snapshot,
    some,
    some_store,
)

Note = Callable[[str], None]


def check(tally: Tally, note: Note, what: str) -> None:
    note(f"{what}: {tally}")
    assert not tally.bad, "\n".join(tally.bad[:20])


def files(cache: Cache, suffix: str) -> list[Path]:
    return sorted(shards_of(cache).glob(f"*{suffix}"))


# ------------------------------------------------------------------------------------------------ 29, 38: one bit


@pytest.mark.fault(29)
def test_bit_flips_in_a_shard(cache: Cache, full: bool, note: Note) -> None:
    some_store(cache, 1, 40, WIDE)
    (shard,) = files(cache, ".h5")
    tally = sweep(positions(shard, 1600 if full else 60), stored(cache, 1, 40, wide=True))
    assert tally.count["detected"] > 0.9 * tally.count.total()  # nearly all of this file is rows
    check(tally, note, "shard of three blocks")


@pytest.mark.fault(29)
def test_bit_flips_in_one_shard_of_several(cache: Cache, full: bool, note: Note) -> None:
    some_store(cache, 3, 20)
    tally = sweep(positions(files(cache, ".h5")[1], 600 if full else 40), stored(cache, 3, 20))
    assert tally.count["detected"]
    check(tally, note, "one small shard of three")


@pytest.mark.fault(29)
def test_a_flipped_bit_costs_its_own_shard_alone(tmp_path: Path, cache: Cache, worker_here: None) -> None:
    folders = [write_images(tmp_path / name, {"x": 6}, seed=seed) for seed, name in enumerate("abc")]
    for folder in folders:
        bottleneck.extract(folder, FAKE, cache=cache.root)
    before = snapshot(shards_of(cache))
    victim = files(cache, ".h5")[1]
    data = bytearray(victim.read_bytes())
    data[read_record(victim.parent, victim.name[:16] + ".json").features_offset] ^= 1
    victim.write_bytes(data)
    refused = []
    for folder in folders:
        try:
            assert check_served(folder, cache.root) == 6
        except DamagedShard as error:
            refused.append((folder, str(error)))
    assert len(refused) == 1
    assert victim.name[:16] in refused[0][1]
    victim.unlink()  # one of the ways out that the message names; the others are tested where they live
    done = [bottleneck.extract(folder, FAKE, cache=cache.root) for folder in folders]
    assert [run.computed for run in done] == [6 * (folder == refused[0][0]) for folder in folders]
    assert snapshot(shards_of(cache)) == before


@pytest.mark.fault(38)
def test_bit_flips_in_a_record(cache: Cache, full: bool, note: Note) -> None:
    some_store(cache, 3, 20)
    tally = sweep(positions(files(cache, ".json")[1], 800 if full else 80), stored(cache, 3, 20))
    assert tally.count["detected"]
    check(tally, note, "record")


@pytest.mark.fault(38)
def test_bit_flips_in_a_list_of_blocks(cache: Cache, full: bool, note: Note) -> None:
    some_store(cache, 1, 40, WIDE)
    (listing,) = files(cache, ".blocks")
    tally = sweep(positions(listing, 768 if full else 40), stored(cache, 1, 40, wide=True))
    assert tally.count["detected"] == tally.count.total()
    check(tally, note, "list of blocks")


@pytest.mark.fault(38)
@pytest.mark.parametrize("name", ["recipe.json", "canary.f32"])
def test_bit_flips_in_what_a_store_begins_with(
    tmp_path: Path, cache: Cache, worker_here: None, full: bool, note: Note, name: str
) -> None:
    """Old rows are served right or not at all, and what is added is what an undisturbed run adds."""
    images = write_images(tmp_path / "in", {"x": 5})
    bottleneck.extract(images, FAKE, cache=cache.root)
    write_images(images, {"y": 4}, seed=1)
    shutil.copytree(cache.root, tmp_path / "undisturbed")
    bottleneck.extract(images, FAKE, cache=tmp_path / "undisturbed")
    expected = sorted(path.name for path in (tmp_path / "undisturbed").glob("stores/*/shards/*.h5"))
    assert len(expected) == 2
    tally = sweep(
        positions(shards_of(cache).parent / name, 500 if full else 40), added_to(cache, images, expected)
    )
    check(tally, note, name)


# -------------------------------------------------------------------------------------- 30, 31, 35: longer, shorter


def cuts(size: int, full: bool) -> list[int]:
    """Lengths to cut a file to: none, all but one byte, and evenly between."""
    return sorted({0, 1, size - 1, *np.linspace(0, size - 1, 400 if full else 25, dtype=int).tolist()})


@pytest.mark.fault(30)
@pytest.mark.parametrize("suffix", [".h5", ".blocks"])
def test_truncated_files(cache: Cache, full: bool, note: Note, suffix: str) -> None:
    keys, rows = some_store(cache, 2, 40, WIDE)
    victim = files(cache, suffix)[0]
    whole = victim.read_bytes()
    for size in cuts(len(whole), full):
        with patched(victim, data=whole[:size]):
            served = serve(cache, keys, rows, WIDE)
        assert served.verdict == "detected", (size, served)
        assert served.right == 40, "the other shard is served as ever"
    note(f"{suffix}: {len(cuts(len(whole), full))} lengths")
    assert serve(cache, keys, rows, WIDE).verdict == "harmless"


@pytest.mark.fault(31)
@pytest.mark.parametrize("suffix", [".h5", ".blocks"])
@pytest.mark.parametrize("more", [b"\0", b"x" * 4096, None], ids=["byte", "page", "itself"])
def test_appended_bytes(cache: Cache, suffix: str, more: bytes | None) -> None:
    keys, rows = some_store(cache, 2, 20)
    victim = files(cache, suffix)[0]
    whole = victim.read_bytes()
    with patched(victim, data=whole + (whole if more is None else more)):
        served = serve(cache, keys, rows)
    assert served.verdict == "detected", served
    assert served.right == 20


@pytest.mark.fault(35)
def test_zeroed_pages(cache: Cache, note: Note) -> None:
    keys, rows = some_store(cache, 1, 40, WIDE)
    (shard,) = files(cache, ".h5")
    record = read_record(shard.parent, f"{task_id(keys)}.json")
    detected = 0
    for page in range(0, record.file_bytes, 4096):
        size = min(4096, record.file_bytes - page)
        with patched(shard, {page: bytes(size)}):
            served = serve(cache, keys, rows, WIDE)
        assert served.verdict != "SILENT", (page, served)
        inside = record.features_offset <= page < record.features_offset + rows.nbytes
        assert served.verdict == "detected" or not inside, page
        detected += served.verdict == "detected"
    note(f"{-(-record.file_bytes // 4096)} pages: {detected} detected, the others hold no rows")


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


# --------------------------------------------------------------------------------------------- 36, 37: the record


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


@pytest.mark.fault(37)
def test_a_record_cut_at_every_byte(cache: Cache, full: bool, note: Note) -> None:
    keys, rows = some_store(cache, 2, 20)
    victim = files(cache, ".json")[0]
    whole = victim.read_bytes()
    sizes = range(len(whole)) if full else cuts(len(whole), full)
    for size in sizes:
        with patched(victim, data=whole[:size]):
            served = serve(cache, keys, rows)
        if size == len(whole) - 1:  # the line end
            assert served.verdict == "harmless"
            continue
        assert (served.verdict, served.right, served.missing) == ("detected", 20, 20), (size, served)
    note(f"{len(sizes)} lengths")


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
