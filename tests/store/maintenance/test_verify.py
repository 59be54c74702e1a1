"""Whatever byte of a store is another, `verify` says so, names the shard and its rows, and writes nothing."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from bottleneck.errors import DamagedShard, NewerFormat, StoreError
from bottleneck.schema import Cache, Record
from bottleneck.store.canary import canary_values
from bottleneck.store.listing import list_store
from bottleneck.store.maintenance import verify as verifying
from bottleneck.store.maintenance.shard_check import read_shard
from bottleneck.store.maintenance.verify import Verdict, verify_store
from tests.store.maintenance.small_stores import SPEC, house, put, reseal, snapshot, some


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def folder(cache: Cache) -> Path:
    """Three shards, one of them of several blocks."""
    made, _, _ = house(cache, 2)
    put(cache, *some(9, 7))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bottleneck.store.commit.block_rows", lambda _: 4)
        put(cache, *some(30, 8))
    return made


def named(verdict: Verdict) -> set[str]:
    return {damage.name for damage in verdict.damaged}


def test_a_sound_store_is_found_sound_and_nothing_is_written(folder: Path) -> None:
    before, seen = snapshot(folder), []
    verdict = verify_store(folder, seen.append)
    assert (verdict.shards, verdict.rows, verdict.damaged, verdict.orphans) == (4, 59, (), ())
    shards = sorted((folder / "shards").glob("*.h5"))
    assert verdict.size == sum(seen) == sum(path.stat().st_size for path in shards)
    lines = "".join(f"{p.name} {hashlib.sha256(p.read_bytes()).hexdigest()}\n" for p in shards)
    assert verdict.digest == hashlib.sha256(lines.encode()).hexdigest()
    assert snapshot(folder) == before


class NoChild:
    """In place of the child process, where structure is not the subject."""

    def __enter__(self) -> NoChild:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def check(self, *_: object) -> str:
        return ""


def test_every_part_of_a_shard_is_watched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "StructureChecker", NoChild)
    listing = list_store(folder)
    name, record = next((n, r) for n, r in listing.records.items() if r.rows == 30)
    draw = np.random.default_rng(5)
    for part, positions in {
        record.shard: [
            0,
            record.features_offset,
            record.content_offset,
            *draw.integers(0, record.file_bytes, 40),
        ],
        record.blocks: draw.integers(0, 32 * 8, 8),
        name: draw.integers(0, 800, 20),
    }.items():
        path = folder / "shards" / part
        whole = path.read_bytes()
        for position in positions:
            broken = bytearray(whole)
            broken[position] ^= 1 << int(draw.integers(8))
            path.write_bytes(broken)
            verdict = verify_store(folder)
            assert named(verdict) == {name}, (part, position)
            assert verdict.rows == 29
            rows = (int(position) - record.features_offset) // SPEC.row_bytes
            if part == record.shard and 0 <= rows < 30:
                block = rows // record.block_rows * record.block_rows
                assert verdict.damaged[0].rows == (block, min(block + record.block_rows, 30))
                assert f"rows {block} to" in verdict.damaged[0].why
        path.write_bytes(whole)
    assert verify_store(folder).damaged == ()


@pytest.mark.fault(30, 31)
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-1]), "bytes; "),
        (lambda p: p.write_bytes(p.read_bytes() + b"\0"), "bytes; "),
        (lambda p: p.write_bytes(b""), "0 bytes"),
        (lambda p: p.unlink(), "is gone"),
        (lambda p: (p.unlink(), p.symlink_to("/etc/passwd")), "could not be read|was committed"),
        (lambda p: (p.unlink(), os.mkfifo(p)), "no regular file"),
    ],
)
@pytest.mark.parametrize("part", ["shard", "blocks"])
def test_files_of_another_length_or_kind_are_named(folder: Path, change: object, why: str, part: str) -> None:
    name, record = next(iter(list_store(folder).records.items()))
    change(folder / "shards" / getattr(record, part))  # type: ignore[operator]
    (damage,) = verify_store(folder).damaged
    assert damage.name == name and damage.shard == record.id
    assert any(word in damage.why for word in why.split("|"))


@pytest.mark.fault(33)
def test_two_shards_that_changed_places_are_both_wrong(folder: Path) -> None:
    one, two = [(n, r) for n, r in list_store(folder).records.items() if r.rows == 10]
    a, b = (folder / "shards" / record.shard for _, record in (one, two))
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)
    assert named(verify_store(folder)) == {one[0], two[0]}


@pytest.mark.fault(13)
def test_a_disk_that_refuses_is_named_and_no_reason_to_remove(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", refuse)
    verdict = verify_store(folder)
    assert len(verdict.damaged) == 4
    assert all(not damage.lost and "Input/output error" in damage.why for damage in verdict.damaged)


@pytest.mark.fault(36)
def test_what_no_record_names_is_an_orphan_and_no_damage(folder: Path) -> None:
    name, record = next(iter(list_store(folder).records.items()))
    (folder / "shards" / name).unlink()
    (folder / "shards" / ".0123456789abcdef.json.77.0badcafe.tmp").write_bytes(b"half")
    verdict = verify_store(folder)
    assert verdict.damaged == () and verdict.shards == 3
    assert set(verdict.orphans) == {record.shard, record.blocks, ".0123456789abcdef.json.77.0badcafe.tmp"}
    # An unreadable record may have named the files: they are not known to be nobody's.
    (folder / "shards" / name).write_bytes(b"{")
    verdict = verify_store(folder)
    assert named(verdict) == {name}
    assert set(verdict.orphans) == {".0123456789abcdef.json.77.0badcafe.tmp"}


def test_damage_to_what_is_superseded_is_none_unless_the_new_is_damaged(cache: Cache, folder: Path) -> None:
    name, record = next(iter(list_store(folder).records.items()))
    fresh = put(cache, *some(5, 99), supersedes=[name])
    whole = (folder / "shards" / record.shard).read_bytes()
    (folder / "shards" / record.shard).write_bytes(whole[:-1] + b"?")
    verdict = verify_store(folder)
    assert verdict.damaged == () and name in verdict.orphans
    assert verdict.rows == 59 - record.rows + 5
    path = folder / "shards" / fresh.shard
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert named(verify_store(folder)) == {name, f"{fresh.id}.json"}


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (np.zeros(canary_values(SPEC) - 1, "<f4"), "bytes"),
        (np.full(canary_values(SPEC), np.nan, "<f4"), "no numbers"),
    ],
)
def test_a_canary_that_cannot_be_one_is_damage(folder: Path, values: np.ndarray, why: str) -> None:
    (folder / "canary.f32").write_bytes(values.tobytes())
    (damage,) = verify_store(folder).damaged
    assert damage.name == "canary.f32" and why in damage.why and "remove that one file" in damage.why


@pytest.mark.fault(34)
def test_what_is_committed_meanwhile_is_looked_at_too(cache: Cache, folder: Path) -> None:
    late: list[Record] = []

    def moved(_: int) -> None:
        if not late:
            late.append(put(cache, *some(5, 9)))
            path = folder / "shards" / late[0].shard
            data = bytearray(path.read_bytes())
            data[-1] ^= 1
            path.write_bytes(data)

    verdict = verify_store(folder, moved)
    assert late[0].id in {damage.name[:16] for damage in verdict.damaged}


def test_a_record_of_another_store_is_refused(folder: Path) -> None:
    name, record = next(iter(list_store(folder).records.items()))
    reseal(folder / "shards" / name, recipe="f" * 64)
    (damage,) = verify_store(folder).damaged
    assert damage.name == name and "of recipe ffffffffffff" in damage.why
    reseal(folder / "shards" / name, recipe=SPEC.recipe.fingerprint, features_offset=record.file_bytes)
    (damage,) = verify_store(folder).damaged
    assert "outside of its file" in damage.why


@pytest.mark.fault(42)
@pytest.mark.parametrize("where", ["recipe", "record"])
def test_a_newer_store_is_named_and_not_looked_into(folder: Path, where: str) -> None:
    name = next(iter(list_store(folder).records))
    path = folder / "recipe.json" if where == "recipe" else folder / "shards" / name
    path.write_text(
        path.read_text().replace('"format": 1', '"format": 3').replace('"format":1', '"format":3')
    )
    before = snapshot(folder)
    with pytest.raises(NewerFormat, match="format 3"):
        verify_store(folder)
    assert snapshot(folder) == before


def test_a_whole_shard_is_read_only_when_it_is_whole(folder: Path) -> None:
    listing = list_store(folder)
    record = next(iter(listing.records.values()))
    assert len(read_shard(listing.shards, record).keys) == record.rows
    path = listing.shards / record.shard
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(DamagedShard, match=record.id):
        read_shard(listing.shards, record)


def test_a_folder_that_is_no_store_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no recipe\.json"):
        verify_store(tmp_path)
