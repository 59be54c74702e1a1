"""What is committed is served, checked; what is damaged is refused by name; what is missing is a miss."""

import hashlib
import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from bottleneck.errors import DamagedShard, StoreError
from bottleneck.schema import Cache, RejectedContent, canonical_json
from bottleneck.schema.strict_json import MalformedDocument
from bottleneck.store.commit import commit
from bottleneck.store.header import begin_store
from bottleneck.store.plan import task_id
from bottleneck.store.read import Store, open_store
from bottleneck.store.record import read_record
from tests.fakes import base, other_base

SPEC = base().spec


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def some(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    return draw.integers(0, 256, (count, 32)).astype(np.uint8), draw.random((count, 6)).astype(np.float32)


def put(cache: Cache, keys: np.ndarray, rows: np.ndarray, **more: object) -> Path:
    folder, header = begin_store(cache, SPEC, 4)
    arguments = {"rejected": [], "environment": {"forward": "fake"}, "canary": "0" * 64, **more}
    commit(folder / "shards", task_id(keys), header.spec, keys, rows, **arguments)
    return folder / "shards"


def served(store: Store, keys: np.ndarray) -> np.ndarray:
    return store.gather(store.find(keys))


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


@pytest.mark.fault(37, 38)
def test_a_record_that_is_cut_or_changed_is_a_miss(cache: Cache) -> None:
    keys, rows = some(3)
    folder = put(cache, keys, rows)
    path = folder / f"{task_id(keys)}.json"
    whole = path.read_bytes()
    broken = [whole[:cut] for cut in range(0, len(whole) - 2, 7)]
    for offset in range(0, len(whole), 5):
        flipped = bytearray(whole)
        flipped[offset] ^= 1 << (offset % 7)
        broken.append(bytes(flipped))
    for data in broken:
        path.write_bytes(data)
        store = open_store(cache, SPEC)
        # White space may change without harm; anything else must be noticed.
        if len(store):
            assert json.loads(data) == json.loads(whole)
        else:
            assert path.name in store.damaged


@pytest.mark.fault(42)
def test_a_record_of_a_newer_format_is_refused_and_left_alone(cache: Cache) -> None:
    keys, rows = some(3)
    folder = put(cache, keys, rows)
    path = folder / f"{task_id(keys)}.json"
    document = json.loads(path.read_bytes())
    document["format"] = 3
    path.write_bytes(json.dumps(document).encode())
    with pytest.raises(StoreError, match=r"format 3.*upgrade"):
        open_store(cache, SPEC)


@pytest.mark.fault(40)
@pytest.mark.parametrize(
    "data",
    [
        b'{"format": 1, "format": 1}',
        b"[]",
        b"NaN",
        b'{"rows": NaN}',
        b"[" * 200_000,
        b'{"rows": ' + b"9" * 5000 + b"}",
        b"\xff\xfe",
        b"",
        b'{"rows": -1}',
        b'{"rows": 1e999}',
    ],
)
def test_hostile_records_are_malformed_and_nothing_else(cache: Cache, data: bytes) -> None:
    folder = put(cache, *some(3))
    (folder / ("f" * 16 + ".json")).write_bytes(data)
    with pytest.raises(MalformedDocument):
        read_record(folder, "f" * 16 + ".json")
    assert len(open_store(cache, SPEC)) == 3


@pytest.mark.fault(39)
def test_a_record_cannot_lead_outside_of_its_store(cache: Cache, tmp_path: Path) -> None:
    keys, rows = some(3)
    folder = put(cache, keys, rows)
    record = read_record(folder, f"{task_id(keys)}.json")
    secret = tmp_path / "secret"
    secret.write_bytes((folder / record.shard).read_bytes())
    (folder / record.shard).unlink()
    (folder / record.shard).symlink_to(secret)
    assert len(open_store(cache, SPEC)) == 0
    document = {**record.model_dump(mode="json"), "id": "../" + record.id[3:]}
    document["self"] = hashlib.sha256(canonical_json(document)).hexdigest()
    (folder / f"{record.id}.json").write_bytes(json.dumps(document).encode())
    with pytest.raises(MalformedDocument):
        read_record(folder, f"{record.id}.json")


@pytest.mark.fault(34)
def test_a_shard_of_another_recipe_is_a_miss(cache: Cache) -> None:
    keys, rows = some(3)
    foreign = other_base().spec
    put(cache, *some(3, 5))
    theirs, _ = begin_store(cache, foreign, 4)
    commit(
        theirs / "shards", task_id(keys), foreign, keys, rows, rejected=[], environment={}, canary="0" * 64
    )
    mine, _ = begin_store(cache, SPEC, 4)
    for path in (theirs / "shards").iterdir():
        (mine / "shards" / path.name).write_bytes(path.read_bytes())
    store = open_store(cache, SPEC)
    assert (store.find(keys) == -1).all()
    assert "of recipe" in store.damaged[f"{task_id(keys)}.json"]


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


def test_a_content_with_a_suspicion_is_tried_again_and_one_with_a_verdict_is_not(cache: Cache) -> None:
    keys, rows = some(3)
    circumstances = RejectedContent(content="ab" * 32, stage="decode", reason="took too long", retry=True)
    verdict = RejectedContent(content="cd" * 32, stage="decode", reason="not an image")
    put(cache, keys, rows, rejected=[circumstances, verdict])
    store = open_store(cache, SPEC)
    assert dict(store.suspects) == {bytes.fromhex("ab" * 32): circumstances}
    assert dict(store.rejected) == {bytes.fromhex("cd" * 32): verdict}
    asked = np.frombuffer(bytes.fromhex("ab" * 32 + "cd" * 32), np.uint8).reshape(2, 32)
    assert store.known(asked).tolist() == [False, True]


def test_what_failed_once_and_has_a_row_since_is_no_suspect(cache: Cache) -> None:
    keys, rows = some(3)
    failed = RejectedContent(
        content=keys[2].tobytes().hex(), stage="decode", reason="took too long", retry=True
    )
    put(cache, keys[:2], rows[:2], rejected=[failed])
    assert list(open_store(cache, SPEC).suspects) == [keys[2].tobytes()]
    put(cache, keys[2:], rows[2:])
    store = open_store(cache, SPEC)
    assert store.suspects == {} and store.known(keys).all()


def test_a_record_says_which_format_it_needs(cache: Cache) -> None:
    """Of format 2 where it tells of circumstances, and of format 1, byte for byte as ever, where it does not."""
    keys, rows = some(3)
    before = RejectedContent(content="ab" * 32, stage="decode", reason="took too long", retry=True)
    given_up = before.model_copy(update={"circumstances": "deadline 5 s", "final": True})
    for shard, (bad, number) in enumerate(((before, 1), (given_up, 2))):
        folder = put(cache, keys[shard : shard + 1], rows[shard : shard + 1], rejected=[bad])
        text = (folder / f"{task_id(keys[shard : shard + 1])}.json").read_text()
        assert json.loads(text)["format"] == number
        assert ("circumstances" in text) == ("final" in text) == (number == 2)
    store = open_store(cache, SPEC)
    content = bytes.fromhex("ab" * 32)
    assert store.suspects == {content: given_up}
    assert store.given_up == store.tried == {content: frozenset(["deadline 5 s"])}
    name = next(path.name for path in folder.glob("*.json") if '"format": 2' in path.read_text())
    rewrite(folder, name, format=1)
    with pytest.raises(MalformedDocument, match="format 1 has no circumstances"):
        read_record(folder, name)


def test_what_is_lasting_counts_before_what_is_tried_again_in_whatever_order_it_was_told(
    cache: Cache,
) -> None:
    keys, rows = some(4)
    content = "ab" * 32
    told = [
        RejectedContent(content=content, stage="decode", reason="hung", retry=True),
        RejectedContent(content=content, stage="decode", reason="not an image"),
        RejectedContent(
            content=content, stage="decode", reason="died", retry=True, circumstances="c", final=True
        ),
    ]
    for shard, bad in enumerate([*told, told[0]]):
        put(cache, keys[shard : shard + 1], rows[shard : shard + 1], rejected=[bad])
    store = open_store(cache, SPEC)
    assert dict(store.rejected) == {bytes.fromhex(content): told[1]}
    assert not store.suspects


def rewrite(folder: Path, name: str, **changes: object) -> None:
    """Change a record and its own hash with it."""
    document = json.loads((folder / name).read_bytes())
    document.pop("self")
    document.update(changes)
    document["self"] = hashlib.sha256(canonical_json(document)).hexdigest()
    (folder / name).write_bytes(json.dumps(document).encode())


def test_a_superseded_record_is_left_out_where_what_replaces_it_is_sound(cache: Cache) -> None:
    (keys, rows), (others, more) = some(10), some(4, 1)
    put(cache, keys[:5], rows[:5])
    folder = put(cache, others, more)
    put(cache, keys, rows + 1)  # holds the first five anew, with other values
    old, new = f"{task_id(keys[:5])}.json", f"{task_id(keys)}.json"
    rewrite(folder, new, supersedes=[old])
    store = open_store(cache, SPEC)
    assert len(store) == 14 and not store.damaged
    assert old not in {f"{file.record.id}.json" for file in store.shards.files}
    np.testing.assert_array_equal(served(store, keys), rows + 1)
    np.testing.assert_array_equal(served(store, others), more)
    # What names it as replaced is damaged: then the old one counts again.
    (folder / read_record(folder, new).shard).unlink()
    store = open_store(cache, SPEC)
    np.testing.assert_array_equal(served(store, keys[:5]), rows[:5])
    assert (store.find(keys[5:]) == -1).all() and list(store.damaged) == [new]


def test_a_superseded_record_that_is_damaged_is_not_worth_a_word(cache: Cache) -> None:
    keys, rows = some(10)
    put(cache, keys[:5], rows[:5])
    folder = put(cache, keys, rows)
    old = f"{task_id(keys[:5])}.json"
    rewrite(folder, f"{task_id(keys)}.json", supersedes=[old])
    (folder / old).write_bytes(b"{")
    store = open_store(cache, SPEC)
    assert not store.damaged and len(store) == 10


def test_a_distrusted_record_is_as_if_it_were_not_there(cache: Cache) -> None:
    (keys, rows), (others, more) = some(10), some(4, 1)
    put(cache, keys, rows)
    put(cache, others, more)
    store = open_store(cache, SPEC, without=[f"{task_id(keys)}.json"])
    assert len(store) == 4 and (store.find(keys) == -1).all() and not store.damaged


def test_a_content_in_two_shards_is_one_row_of_the_first_record(cache: Cache) -> None:
    keys, rows = some(10)
    keys[:, :8] = keys[0, :8]  # and all share a prefix
    put(cache, keys[:7], rows[:7])
    put(cache, keys[3:], rows[3:] + 1)
    shared = rows[3:7] + (task_id(keys[3:]) < task_id(keys[:7]))
    store = open_store(cache, SPEC)
    assert len(store) == 10
    expected = np.concatenate([rows[:3], shared, rows[7:] + 1])
    np.testing.assert_array_equal(served(store, keys), expected)


def test_records_that_are_replaced_while_the_store_opens_are_not_missed(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, rows = some(10)
    folder = put(cache, keys[:5], rows[:5])
    old = read_record(folder, f"{task_id(keys[:5])}.json")
    listed = os.listdir
    looks = []

    def compacted_meanwhile(path: Path) -> list[str]:
        names = listed(path)
        if not looks:
            put(cache, keys, rows)
            for name in (f"{old.id}.json", old.shard, old.blocks):
                (folder / name).unlink()
        looks.append(names)
        return names

    monkeypatch.setattr(os, "listdir", compacted_meanwhile)
    store = open_store(cache, SPEC)
    assert looks and not store.damaged
    np.testing.assert_array_equal(served(store, keys), rows)
