"""Bytes on the disk that changed, are missing or were added: rows 29 to 31, 35, 37 and 38."""

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
from bottleneck.store.record import read_record
from tests.fakes import write_images
from tests.faults.bit_flips import Tally, added_to, positions, stored, sweep
from tests.faults.reference_stores import (
    FAKE,
    WIDE,
    check_served,
    files,
    patched,
    serve,
    shards_of,
    snapshot,
    some_store,
)

Note = Callable[[str], None]


def check(tally: Tally, note: Note, what: str) -> None:
    note(f"{what}: {tally}")
    assert not tally.bad, "\n".join(tally.bad[:20])


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
