"""Copying stores: everything that counts, checked on its way, killed and gone on with; to folders and to real S3."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bottleneck.errors import ForeignEnvironment, StoreError
from bottleneck.pipeline import stores
from bottleneck.schema import Cache, RejectedContent
from bottleneck.store.commit import commit
from bottleneck.store.header import begin_store, read_header
from bottleneck.store.listing import list_store
from bottleneck.store.locations import FolderLocation
from bottleneck.store.locks import COMMITS
from bottleneck.store.maintenance.compact import compact_store
from bottleneck.store.maintenance.copy import copy_store
from bottleneck.store.maintenance.prune import KeptContents, prune_store
from bottleneck.store.maintenance.verify import verify_store
from bottleneck.store.read import open_store
from bottleneck.store.record import seal
from bottleneck.system import objects
from tests.fakes import base
from tests.in_process import Call, caller
from tests.servers import Bucket
from tests.store.maintenance.small_stores import house, put, reseal, served

SPEC = base().spec


def keys_of(count: int, start: int = 0) -> np.ndarray:
    keys = np.zeros((count, 32), np.uint8)
    keys.view(">u4")[:, 0] = np.arange(start, start + count)
    return keys


def rows_of(keys: np.ndarray) -> np.ndarray:
    values = keys.view(">u4")[:, :1].astype(np.float32)
    return np.ascontiguousarray(values + np.arange(SPEC.shape[0], dtype=np.float32) / 8)


def filled(cache: Cache, shards: int = 4, rows: int = 5) -> Path:
    """A store of some shards, one rejection, a canary and what does not count."""
    folder, _ = begin_store(cache, SPEC, 4)
    (folder / "canary.f32").write_bytes(np.arange(16, dtype="<f4").tobytes())
    for shard in range(shards):
        keys = keys_of(rows, shard * rows)
        rejected = [RejectedContent(content="ab" * 32, stage="decode", reason="no")] if shard == 0 else []
        identity = f"{shard:016x}"
        commit(
            folder / "shards", identity, SPEC, keys, rows_of(keys),
            rejected=rejected, environment={"forward": "1"}, canary="0" * 64,
        )  # fmt: skip
    (folder / "shards" / "ffffffffffffffff-0123456789abcdef.h5").write_bytes(b"an orphan")
    return folder


def check_rows(cache: Cache, count: int, *, without: frozenset[int] = frozenset()) -> None:
    store = open_store(cache, SPEC)
    keys = keys_of(count)
    there = np.array([key not in without for key in range(count)])
    assert ((store.find(keys) >= 0) == there).all()
    assert (store.gather(store.find(keys[there])) == rows_of(keys[there])).all()


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def call(capfdbinary: pytest.CaptureFixture[bytes]) -> Call:
    return caller(capfdbinary)


def counting(folder: Path) -> set[str]:
    """Files of a store that count, but for its orphan and the lock of those who commit."""
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith("ffff") and path.name != COMMITS
    }


def test_a_copy_is_the_store_and_copying_again_writes_nothing(cache: Cache, tmp_path: Path) -> None:
    folder = filled(cache)
    target = tmp_path / "other"
    (done,) = stores.copy([folder.name], target, cache=cache.root)
    assert (done.shards, done.present, done.rows, done.damaged) == (4, 0, 20, {})
    copied = target / "stores" / folder.name
    assert counting(copied) == counting(folder)
    assert not list(copied.rglob("ffff*")), "what no record names is not copied"
    for name in counting(folder):
        assert (copied / name).read_bytes() == (folder / name).read_bytes()
    check_rows(Cache(target), 20)
    assert open_store(Cache(target), SPEC).rejected.keys() == {b"\xab" * 32}
    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*")}
    (again,) = stores.copy([], target, cache=cache.root)
    assert (again.shards, again.present, again.rows) == (0, 4, 0)
    assert {path: path.stat().st_mtime_ns for path in copied.rglob("*")} == before


def test_a_damaged_shard_is_named_and_not_copied(cache: Cache, tmp_path: Path, call: Call) -> None:
    folder = filled(cache)
    shard = next((folder / "shards").glob("0000000000000001-*.h5"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    (folder / "shards" / "0000000000000002.json").write_bytes(b"{}")
    next((folder / "shards").glob("0000000000000003-*.blocks")).unlink()
    done = call("store", "copy", tmp_path / "other", "--cache", cache.root, "--json")
    assert done.status == 1
    (one,) = done.json["stores"]
    assert one["shards"] == 1
    assert set(one["damaged"]) == {f"{n:016x}.json" for n in (1, 2, 3)}
    assert "not what was committed" in one["damaged"]["0000000000000001.json"]
    assert "gone" in one["damaged"]["0000000000000003.json"]
    check_rows(Cache(tmp_path / "other"), 20, without=frozenset(range(5, 20)))
    copied = tmp_path / "other" / "stores" / folder.name / "shards"
    assert len(list(copied.iterdir())) == 3, "nothing of a damaged shard is there"


def test_damage_at_the_target_is_put_right(cache: Cache, tmp_path: Path) -> None:
    folder = filled(cache)
    target = tmp_path / "other"
    stores.copy([], target, cache=cache.root)
    copied = target / "stores" / folder.name / "shards"
    shard = next(copied.glob("0000000000000001-*.h5"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    (copied / "0000000000000002.json").write_bytes(b"{}")
    next(copied.glob("0000000000000003-*.blocks")).unlink()
    (done,) = stores.copy([], target, cache=cache.root)
    assert (done.shards, done.present, done.damaged) == (3, 1, {})
    check_rows(Cache(target), 20)
    assert (copied / "0000000000000002.json").read_bytes() == b"{}", "a record is never replaced"


def test_what_a_record_supersedes_is_not_copied(cache: Cache, tmp_path: Path) -> None:
    folder = filled(cache)
    stores.compact([], cache=cache.root)
    for shard in range(4):  # as if the compaction had been killed before it removed the old ones
        keys = keys_of(5, 5 * shard)
        commit(folder / "shards", f"{shard:016x}", SPEC, keys, rows_of(keys), rejected=[],
               environment={"forward": "1"}, canary="0" * 64)  # fmt: skip
    (done,) = stores.copy([], tmp_path / "other", cache=cache.root)
    assert (done.shards, done.rows) == (1, 20)
    check_rows(Cache(tmp_path / "other"), 20)


def test_another_machine_s_rows_and_another_recipe_are_refused(cache: Cache, tmp_path: Path) -> None:
    folder = filled(cache)
    other = Cache(tmp_path / "other")
    there = filled(other, shards=1)
    (there / "canary.f32").write_bytes((np.arange(16, dtype="<f4") * 1.01).tobytes())
    with pytest.raises(ForeignEnvironment, match="differ by"):
        stores.copy([], other.root, cache=cache.root)
    (there / "canary.f32").write_bytes((np.arange(16, dtype="<f4") * np.float32(1 + 1e-6)).tobytes())
    assert stores.copy([], other.root, cache=cache.root)[0].shards == 3
    header = read_header(folder)
    assert header is not None
    recipe = header.spec.recipe.model_copy(update={"base_digest": "1" * 64})
    foreign = header.model_copy(update={"spec": header.spec.model_copy(update={"recipe": recipe})})
    (there / "recipe.json").write_bytes(seal(foreign))
    with pytest.raises(StoreError, match=r"was expected"):
        stores.copy([], other.root, cache=cache.root)


def test_to_s3_and_back(cache: Cache, tmp_path: Path, bucket: Bucket, call: Call) -> None:
    folder = filled(cache)
    url = f"{bucket.url}/team/cache"
    for expected in ((4, 0), (0, 4)):
        done = call("store", "copy", folder.name, url + "/", "--cache", cache.root, "--json")
        assert done.status == 0, done.err
        (one,) = done.json["stores"]
        assert (one["shards"], one["present"]) == expected
        assert one["target"] == f"{url}/stores/{folder.name}"
    for name in counting(folder):
        assert bucket.get(f"team/cache/stores/{folder.name}/{name}") == (folder / name).read_bytes()
    # A shard that is lost there is written again, and no other.
    lost = next((folder / "shards").glob("0000000000000001-*.h5")).name
    bucket.delete(f"team/cache/stores/{folder.name}/shards/{lost}")
    (again,) = stores.copy([], url, cache=cache.root)
    assert (again.shards, again.present) == (1, 3)
    for number, where in enumerate((url, f"{url}/stores/{folder.name}")):
        back = Cache(tmp_path / f"back{number}")
        done = call("store", "copy", where, back.root, "--json")
        assert done.json["stores"][0]["shards"] == 4
        check_rows(back, 20)
        assert counting(back.stores / folder.name) == counting(folder)
    shutil.rmtree(tmp_path / "back0")
    tampered = bytearray(bucket.get(f"team/cache/stores/{folder.name}/shards/{lost}"))
    tampered[-1] ^= 1
    bucket.put(f"team/cache/stores/{folder.name}/shards/{lost}", bytes(tampered))
    done = call("store", "copy", url, tmp_path / "back0", "--json")
    assert done.status == 1
    assert list(done.json["stores"][0]["damaged"]) == ["0000000000000001.json"]
    check_rows(Cache(tmp_path / "back0"), 20, without=frozenset(range(5, 10)))


def test_to_a_file_url_and_from_an_empty_cache(cache: Cache, tmp_path: Path) -> None:
    folder = filled(cache)
    url = f"file://{tmp_path}/far/away"
    (done,) = stores.copy([folder.name], url, cache=cache.root)
    assert (done.shards, done.target) == (4, f"{url}/stores/{folder.name}")
    check_rows(Cache(tmp_path / "far" / "away"), 20)
    with pytest.raises(StoreError, match="no stores to copy"):
        stores.copy([], url, cache=tmp_path / "empty")


def test_urls_that_hold_no_store(bucket: Bucket, tmp_path: Path, call: Call) -> None:
    done = call("store", "copy", f"{bucket.url}/nothing", tmp_path / "x")
    assert done.status == 1
    assert "neither a store (recipe.json) nor a cache (stores/)" in done.err
    assert call("store", "copy", "nosuch://x/y", tmp_path / "x").status == 1
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("kind", ["s3", "folder"])
def test_killed_while_copying_it_serves_what_has_records_and_then_goes_on(
    kind: str, cache: Cache, tmp_path: Path, bucket: Bucket
) -> None:
    shards, rows = 14, 3
    folder = filled(cache, shards, rows)
    target = f"{bucket.url}/killed" if kind == "s3" else str(tmp_path / "killed")
    command = [sys.executable, "-m", "bottleneck", "store", "copy", target, "--quiet"]
    environment = {**os.environ, "BOTTLENECK_CACHE": str(cache.root)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    place = f"{target}/stores/{folder.name}/shards"

    def records() -> int:
        try:
            names = (
                os.listdir(place)
                if kind == "folder"
                else [found.name for found in objects.list_objects(place)]
            )
        except FileNotFoundError:
            return 0
        return sum(name.endswith(".json") for name in names)

    try:
        while records() < 3:
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            time.sleep(0.05 if kind == "s3" else 0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        _, told = process.communicate()
    there = records()
    assert 3 <= there < shards, f"killed too late to tell anything: {there} {told!r}"
    half = Cache(tmp_path / "empty", target) if kind == "s3" else Cache(tmp_path / "killed")
    store = open_store(half, SPEC)
    assert len(store) == there * rows
    assert store.damaged == {}
    served = store.index.keys
    assert (store.gather(store.find(served)) == rows_of(np.ascontiguousarray(served))).all()
    (done,) = stores.copy([], target, cache=cache.root)
    assert (done.shards, done.present, done.damaged) == (shards - there, there, {})
    check_rows(Cache(tmp_path / "full", target) if kind == "s3" else half, shards * rows)


def test_compacting_pruning_and_copying_in_turn_hides_no_row(tmp_path: Path) -> None:
    """Two stores exchange rewritten shards of the same rows: none may stand in for one that stands in for it."""
    here, there = Cache(tmp_path / "here"), Cache(tmp_path / "there")
    folder, keys, rows = house(here, 2)
    kept = KeptContents(keys[:5])

    def copied() -> None:
        copy_store(FolderLocation(folder), str(there.root))
        np.testing.assert_array_equal(served(there, keys[:5]), rows[:5])
        prune_store(there.stores / folder.name, None, done=True)  # what is superseded there goes

    for _ in range(3):
        prune_store(folder, kept, done=True)  # the same five rows, each time
        copied()
        put(here, keys[10:], rows[10:])
        compact_store(folder)
        copied()


def test_records_that_stand_in_for_one_another_in_a_circle_count(tmp_path: Path) -> None:
    """Earlier versions could make them."""
    cache = Cache(tmp_path)
    folder, keys, rows = house(cache, 2, 5)
    one, other = sorted((folder / "shards").glob("*.json"))
    reseal(one, supersedes=[other.name])
    reseal(other, supersedes=[one.name])
    np.testing.assert_array_equal(served(cache, keys), rows)
    assert len(list_store(folder).standing) == 2
    assert verify_store(folder).rows == 10
    compact_store(folder)
    np.testing.assert_array_equal(served(cache, keys), rows)
    assert len(list((folder / "shards").glob("*.json"))) == 1
