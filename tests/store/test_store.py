"""What is committed is served and checked; what is damaged is refused by name."""

import hashlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from bottleneck.errors import DamagedShard, StoreError
from bottleneck.schema import Cache, RejectedContent
from bottleneck.store.commit import commit
from bottleneck.store.header import begin_store
from bottleneck.store.plan import task_id
from bottleneck.store.read import open_store
from bottleneck.store.record import read_record
from tests.store.fake_stores import SPEC, put, served, some


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def test_rows_come_back_in_the_order_asked_for(cache: Cache) -> None:
    parts = [some(40, seed) for seed in range(3)]
    for keys, rows in parts:
        put(cache, keys, rows)
    keys, rows = (np.concatenate(p) for p in zip(*parts, strict=True))
    order = np.random.default_rng(9).permutation(np.repeat(np.arange(120), 2))
    store = open_store(cache, SPEC)
    assert len(store) == 120
    np.testing.assert_array_equal(served(store, keys[order]), rows[order])
    assert (store.find(some(5, 77)[0]) == -1).all()
    with pytest.raises(StoreError, match="5 of 5 contents have no row"):
        served(store, some(5, 77)[0])


def test_contents_that_share_their_first_bytes_are_told_apart(cache: Cache) -> None:
    keys, rows = some(50)
    keys[:, :8] = 7
    put(cache, keys, rows)
    store = open_store(cache, SPEC)
    np.testing.assert_array_equal(served(store, keys[::-1]), rows[::-1])
    stranger = keys[:1].copy()
    stranger[0, -1] ^= 1
    assert store.find(stranger)[0] == -1


def test_an_empty_store_is_a_store_and_opening_writes_nothing(cache: Cache) -> None:
    assert len(open_store(cache, SPEC)) == 0
    assert not cache.root.exists()


def test_equal_rows_give_equal_bytes_whoever_writes_them(tmp_path: Path) -> None:
    keys, rows = some(30)
    digests = []
    for name in ("one", "two"):
        folder = put(Cache(tmp_path / name), keys, rows)
        digests.append({p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()})
    assert digests[0] == digests[1]
    assert len(digests[0]) == 3


def test_the_first_commit_of_a_task_wins(cache: Cache) -> None:
    keys, rows = some(10)
    folder = put(cache, keys, rows)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    put(cache, keys, rows + 1)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


@pytest.mark.parametrize("part", ["shard", "blocks"])
def test_a_lost_file_is_put_back_by_the_same_work(cache: Cache, part: str) -> None:
    keys, rows = some(10)
    folder = put(cache, keys, rows)
    lost = folder / getattr(read_record(folder, f"{task_id(keys)}.json"), part)
    whole = lost.read_bytes()
    lost.unlink()
    put(cache, keys, rows)
    assert lost.read_bytes() == whole
    lost.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    put(cache, keys, rows)
    assert lost.read_bytes() == whole


def test_a_damaged_shard_is_stood_in_for_by_other_bytes(cache: Cache) -> None:
    keys, rows = some(10)
    folder = put(cache, keys, rows)
    record = read_record(folder, f"{task_id(keys)}.json")
    (folder / record.shard).unlink()
    put(cache, keys, rows * 2)
    store = open_store(cache, SPEC)
    assert list(store.damaged) == [f"{task_id(keys)}.json"]
    np.testing.assert_array_equal(served(store, keys), rows * 2)


@pytest.mark.fault(29)
def test_every_flipped_bit_of_the_rows_is_found_before_they_are_served(cache: Cache) -> None:
    keys, rows = some(20)
    folder = put(cache, keys, rows)
    record = read_record(folder, f"{task_id(keys)}.json")
    path = folder / record.shard
    whole = path.read_bytes()
    for offset in range(record.features_offset, record.features_offset + rows.nbytes, 37):
        broken = bytearray(whole)
        broken[offset] ^= 1 << (offset % 8)
        path.write_bytes(broken)
        store = open_store(cache, SPEC)
        with pytest.raises(DamagedShard, match=f"{record.id}.*rows 0 to 19"):
            served(store, keys)


@pytest.mark.fault(30, 31)
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda b: b[:-1], "bytes; "),
        (lambda b: b + b"\0", "bytes; "),
        (lambda b: b"", "0 bytes"),
    ],
)
def test_a_shard_of_another_length_is_a_miss_with_a_reason(cache: Cache, change: object, why: str) -> None:
    keys, rows = some(10)
    folder = put(cache, keys, rows)
    path = next(folder.glob("*.h5"))
    path.write_bytes(change(path.read_bytes()))
    store = open_store(cache, SPEC)
    assert len(store) == 0
    assert why in store.damaged[f"{task_id(keys)}.json"]


@pytest.mark.fault(33)
def test_two_shards_whose_files_were_swapped_are_refused(cache: Cache) -> None:
    (keys, rows), (others, more) = some(10), some(10, 1)
    folder = put(cache, keys, rows)
    put(cache, others, more)
    a, b = (folder / read_record(folder, f"{task_id(k)}.json").shard for k in (keys, others))
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)
    store = open_store(cache, SPEC)
    assert len(store) == 0
    assert len(store.damaged) == 2


@pytest.mark.fault(32)
def test_swapped_blocks_are_refused(cache: Cache) -> None:
    spec = SPEC.model_copy(update={"shape": (1 << 15,)})
    folder, _ = begin_store(cache, spec, 4)
    keys, _ = some(6)
    rows = np.random.default_rng(0).random((6, 1 << 15)).astype(np.float32)
    commit(folder / "shards", task_id(keys), spec, keys, rows, rejected=[], environment={}, canary="0" * 64)
    record = read_record(folder / "shards", f"{task_id(keys)}.json")
    assert record.block_rows == 2
    path = folder / "shards" / record.shard
    data = bytearray(path.read_bytes())
    size, start = record.block_rows * spec.row_bytes, record.features_offset
    data[start : start + size], data[start + size : start + 2 * size] = (
        data[start + size : start + 2 * size],
        data[start : start + size],
    )
    path.write_bytes(data)
    store = open_store(cache, spec)
    with pytest.raises(DamagedShard, match="rows 0 to 1 "):
        served(store, keys[:1])
    np.testing.assert_array_equal(served(store, keys[4:]), rows[4:])


def test_rejections_are_remembered_with_their_shard(cache: Cache) -> None:
    keys, rows = some(3)
    bad = RejectedContent(content="ab" * 32, stage="decode", reason="not an image")
    put(cache, keys, rows, rejected=[bad])
    store = open_store(cache, SPEC)
    key = np.frombuffer(bytes.fromhex("ab" * 32), np.uint8)[None]
    assert store.known(np.concatenate([keys, key, some(1, 9)[0]])).tolist() == [True] * 4 + [False]
    assert store.find(key)[0] == -1


def test_a_task_of_rejections_alone_is_a_record_without_a_shard(cache: Cache) -> None:
    keys, rows = some(1)
    bad = RejectedContent(content=keys[0].tobytes().hex(), stage="decode", reason="not an image")
    folder, header = begin_store(cache, SPEC, 4)
    for _ in range(2):
        commit(
            folder / "shards",
            task_id(keys),
            header.spec,
            keys[:0],
            rows[:0],
            rejected=[bad],
            environment={},
            canary="0" * 64,
        )
    assert [p.suffix for p in (folder / "shards").iterdir()] == [".json"]
    assert open_store(cache, SPEC).known(keys).all()


def test_a_shard_explains_itself_to_a_person_with_h5py(cache: Cache) -> None:
    keys, rows = some(200)
    folder = put(cache, keys, rows)
    with h5py.File(next(folder.glob("*.h5"))) as file:
        np.testing.assert_array_equal(file["features"][:], rows)
        np.testing.assert_array_equal(file["content"][:], keys)
        assert file["features"].chunks is None
        assert file["features"].id.get_offset() % 4096 == 0
        assert b"sha256" in file.attrs["about"]


def test_the_same_recipe_under_another_name_is_the_same_store(cache: Cache) -> None:
    keys, rows = some(3)
    put(cache, keys, rows)
    renamed = SPEC.model_copy(update={"base": "my copy", "cut": "alias"})
    np.testing.assert_array_equal(served(open_store(cache, renamed), keys), rows)
    folder, header = begin_store(cache, renamed, 64)
    assert header.batch == 4
    assert folder.name.startswith("fake-top-")


def test_a_cache_that_cannot_be_written_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot be written to.*--cache"):
        begin_store(Cache(tmp_path / "file" / "cache"), SPEC, 4)
