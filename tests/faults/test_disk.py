"""Rows 7 to 14, 16 to 18: disks that are full, read-only, failing, or without links."""

from __future__ import annotations

import re
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from bottleneck.errors import BottleneckError
from bottleneck.inventory.scan import scan_source
from bottleneck.schema import Cache
from bottleneck.sources.open import open_source
from bottleneck.store.join import join
from bottleneck.store.read import open_store
from tests.fakes import FakeForward, base, rows_by_hand, write_images
from tests.faults.command_runs import (
    WIDE,
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
from tests.faults.large_rows import WideForward
from tests.faults.ld_preload import SHORT, compiled
from tests.faults.private_mounts import cover_read_only, loop, memory, mount, private_mounts, remount, unmount
from tests.faults.reference_stores import snapshot

IMAGES = 12
Note = Callable[[str], None]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tasks."""
    return write_images(tmp_path_factory.mktemp("images"), {"cat": 7, "dog": 5})


@pytest.fixture(scope="module")
def straight(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The shard files of a run that nobody disturbed."""
    cache = tmp_path_factory.mktemp("straight")
    again(source, cache)
    return shard_files(cache)


def check_kept(source: Path, cache: Path, forward: FakeForward | None = None) -> int:
    """Every row that the store serves as it is now is right, and no record is half there; gives their number."""
    forward = forward or base()
    store = open_store(Cache(cache), forward.spec)
    assert store.damaged == {}
    opened = open_source(source)
    rows = join(store, scan_source(opened, None))
    by_hand = rows_by_hand(source, forward)
    for path, row in zip(rows.paths, np.asarray(rows.X), strict=True):
        np.testing.assert_array_equal(row, by_hand[path])
    assert len(rows) == len(store)
    return len(rows)


def check_goes_on(source: Path, cache: Path, straight: dict[str, str], kept: int) -> None:
    """Once what was wrong is put right, the same command completes, and computes only what was not kept."""
    done = again(source, cache)
    assert (done.computed, done.reused) == (IMAGES - kept, kept)
    assert shard_files(cache) == straight
    # Where nothing is lacking nothing is written, and a plan that was not cleared away stays for `prune`.
    assert leftovers(cache) == [] or kept == IMAGES


# ------------------------------------------------------------------------------------------------ no space


@pytest.mark.fault(7)
@pytest.mark.needs_tool("mount")
@pytest.mark.parametrize("kind", ["tmpfs", pytest.param("ext4", marks=pytest.mark.needs_tool("mkfs.ext4"))])
@private_mounts
def test_a_full_disk_ends_the_run_and_keeps_what_was_done(tmp_path: Path, kind: str, note: Note) -> None:
    source = write_images(tmp_path / "in", {"cat": 80})
    forward, disk = WideForward(), tmp_path / "disk"
    if kind == "tmpfs":
        memory(disk, "size=5m")
    else:
        loop(tmp_path / "image", disk, 6)
        (disk / "filler").write_bytes(bytes(100 << 10))
    cache = disk / "cache"
    ended = run(source, cache, base=WIDE)
    ended.check_clean()
    assert "No space left on device" in ended.json["error"]
    assert "Finished shards are kept" in ended.json["error"]
    kept = check_kept(source, cache, forward)
    assert 0 < kept < 80
    before = shard_files(cache)
    more = run(source, cache, base=WIDE)
    more.check_clean()
    if kind == "tmpfs":
        assert remount(disk, "size=64m")
        done = again(source, cache, forward)
        assert (done.computed, done.reused) == (80 - kept, kept)
        assert before.items() <= shard_files(cache).items()
        assert check_kept(source, cache, forward) == 80
        assert leftovers(cache) == []
    note(f"{kind}: {kept} of 80 rows kept, exit 1")


def fill_up(
    source: Path, disk: Path, straight: dict[str, str], limits: list[str], enough: str, note: Note
) -> None:
    """Runs under each limit in turn, until one is wide enough; each goes on once there is room."""
    ends: list[str] = []
    for limit in limits:
        memory(disk, limit)
        cache = disk / "cache"
        try:
            again(source, cache)
            ends.append("done")
        except (BottleneckError, OSError) as error:
            ends.append("refused" if "No space left" in str(error) else repr(error))
        kept = check_kept(source, cache)
        assert all(
            straight[name] == digest
            for name, digest in shard_files(cache).items()
            if name in committed(cache)
        )
        assert remount(disk, enough)
        check_goes_on(source, cache, straight, kept)
        unmount(disk)
    assert ends[0] == "refused" and ends[-1] == "done"
    assert set(ends) == {"refused", "done"}
    note(f"{len(limits)} limits: {ends.count('refused')} refused, {ends.count('done')} done, all went on")


@pytest.mark.fault(7, 8)
@pytest.mark.needs_tool("mount")
@private_mounts
def test_a_disk_that_is_full_at_any_page(
    source: Path, tmp_path: Path, straight: dict[str, str], note: Note
) -> None:
    """From no page to enough of them, so that each file there is was the one that did not fit: index, plan, log too."""
    limits = [f"size={4 * pages}k" for pages in range(1, 30)]
    fill_up(source, tmp_path / "disk", straight, limits, "size=8m", note)


@pytest.mark.fault(9)
@pytest.mark.needs_tool("mount")
@private_mounts
def test_a_disk_without_inodes_at_any_file(
    source: Path, tmp_path: Path, straight: dict[str, str], note: Note
) -> None:
    limits = [f"nr_inodes={count}" for count in range(2, 32)]
    fill_up(source, tmp_path / "disk", straight, limits, "nr_inodes=10000", note)


@pytest.mark.fault(8, 9)
@pytest.mark.needs_tool("mount")
@pytest.mark.parametrize("limit", ["size=28k", "nr_inodes=14", "size=4k"])
@private_mounts
def test_the_command_line_says_that_the_disk_is_full(
    source: Path, tmp_path: Path, straight: dict[str, str], limit: str
) -> None:
    cache = memory(tmp_path / "disk", limit) / "cache"
    ended = run(source, cache)
    ended.check_clean()
    assert "No space left on device" in ended.json["error"]
    kept = check_kept(source, cache)
    assert remount(tmp_path / "disk", "nr_inodes=10000,size=8m")
    check_goes_on(source, cache, straight, kept)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.fault(10)
def test_a_file_size_limit_of_any_size(
    source: Path, tmp_path: Path, straight: dict[str, str], full: bool, note: Note
) -> None:
    sizes = range(0, 3400, 40 if full else 400)
    refused: list[str] = []
    for size in sizes:
        cache = tmp_path / str(size)
        try:
            with largest_file(size):
                again(source, cache)
        except (BottleneckError, OSError) as error:
            refused.append("" if "File too large" in str(error) else repr(error))
        check_goes_on(source, cache, straight, check_kept(source, cache))
    assert 0 < len(refused) < len(sizes)
    assert set(refused) == {""}
    note(f"{len(sizes)} limits from 0 to {sizes[-1]} bytes, {len(refused)} refused, all went on")


@pytest.mark.fault(10)
@pytest.mark.needs_tool("prlimit")
def test_a_file_size_limit_is_said(source: Path, tmp_path: Path, straight: dict[str, str]) -> None:
    ended = run(source, tmp_path / "cache", prefix=("prlimit", "--fsize=1800"))
    ended.check_clean()
    assert "File too large" in ended.json["error"]
    check_goes_on(source, tmp_path / "cache", straight, check_kept(source, tmp_path / "cache"))


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
