"""Rows 5 and 6: too little memory, by the kernel's hand and by a limit of the process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fakes import write_images
from tests.faults.command_runs import again, committed, leftovers, run, shard_files
from tests.faults.large_rows import WideForward
from tests.faults.reference_stores import check_served

_GROUPS = Path("/sys/fs/cgroup")


@contextmanager
def memory_group(limit: int) -> Iterator[tuple[str, ...]]:
    """A prefix that runs a command in a group of processes that may have so many bytes together."""
    first = _GROUPS / "memory"
    root, bound = (first, "memory.limit_in_bytes") if first.is_dir() else (_GROUPS, "memory.max")
    group = root / f"bottleneck-faults-{os.getpid()}"
    try:
        group.mkdir()
        (group / bound).write_text(str(limit))
    except OSError as error:
        if group.is_dir():
            group.rmdir()
        pytest.skip(f"needs a control group for memory ({error.strerror})")
    try:
        yield ("sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh")
    finally:
        group.rmdir()


@pytest.mark.fault(5)
def test_the_kernel_ends_a_worker_at_one_image_for_its_memory(tmp_path: Path) -> None:
    """Only that image has no row, and only for now."""
    source, cache = write_images(tmp_path / "in", {"cat": 8}), tmp_path / "cache"
    victim = source / "cat" / "003.png"
    whole = victim.read_bytes()
    victim.write_bytes(whole + b"GREEDY")
    with memory_group(420 << 20) as prefix:
        ended = run(source, cache, prefix=prefix, more=("--max-bad", "0.5"))
    assert ended.status == 0, ended.err
    assert ended.json["computed"] == 7
    (rejected,) = ended.json["rejections"]
    assert rejected["path"] == "cat/003.png"
    assert "SIGKILL" in rejected["reason"] and "out of memory" in rejected["reason"]
    victim.write_bytes(whole)
    done = again(source, cache)
    assert (done.computed, done.reused) == (1, 7)
    assert check_served(source, cache) == 8


@pytest.mark.fault(5)
def test_the_kernel_ends_every_worker_for_its_memory(tmp_path: Path) -> None:
    """The base is too large for the machine: that is said, with what to do."""
    source, cache = write_images(tmp_path / "in", {"cat": 8}), tmp_path / "cache"
    with memory_group(420 << 20) as prefix:
        ended = run(source, cache, base="tests.faults.large_rows:hungry", prefix=prefix)
    ended.check_clean()
    assert ended.json["kind"] == "WorkerDied"
    assert "out of memory" in ended.json["error"] and "--batch" in ended.json["error"]
    assert committed(cache) == set()
    assert again(source, cache, WideForward()).computed == 8
    assert leftovers(cache) == []


@pytest.mark.fault(6)
def test_a_limit_of_the_address_space(tmp_path: Path, full: bool, note: Callable[[str], None]) -> None:
    """The worker may have so many MiB more than the base took: rows, threads, pixels or the shard do not fit."""
    source = write_images(tmp_path / "in", {"cat": 24})
    straight = tmp_path / "straight"
    again(source, straight, WideForward(), rows=8)
    ends: dict[int, int] = {}
    for spare in (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512) if full else (2, 512):
        cache = tmp_path / str(spare)
        ended = run(
            source, cache, base="tests.faults.large_rows:cramped", rows=8, FAULTS_SPARE_MIB=str(spare)
        )
        if ended.status:
            ended.check_clean()
        ends[spare] = ended.status
        whole = shard_files(straight)
        there = shard_files(cache)
        assert all(there[name] == whole.get(name) for name in committed(cache)), "no partial shard"
        again(source, cache, WideForward(), rows=8)
        assert shard_files(cache) == whole
        assert leftovers(cache) == []
    assert 1 in ends.values() and 0 in ends.values()
    note("exit status by spare MiB: " + ", ".join(f"{spare}: {status}" for spare, status in ends.items()))
