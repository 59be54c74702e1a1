"""Disks and files that have no room: rows 7 to 10."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bottleneck.errors import BottleneckError
from tests.fakes import write_images
from tests.faults.command_runs import WIDE, again, committed, leftovers, run, shard_files
from tests.faults.disk_checks import check_goes_on, check_kept
from tests.faults.large_rows import WideForward
from tests.faults.private_mounts import loop, memory, private_mounts, remount, unmount

Note = Callable[[str], None]


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
