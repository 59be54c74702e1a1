"""Records that are damaged, hostile, newer or superseded."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from bottleneck.errors import StoreError
from bottleneck.schema import Cache, RejectedContent, canonical_json
from bottleneck.schema.strict_json import MalformedDocument
from bottleneck.store.commit import commit
from bottleneck.store.header import begin_store
from bottleneck.store.plan import task_id
from bottleneck.store.read import open_store
from bottleneck.store.record import read_record
from tests.fakes import other_base
from tests.store.fake_stores import SPEC, put, served, some


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


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
