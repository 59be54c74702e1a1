"""Row 81: files that belong together, killed between each two system calls and with the disk full at each.

Whoever opens them by name finds the old ones, the new ones, or no leading file; the next command of this package makes
that the old or the new ones; the same command again completes; whatever else lies in the folder is left alone.
"""

from __future__ import annotations

import random
import re
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from bottleneck.errors import BottleneckError
from bottleneck.system.file_set import settle
from tests.faults.file_pairs import NAMES, Pair, State, check_others, leftovers, pairs, with_others
from tests.faults.private_mounts import memory, private_mounts
from tests.faults.strace import ASK_FOR_ROOM, DONE, REFUSED, attached, calls_of, forked
from tests.store.table_check import check_pair

Note = Callable[[str], None]


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Pair, dict[int, State]]]:
    """Each pair, and what an undisturbed writer leaves of each set."""
    place = tmp_path_factory.mktemp("pairs")
    return {name: (pair, pair.states(place / name)) for name, pair in pairs(place).items()}


def check_goes_on(pair: Pair, states: dict[int, State], folder: Path, old: int | None) -> int | None:
    """The law; gives what a reader found who opens the files by name."""
    found = pair.read(folder, states)
    assert found in (old, 2, None)
    settle(folder)
    settled = pair.read(folder, states)
    assert settled in (old, 2), "the old set or the new one"
    assert found in (None, settled) or (found, settled) == (old, 2)
    pair.write(folder, 2)
    assert pair.read(folder, states) == 2
    assert leftovers(folder) == []
    check_others(folder)
    return found


@pytest.mark.fault(81)
@pytest.mark.needs_tool("strace")
@pytest.mark.parametrize("old", [1, None], ids=["over an old set", "into an empty folder"])
@pytest.mark.parametrize("name", NAMES)
def test_killed_before_each_call_or_refused_it(
    known: dict[str, tuple[Pair, dict[int, State]]],
    name: str,
    old: int | None,
    tmp_path: Path,
    full: bool,
    note: Note,
) -> None:
    pair, states = known[name]
    log = tmp_path / "log"
    begun = with_others(tmp_path / "begun")
    if old:
        pair.write(begun, old)

    def attempt(number: int, inject: str = "") -> tuple[Path, tuple[int, str]]:
        folder = shutil.copytree(begun, tmp_path / f"folder{number}")
        return folder, attached(lambda: pair.write(folder, 2), log, inject)

    folder, (status, _) = attempt(0)
    assert status == DONE
    assert check_goes_on(pair, states, folder, old) == 2
    calls = calls_of(log)
    assert {"fsync", "rename", "flock"} <= {call for call, _ in calls}
    trials = [(f"{call}:signal=KILL:when={n}", call) for call, n in calls]
    trials += [(f"{call}:error=ENOSPC:when={n}", call) for call, n in calls if call in ASK_FOR_ROOM]
    trials += [(f"{call}:error=ENOSPC:when={n}+", call) for call, n in calls if call in ASK_FOR_ROOM[1:]]
    if not full:
        # Where sets could mix: between two names.
        sharp = [trial for trial in trials if "rename:signal=KILL" in trial[0]] if old else []
        trials = sharp + random.Random(f"{name} {old}").sample(trials, 2)
    met: Counter[str] = Counter()
    for number, (inject, call) in enumerate(trials, 1):
        folder, (status, words) = attempt(number, inject)
        killed = "KILL" in inject
        assert status in ((-signal.SIGKILL,) if killed else (DONE, REFUSED)), (inject, status, words)
        if status == REFUSED:
            assert re.match(r"No space left on device: /.+; free space", words), words
        found = check_goes_on(pair, states, folder, old)
        met["killed" if killed else "refused" if status == REFUSED else "refused and done all the same"] += 1
        met[f"{'nothing' if found is None else 'old' if found == old else 'new'} by name"] += 1
        if killed and call in ("rename", "renameat2", "unlink"):
            met["killed at a name"] += 1
        shutil.rmtree(folder)
    assert sum(met[how] for how in met if how.endswith("by name")) == len(trials)
    note(f"{name}{'' if old else ' (new)'}: " + ", ".join(f"{n} {how}" for how, n in sorted(met.items())))


@pytest.mark.fault(81)
@pytest.mark.needs_tool("strace")
@pytest.mark.parametrize("name", ["features npy", "finetune"])
def test_killed_again_while_a_killed_set_is_finished(
    known: dict[str, tuple[Pair, dict[int, State]]], name: str, tmp_path: Path, full: bool, note: Note
) -> None:
    pair, states = known[name]
    log = tmp_path / "log"
    begun = with_others(tmp_path / "begun")
    pair.write(begun, 1)
    probe = shutil.copytree(begun, tmp_path / "probe")
    attached(lambda: pair.write(probe, 2), log)
    lines = [line for line in log.read_text().splitlines() if re.match(r"rename\w*\(", line)]
    decision = next(n for n, line in enumerate(lines, 1) if ".ready" in line)
    # Just before the next file takes its name: all is decided, and the old leading file is gone.
    status, _ = attached(lambda: pair.write(begun, 2), log, f"rename:signal=KILL:when={decision + 1}")
    assert status == -signal.SIGKILL and pair.read(begun, states) is None
    folder = shutil.copytree(begun, tmp_path / "straight")
    assert attached(lambda: settle(folder), log) == (DONE, "")
    assert pair.read(folder, states) == 2
    calls = calls_of(log)
    chosen = calls if full else random.Random(name).sample(calls, 2)
    for number, (call, n) in enumerate(chosen):
        folder = shutil.copytree(begun, tmp_path / str(number))
        assert attached(lambda f=folder: settle(f), log, f"{call}:signal=KILL:when={n}")[0] < 0  # type: ignore[misc]
        assert pair.read(folder, states) in (None, 2)
        settle(folder)
        assert pair.read(folder, states) == 2
        assert leftovers(folder) == []
        check_others(folder)
    note(f"{name}: finishing killed at {len(chosen)} of {len(calls)} calls")


@pytest.mark.fault(81)
@pytest.mark.needs_tool("mount")
@pytest.mark.parametrize("name", NAMES)
@private_mounts
def test_a_disk_that_is_really_full_leaves_the_old_set(
    known: dict[str, tuple[Pair, dict[int, State]]], name: str, tmp_path: Path, full: bool, note: Note
) -> None:
    pair, states = known[name]
    disk = memory(tmp_path / "disk", "size=256k")
    folder = with_others(disk / "folder")
    pair.write(folder, 1)
    ends: list[int] = []
    for pages in range(16) if full else (0, 3, 15):
        filler = disk / "filler"
        filler.write_bytes(bytes((room_of(disk) - pages) * 4096))
        refused = ""
        try:
            pair.write(folder, 2)
        except OSError as error:
            refused = str(error.filename)
        ends.append(1 if refused else 2)
        assert not refused or Path(refused).is_relative_to(folder)
        assert pair.read(folder, states) == ends[-1]
        assert leftovers(folder) == []
        check_others(folder)
        filler.unlink()
        pair.write(folder, 1)
    assert ends == sorted(ends) and ends[0] == 1
    note(f"{name}: full with 0 to {len(ends) - 1} pages left, {ends.count(1)} refused")


def room_of(disk: Path) -> int:
    return shutil.disk_usage(disk).free // 4096


@pytest.mark.fault(81)
@pytest.mark.parametrize("name", NAMES)
def test_two_writers_at_once_leave_one_whole_set(
    known: dict[str, tuple[Pair, dict[int, State]]], name: str, tmp_path: Path, full: bool, note: Note
) -> None:
    pair, states = known[name]
    won: Counter[int | None] = Counter()
    folder = with_others(tmp_path / "folder")
    for _ in range(40 if full else 2):
        writers = [forked(lambda w=which: pair.write(folder, w)) for which in (1, 2, 1, 2)]  # type: ignore[misc]
        for _, begin, _ in writers:
            begin()
        if name.startswith("features"):
            look_on(folder)
        assert [wait() for _, _, wait in writers] == [(DONE, "")] * 4
        won[pair.read(folder, states)] += 1
        assert leftovers(folder) == []
        check_others(folder)
    assert set(won) <= {1, 2}
    note(f"{name}: four writers at once, {won[1]} to {won[2]}")


def look_on(folder: Path) -> None:
    """Whoever reads meanwhile gets one set, or an error by name."""
    for _ in range(8):
        try:
            facts = check_pair(folder)
        except BottleneckError:
            continue
        assert facts.shape == (6, 4)
