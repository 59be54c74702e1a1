"""Row 15: the power goes, and what the disk holds at that moment is all there is."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from bottleneck.schema import Cache
from bottleneck.store.read import Store, open_store
from tests.fakes import rows_by_hand, write_images
from tests.faults.command_runs import (
    WIDE,
    again,
    children,
    end,
    ended_at_last,
    leftovers,
    shard_files,
    start,
    state_of,
    wait_until,
)
from tests.faults.large_rows import WideForward
from tests.faults.private_mounts import loop, memory, mount, private_mounts, unmount

TASKS, ROWS = 16, 4


@pytest.mark.fault(15)
@pytest.mark.needs_tool("mkfs.ext4")
@pytest.mark.needs_tool("mount")
@private_mounts
def test_what_was_acknowledged_is_there_after_a_power_cut(
    tmp_path: Path, full: bool, note: Callable[[str], None]
) -> None:
    """An ext4 image is copied under a builder at random moments; the copy, its journal replayed, is what a cut leaves.

    It is paused meanwhile, between two system calls: a copy that takes a while, of a disk that is written to, is of no
    one moment, and its metadata are torn as no cut tears them. What the builder wrote and had not made durable is lost.
    """
    draw = random.Random(15)
    source = write_images(tmp_path / "in", {"cat": TASKS * ROWS}, size=(4, 4))
    by_hand = np.stack(list(rows_by_hand(source, WideForward()).values()))
    whole = tmp_path / "straight"
    again(source, whole, WideForward())
    straight = shard_files(whole)
    ram = memory(tmp_path / "ram", "size=512m")
    met: Counter[str] = Counter()
    for build in range(10 if full else 1):
        disk, acks = loop(ram / "image", tmp_path / "disk", 32), tmp_path / f"acks{build}"
        copies: list[tuple[Path, set[str]]] = []
        with ended_at_last(start(source, disk / "cache", base=WIDE, FAULTS_ACKS=str(acks))) as running:
            while not list(disk.glob("cache/stores/*/recipe.json")):
                assert running.poll() is None
                time.sleep(0.002)
            for number in range(10 if full else 4):
                time.sleep(draw.uniform(0, 0.05))
                with paused(running.pid):
                    acknowledged = set(acks.read_text().split()) if acks.exists() else set()
                    copy = shutil.copyfile(ram / "image", ram / f"copy{number}")
                copies.append((copy, acknowledged))
            assert end(running).status == 0
        unmount(disk)
        for copy, acknowledged in copies:
            mount("-o", "loop", copy, disk)
            cache = disk / "cache"
            store = open_store(Cache(cache), WideForward().spec)
            names = {file.record.id for file in store.shards.files}
            assert acknowledged <= names, "acknowledged and gone"
            assert store.damaged == {}, "a record that is there has its files"
            check_rows(store, by_hand)
            odd = [name for name, digest in shard_files(cache).items() if straight.get(name) != digest]
            assert not any(name[:16] in names for name in odd)
            done = again(source, cache, WideForward())
            assert (done.reused, done.rows) == (len(store), TASKS * ROWS)
            check_rows(open_store(Cache(cache), WideForward().spec), by_hand)
            assert shard_files(cache) == straight
            assert leftovers(cache) == [] or len(store) == TASKS * ROWS
            met += Counter(copies=1, acknowledged=len(acknowledged), served=len(names), odd=len(odd))
            del store
            unmount(disk)
            copy.unlink()
    note(
        f"{met['copies']} copies; {met['acknowledged']} shards were "
        f"acknowledged and none was lost, {met['served']} served; {met['odd']} empty or torn files, none served"
    )


def check_rows(store: Store, by_hand: np.ndarray) -> None:
    """Never a wrong row."""
    for start_, stop in ((n, min(n + 8, len(store))) for n in range(0, len(store), 8)):
        for row in np.asarray(store.rows(np.arange(start_, stop))):
            assert (by_hand == row).all(axis=1).any()


@contextlib.contextmanager
def paused(process: int) -> Iterator[None]:
    """The process and its children stand still, and what they asked of the system is done."""
    all_of_them = [process, *children(process)]
    for one in all_of_them:
        os.kill(one, signal.SIGSTOP)
    try:
        wait_until(lambda: all(state_of(one) in "TZX" for one in all_of_them))
        yield
    finally:
        for one in all_of_them:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGCONT)
