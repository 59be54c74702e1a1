"""Locks of tasks: held by one, free when their owner is dead, granted where there are none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bottleneck.store.task_locks import TaskLocks

TASK = "0" * 16


def test_a_lock_is_held_by_one_and_goes_with_settled_work(tmp_path: Path) -> None:
    mine = TaskLocks(tmp_path).take(TASK)
    assert mine is not None
    assert TaskLocks(tmp_path).take(TASK) is None
    assert TaskLocks(tmp_path).take("1" * 16) is not None
    assert TaskLocks(tmp_path).take(TASK, attempt=1) is not None
    mine.release(settled=True)
    assert not (tmp_path / f"{TASK}.lock").exists()
    again = TaskLocks(tmp_path).take(TASK)
    assert again is not None
    with again:
        pass
    assert (tmp_path / f"{TASK}.lock").exists()


def test_the_lock_of_a_dead_process_is_free(tmp_path: Path) -> None:
    code = (
        "import sys, os, pathlib\n"
        "from bottleneck.store.task_locks import TaskLocks\n"
        f"lock = TaskLocks(pathlib.Path(sys.argv[1])).take({TASK!r})\n"
        "print(lock is not None, flush=True)\n"
        "sys.stdin.read()\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "True\n"
    assert TaskLocks(tmp_path).take(TASK) is None
    owner.kill()
    owner.communicate()
    assert TaskLocks(tmp_path).take(TASK) is not None


def test_without_a_folder_every_lock_is_granted_and_none_is_made(tmp_path: Path) -> None:
    locks = TaskLocks(tmp_path / "gone")
    first, second = locks.take(TASK), locks.take(TASK)
    assert first is not None
    assert second is not None
    first.release(settled=True)
    assert not (tmp_path / "gone").exists()


def test_only_leftovers_of_tasks_are_swept(tmp_path: Path) -> None:
    (tmp_path / "locks").mkdir()
    shards = tmp_path / "shards"
    shards.mkdir()
    for name in (f".{TASK}.json.7.abcdef01.tmp", f".{TASK}-{TASK}.h5.7.abcdef01.tmp", ".mine.tmp", "x.tmp"):
        (shards / name).write_bytes(b"")
    TaskLocks(tmp_path / "locks").sweep([shards, tmp_path / "nowhere"])
    assert sorted(path.name for path in shards.iterdir()) == [".mine.tmp", "x.tmp"]
    assert list((tmp_path / "locks").iterdir()) == []
