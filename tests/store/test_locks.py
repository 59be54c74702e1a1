"""The two locks of a store: one housekeeper, many who commit, and nobody removes beside them."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from bottleneck.errors import StoreError
from bottleneck.pipeline import stores
from bottleneck.schema import Cache
from bottleneck.store import locks
from bottleneck.store.locks import (
    COMMITS,
    HOUSEKEEPING,
    committing,
    housekeeping,
    reading,
    removing,
    removing_if_free,
)
from bottleneck.store.maintenance.compact import compact_store
from bottleneck.store.maintenance.prune import prune_store
from bottleneck.store.maintenance.removal import Removal
from bottleneck.store.maintenance.verify import verify_store
from tests.store.maintenance.small_stores import house, put, served, some


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path)


def test_one_keeps_house_and_the_next_waits_and_says_for_whom(tmp_path: Path) -> None:
    said: list[str] = []
    order: list[str] = []

    def second() -> None:
        with housekeeping(tmp_path, "store prune", said.append):
            order.append("second")

    with housekeeping(tmp_path, "store compact"):
        other = threading.Thread(target=second)
        other.start()
        time.sleep(1)
        order.append("first")
    other.join(30)
    assert order == ["first", "second"]
    assert f"store compact, process {os.getpid()} on" in said[0]
    assert said[1:] == [""], "and when it is over"
    assert not (tmp_path / HOUSEKEEPING).exists(), "what nobody holds leaves no file"


def test_a_wait_ends_with_a_word_and_nothing_is_touched(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _, _ = house(cache)
    before = sorted(path.name for path in (folder / "shards").iterdir())
    monkeypatch.setattr(locks, "_FOR_HOUSEKEEPING", 0.2)
    with housekeeping(folder, "store copy"):
        for work in (lambda: compact_store(folder), lambda: prune_store(folder, None, done=True)):
            with pytest.raises(StoreError, match=r"being tidied by another command \(store copy, process"):
                work()
        prune_store(folder, None)  # a dry run asks nobody
        with pytest.raises(StoreError, match="store copy, process"):
            stores.copy([], cache.root, cache=cache.root)
    assert sorted(path.name for path in (folder / "shards").iterdir()) == before


def test_the_lock_of_a_killed_housekeeper_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import pathlib, sys\n"
        "from bottleneck.store.locks import housekeeping, removing\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "with housekeeping(folder, 'store compact'), removing(folder):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "held\n"
    with monkeypatch.context() as patch:
        patch.setattr(locks, "_FOR_HOUSEKEEPING", 0)
        with pytest.raises(StoreError), housekeeping(tmp_path, "store prune"):
            pass
    with removing_if_free(tmp_path) as alone:
        assert not alone
    owner.kill()
    owner.communicate()
    with housekeeping(tmp_path, "store prune"), removing(tmp_path):
        pass


def test_those_who_commit_do_so_together_and_those_who_remove_alone(tmp_path: Path) -> None:
    removed = threading.Event()

    def remove() -> None:
        with removing(tmp_path):
            removed.set()

    with committing(tmp_path), committing(tmp_path), reading(tmp_path) as seen:
        assert seen
        with removing_if_free(tmp_path) as alone:
            assert not alone
        other = threading.Thread(target=remove)
        other.start()
        assert not removed.wait(0.2)
    assert removed.wait(30)
    other.join()
    with removing_if_free(tmp_path) as alone:
        assert alone


def test_a_reader_makes_no_lock_and_goes_on_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with reading(tmp_path) as seen:
        assert not seen
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(locks, "_FOR_READING", 0.05)
    with removing(tmp_path), reading(tmp_path) as seen:
        assert not seen


def test_what_stands_still_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_FOR_REMOVAL", 0.05)
    monkeypatch.setattr(locks, "_FOR_COMMITS", 0.05)
    with removing(tmp_path), pytest.raises(StoreError, match="stands still"), committing(tmp_path):
        pass
    with (
        committing(tmp_path),
        pytest.raises(StoreError, match="writing or checking a shard"),
        removing(tmp_path),
    ):
        pass


def test_a_lock_file_that_was_taken_away_locks_nobody(tmp_path: Path) -> None:
    with removing(tmp_path):
        (tmp_path / COMMITS).unlink()
        with removing(tmp_path), removing_if_free(tmp_path) as alone:
            assert not alone


def test_without_locks_rows_are_committed_and_nothing_is_removed(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refused)
    folder, keys, rows = house(cache)
    for work in (lambda: compact_store(folder), lambda: prune_store(folder, None, done=True)):
        with pytest.raises(StoreError, match=r"without locks .* keep house in the copy"):
            work()
    np.testing.assert_array_equal(served(cache, keys), rows)
    assert verify_store(folder).damaged == ()


def test_a_record_that_came_back_as_another_stays(cache: Cache) -> None:
    folder, keys, rows = house(cache, 1)
    (path,) = (folder / "shards").glob("*.json")
    record = put(cache, *some(10, 0))
    removed = Removal()
    other = record.model_copy(update={"canary": "1" * 64})
    removed.records(folder / "shards", {path.name: other})
    assert list(removed.failed) == [path.name]
    np.testing.assert_array_equal(served(cache, keys), rows)


def test_parts_that_an_unreadable_record_may_name_stay(cache: Cache) -> None:
    folder, _, _ = house(cache, 1)
    (path,) = (folder / "shards").glob("*.json")
    path.write_bytes(path.read_bytes()[:-9])
    parts = [p.name for p in (folder / "shards").iterdir() if p != path]
    removed = Removal()
    removed.parts(folder / "shards", parts)
    assert removed.names == []
    path.unlink()
    removed.parts(folder / "shards", parts)
    assert sorted(removed.names) == sorted(parts)
