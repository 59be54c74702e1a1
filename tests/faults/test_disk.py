"""Disks that fail, have no links, or are read-only: rows 11 to 14, 16 to 18."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.fakes import rows_by_hand, write_images
from tests.faults.command_runs import (
    again,
    committed,
    end,
    ended_at_last,
    leftovers,
    run,
    shard_files,
    start,
    wait_until,
)
from tests.faults.disk_checks import IMAGES, check_goes_on, check_kept
from tests.faults.ld_preload import SHORT, compiled
from tests.faults.private_mounts import cover_read_only, memory, mount, private_mounts, unmount
from tests.faults.reference_stores import snapshot

Note = Callable[[str], None]


# ------------------------------------------------------------------------------------------ failing system calls


def strace(log: Path, *rules: str, calls: str, paths: tuple[Path, ...] = ()) -> tuple[str, ...]:
    """A prefix: run under strace, with these injections."""
    scope = [part for path in paths for part in ("-P", str(path))]
    injected = [part for rule in rules for part in ("-e", f"inject={rule}")]
    return ("strace", "-f", "-y", "-qq", "-o", str(log), *scope, "-e", f"trace={calls}", *injected)


@pytest.mark.fault(11, 12)
@pytest.mark.needs_tool("strace")
def test_a_failed_fsync_is_an_end_and_never_tried_again(
    source: Path, tmp_path: Path, straight: dict[str, str], full: bool, note: Note
) -> None:
    """The n-th fsync of each process fails: of plan, header, canary, shard, block hashes, record, of their folders."""
    met: list[str] = []
    for number in range(1, 41) if full else (5, 10):
        cache, log = tmp_path / f"cache{number}", tmp_path / f"log{number}"
        rule = f"fsync:error=EIO:when={number}"
        ended = run(source, cache, prefix=strace(log, rule, calls="fsync,fdatasync,sync_file_range"))
        calls = log.read_text()
        failed = re.findall(r"fsync\(\d+<([^>]*)>\) += -1 EIO .*INJECTED", calls)
        if not failed:
            assert ended.status == 0 and number > 20
            break
        ended.check_clean()
        assert "Input/output error" in ended.json["error"], ended.json
        files = re.findall(r"fsync\(\d+<([^>]*\.tmp)>\)", calls)
        assert len(files) == len(set(files)), "an fsync that failed is not tried again"
        for name in failed:
            assert not name.endswith(".tmp") or not Path(name).exists()
            met.append(Path(re.sub(r"\.\d+\.[0-9a-f]{8}\.tmp", "", name)).suffix or "folder")
        check_goes_on(source, cache, straight, check_kept(source, cache))
    else:
        assert not full, "the sweep found its end"
    note(
        f"{len(met)} fsyncs failed, one a run: "
        + ", ".join(f"{met.count(m)} x {m}" for m in sorted(set(met)))
    )


@pytest.mark.fault(13)
@pytest.mark.needs_tool("strace")
@pytest.mark.parametrize(
    ("pattern", "call"), [("*.h5", "pread64"), ("*.json", "read"), ("../recipe.json", "read")]
)
def test_a_read_error_is_told_and_nothing_is_taken_for_damaged(
    source: Path, tmp_path: Path, pattern: str, call: str, full: bool
) -> None:
    cache = tmp_path / "cache"
    again(source, cache)
    before = snapshot(cache / "stores")
    (folder,) = cache.glob("stores/*/shards")
    victim = sorted(folder.glob(pattern))[0].resolve()
    prefix = strace(tmp_path / "log", f"{call}:error=EIO", calls=call, paths=(victim,))
    for command in ("extract", "features") if full else ("extract",):
        more = ("--out", tmp_path / "out") if command == "features" else ()
        ended = run(source, cache, prefix=prefix, command=command, more=more)
        assert "INJECTED" in (tmp_path / "log").read_text()
        ended.check_clean()
        assert ended.json["kind"] == "ReadFailure", ended.json
        assert str(victim) in ended.json["error"] and "cannot be read" in ended.json["error"]
        assert snapshot(cache / "stores") == before, "nothing was removed, replaced or computed anew"
    assert again(source, cache).reused == IMAGES


@pytest.mark.fault(16)
@pytest.mark.needs_tool("strace")
@pytest.mark.parametrize(
    ("refused", "done"),
    [
        (("linkat:error=EPERM",), True),
        (("linkat:error=EXDEV", "renameat2:error=ENOSYS"), True),
        (("linkat:error=ENOSYS", "renameat2:error=EINVAL", "rename:error=EXDEV"), False),
    ],
)
def test_a_disk_without_links_or_renames(
    source: Path, tmp_path: Path, straight: dict[str, str], refused: tuple[str, ...], done: bool
) -> None:
    cache, log = tmp_path / "cache", tmp_path / "log"
    calls = "link,linkat,rename,renameat,renameat2"
    ended = run(source, cache, prefix=strace(log, *refused, calls=calls))
    text = log.read_text()
    for rule in refused:
        assert re.search(rf"{rule.partition(':')[0]}\(.*INJECTED", text), rule
    if done:
        assert ended.status == 0, ended.err
        assert ended.json["computed"] == IMAGES
        assert shard_files(cache) == straight
        assert leftovers(cache) == []
    else:
        ended.check_clean()
        assert "nvalid cross-device link" in ended.json["error"]
        check_goes_on(source, cache, straight, check_kept(source, cache))


@pytest.mark.fault(14)
@pytest.mark.needs_tool("cc")
def test_short_and_interrupted_reads_and_writes(
    source: Path, tmp_path: Path, straight: dict[str, str], note: Note
) -> None:
    """A library before the system's writes and reads half of what is asked for; each seventh try is interrupted."""
    seen = tmp_path / "seen"
    cache = tmp_path / "cache"
    # Unbuffered, Python's own standard output does not go on after a short write.
    flags = {"LD_PRELOAD": compiled(SHORT, tmp_path), "FAULTS_SHORT": str(seen), "PYTHONUNBUFFERED": ""}
    ended = run(source, cache, **flags)
    assert ended.status == 0, ended.err
    assert ended.json["computed"] == IMAGES
    assert seen.read_text(), "the library was in the way"
    assert shard_files(cache) == straight
    ended = run(source, cache, command="features", more=("--out", tmp_path / "out"), **flags)
    assert ended.status == 0, ended.err
    by_hand = rows_by_hand(source)
    matrix = np.load(tmp_path / "out" / "features.npy")
    np.testing.assert_array_equal(matrix, np.stack([by_hand[path] for path in sorted(by_hand)]))
    note("every read and write cut in half, each seventh interrupted: equal files, equal matrix")


# ------------------------------------------------------------------------------------------------ read-only


WRITES = re.compile(
    r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|\b(?:mkdir|unlink|rename|link|symlink|truncate|chmod|utime)"
)


@pytest.mark.fault(17)
@pytest.mark.needs_tool("strace")
@pytest.mark.needs_tool("mount")
@private_mounts
def test_a_read_only_cache_is_read_without_a_try_at_writing_and_refused_for_building(
    source: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    # What has just changed is never taken for indexed.
    wait_until(lambda: time.time() > max(p.stat().st_ctime for p in source.rglob("*.png")) + 2.1)
    assert run(source, cache).status == 0
    before = snapshot(cache)
    mount("--bind", cache, cache)
    mount("-o", "remount,bind,ro", cache)
    log = tmp_path / "log"
    calls = (
        "openat,openat2,mkdir,mkdirat,unlink,unlinkat,rename,renameat2,link,linkat,truncate,chmod,utimensat"
    )
    for command, more in (("extract", ()), ("features", ("--out", tmp_path / "out"))):
        ended = run(source, cache, prefix=strace(log, calls=calls), command=command, more=more)
        assert ended.status == 0, ended.err
        touched = [line for line in log.read_text().splitlines() if str(cache) in line]
        assert any(".h5" in line for line in touched), "strace saw the shards being read"
        assert [line for line in touched if WRITES.search(line)] == []
    ended = run(write_images(tmp_path / "in", {"dog": 2}, seed=4), cache)
    ended.check_clean()
    assert str(cache) in ended.json["error"] and "cannot be written to" in ended.json["error"]
    assert snapshot(cache) == before


@pytest.mark.fault(18)
@pytest.mark.needs_tool("mount")
@private_mounts
def test_a_cache_that_becomes_read_only_under_way(tmp_path: Path) -> None:
    count = 240  # three seconds of work: on a busy machine the mounts, too, come late
    source = write_images(tmp_path / "in", {"cat": count})
    disk = memory(tmp_path / "disk", "size=32m")
    cache = disk / "cache"
    with ended_at_last(start(source, cache, base="tests.fakes:slow_base")) as running:
        wait_until(lambda: len(committed(cache)) >= 2)
        cover_read_only(disk, tmp_path / "aside")
        ended = end(running)
    ended.check_clean()
    assert "Read-only file system" in ended.json["error"]
    kept = check_kept(source, cache)
    assert 8 <= kept < count
    unmount(disk)
    done = again(source, cache)
    assert (done.computed, done.reused) == (count - kept, kept)
    assert check_kept(source, cache) == count
    assert leftovers(cache) == []
