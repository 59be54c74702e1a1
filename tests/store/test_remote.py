"""A cache that reads what it lacks from a copy behind a URL: S3 on this machine, and a plain web server."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

import bottleneck
from bottleneck.errors import DamagedShard, ReadFailure, StoreError
from bottleneck.pipeline import stores
from bottleneck.schema import Cache
from bottleneck.store.commit import commit
from bottleneck.store.header import read_header
from bottleneck.store.read import open_store
from bottleneck.system import objects
from tests.fakes import write_images
from tests.in_process import FAKE, Call, InProcessWorker, caller
from tests.servers import Bucket, web_server
from tests.store.maintenance.test_copy import SPEC, check_rows, filled, keys_of, rows_of


@pytest.fixture
def url(bucket: Bucket, tmp_path: Path) -> str:
    """A cache behind a URL, with four shards of five rows, copied there."""
    filled(Cache(tmp_path / "first"))
    where = f"{bucket.url}/cache"
    stores.copy([], where, cache=tmp_path / "first")
    return where


@pytest.fixture
def fetches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Shards that were fetched."""
    asked: list[str] = []
    plain = objects.fetch_object
    monkeypatch.setattr(objects, "fetch_object", lambda url, *rest: asked.append(url) or plain(url, *rest))
    return asked


def shard_key(bucket: Bucket, number: int, ending: str) -> str:
    place = f"{bucket.url}/cache/stores/"
    (store,) = objects.list_objects(place)
    names = [found.name for found in objects.list_objects(f"{place}{store.name}/shards")]
    (name,) = [name for name in names if name.startswith(f"{number:016x}") and name.endswith(ending)]
    return f"cache/stores/{store.name}/shards/{name}"


def flip(bucket: Bucket, key: str, at: int = -1) -> None:
    data = bytearray(bucket.get(key))
    data[at] ^= 1
    bucket.put(key, bytes(data))


def test_an_empty_cache_serves_it_all_and_fetches_only_the_shards_it_needs(
    url: str, tmp_path: Path, fetches: list[str]
) -> None:
    cache = Cache(tmp_path / "mine", url)
    store = open_store(cache, SPEC)
    assert len(store) == 20
    assert store.rejected.keys() == {b"\xab" * 32}
    assert store.header.batch == 4
    assert fetches == []
    wanted = keys_of(3, 6)
    rows = store.rows(store.find(wanted))
    assert (np.asarray(rows) == rows_of(wanted)).all()
    assert len(fetches) == 1
    assert (np.asarray(pickle.loads(pickle.dumps(rows))) == rows_of(wanted)).all()
    check_rows(cache, 20)
    check_rows(cache, 20)
    assert len(fetches) == 4, "each shard once"
    # The first builder's batch shape and canary are kept to, and nothing in stores/ claims rows it has not.
    folder = cache.stores / store.folder.name
    assert read_header(folder) == store.header
    assert (folder / "canary.f32").exists()
    assert len(open_store(Cache(cache.root), SPEC)) == 0


def test_own_rows_and_those_from_there_are_one_store(url: str, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "mine", url)
    folder = open_store(cache, SPEC).folder
    (folder / "shards").mkdir(exist_ok=True)
    keys = keys_of(8, 18)
    commit(folder / "shards", "9" * 16, SPEC, keys, rows_of(keys), rejected=[], environment={"forward": "1"},
           canary="0" * 64)  # fmt: skip
    check_rows(cache, 26)


def test_what_is_gone_there_is_gone_here(url: str, bucket: Bucket, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "mine", url)
    check_rows(cache, 20)
    bucket.delete(shard_key(bucket, 1, ".json"))
    check_rows(cache, 20, without=frozenset(range(5, 10)))


@pytest.mark.parametrize("ending", [".json", ".blocks"])
def test_a_changed_small_file_is_a_named_miss(ending: str, url: str, bucket: Bucket, tmp_path: Path) -> None:
    flip(bucket, shard_key(bucket, 1, ending), 40 if ending == ".json" else 3)
    cache = Cache(tmp_path / "mine", url)
    assert list(open_store(cache, SPEC).damaged) == ["0000000000000001.json"]
    check_rows(cache, 20, without=frozenset(range(5, 10)))
    flip(bucket, shard_key(bucket, 1, ending), 40 if ending == ".json" else 3)
    check_rows(cache, 20)


def test_a_changed_content_column_is_a_named_miss(url: str, bucket: Bucket, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "mine", url)
    record = open_store(Cache(tmp_path / "first"), SPEC).shards.files[1].record
    flip(bucket, shard_key(bucket, 1, ".h5"), record.content_offset + 7)
    assert list(open_store(cache, SPEC).damaged) == ["0000000000000001.json"]


def test_a_changed_shard_is_refused_and_leaves_nothing(url: str, bucket: Bucket, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "mine", url)
    record = open_store(Cache(tmp_path / "first"), SPEC).shards.files[1].record
    flip(bucket, shard_key(bucket, 1, ".h5"), record.features_offset + 9)
    store = open_store(cache, SPEC)
    with pytest.raises(DamagedShard, match=r"shard 0000000000000001 .*s3://.* is not what was committed"):
        store.gather(store.find(keys_of(20)))
    assert not [
        path for path in cache.fetched.rglob("*") if "0000000000000001" in path.name and ".h5" in path.name
    ]
    assert (store.gather(store.find(keys_of(5))) == rows_of(keys_of(5))).all()
    bucket.delete(shard_key(bucket, 1, ".h5"))
    with pytest.raises(DamagedShard, match="gone from s3://"):
        store.gather(store.find(keys_of(20)))


def test_a_changed_local_copy_is_refused_like_any_shard(url: str, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "mine", url)
    check_rows(cache, 20)
    shard = next(cache.fetched.rglob("0000000000000001-*.h5"))
    data = bytearray(shard.read_bytes())
    data[open_store(cache, SPEC).shards.files[1].record.features_offset] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DamagedShard, match="rows 0 to 4"):
        check_rows(cache, 20)


def test_urls_that_cannot_be(tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreError, match="nosuch"):
        open_store(Cache(tmp_path / "a", "nosuch://x/y"), SPEC)
    with pytest.raises(StoreError, match="no cache lies there"):
        open_store(Cache(tmp_path / "a", f"{bucket.url}/nothing"), SPEC)


def test_a_service_that_goes_away_is_no_damage(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path / "mine", url)
    store = open_store(cache, SPEC)

    def away(*_: object) -> bool:
        raise TimeoutError(110, "no answer in time")

    monkeypatch.setattr(objects, "fetch_object", away)
    with pytest.raises(ReadFailure, match="no answer in time"):
        store.gather(store.find(keys_of(1)))


def test_through_a_web_server_that_knows_no_ranges(tmp_path: Path) -> None:
    filled(Cache(tmp_path / "site" / "cache"))
    with web_server(tmp_path / "site") as address:
        check_rows(Cache(tmp_path / "mine", f"{address}/cache"), 20)


def test_training_from_an_empty_cache_computes_nothing_and_sees_the_same_rows(
    bucket: Bucket, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bottleneck.extraction.run.ExtractionRun.worker_type", InProcessWorker)
    call: Call = caller(capfdbinary)
    images = write_images(tmp_path / "in", {"cat": 20, "dog": 20})
    first, second, remote = tmp_path / "a", tmp_path / "b", f"{bucket.url}/shared"
    assert call("extract", images, "--base", FAKE, "--cache", first).status == 0
    assert call("store", "copy", remote, "--cache", first).status == 0
    arguments = ("extract", images, "--base", FAKE, "--json", "--cache", second, "--remote", remote)
    done = call(*arguments).json
    assert (done["computed"], done["reused"]) == (0, 40)
    ours = bottleneck.features(images, FAKE, cache=first)
    theirs = bottleneck.features(images, FAKE, cache=second, remote=remote)
    assert (np.asarray(ours.X) == np.asarray(theirs.X)).all()
    assert (ours.y == theirs.y).all()
    monkeypatch.setenv("BOTTLENECK_REMOTE", remote)
    runs = []
    for cache in (first, second):
        done = call("train", images, "--base", FAKE, "--run", cache / "run", "--cache", cache, "--json")
        assert done.status == 0, done.err
        runs.append(done.json)
        assert call("evaluate", "--trust", cache / "run", "--json").status == 0
    assert runs[0]["metrics"] == runs[1]["metrics"]
    # One more image: computed here, kept here; the rest still comes from there.
    write_images(tmp_path / "new", {"cat": 1}, seed=5)
    (tmp_path / "new/cat/000.png").rename(images / "cat" / "new.png")
    done = call(*arguments).json
    assert (done["computed"], done["reused"]) == (1, 40)
