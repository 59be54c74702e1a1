"""Row 24: those who keep house beside each other, beside builders and readers; paused at every step, and at random."""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.interleaved import WORKS, ground, meet, steps_of
from tests.faults.reference_stores import python

pytestmark = pytest.mark.fault(24)

#: Who is paused: readers leave nothing that could be in another's way, but must not be misled.
PAIRS = [(first, second) for first, second in itertools.product(WORKS, WORKS) if {first, second} != {"read"}]


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """How many steps each takes by itself."""
    prepared = ground(tmp_path_factory.mktemp("counted"))
    found = {}
    for name, work in WORKS.items():
        place = tmp_path_factory.mktemp("alone") / "root"
        shutil.copytree(prepared, place)
        found[name] = steps_of(place, work)
    return found


def test_whoever_meets_whom_nothing_is_lost(
    steps: dict[str, int], tmp_path: Path, full: bool, note: Callable[[str], None]
) -> None:
    """One stops before a step on the disk, and the other runs as far as it can: all meetings, or a seeded sample."""
    prepared = ground(tmp_path / "prepared")
    meetings = [(first, step, second) for first, second in PAIRS for step in range(steps[first])]
    chosen = meetings if full else random.Random(24).sample(meetings, 36)
    for number, (first, step, second) in enumerate(chosen):
        place = tmp_path / str(number)
        shutil.copytree(prepared, place)
        try:
            meet(place, first, step, second)
        except BaseException as error:
            raise AssertionError(f"{first}, before step {step}, met {second}: {error}") from error
        shutil.rmtree(place)
    note(f"{len(chosen)} of {len(meetings)} meetings of two")


@pytest.mark.parametrize("second", ["prune", "prune kept", "compact", "copy into"])
def test_a_shard_without_its_record_yet_is_nobodys_leftover(
    tmp_path: Path, steps: dict[str, int], full: bool, second: str
) -> None:
    """A builder between the names of a shard's files and its record's: housekeepers among one another wait anyway."""
    prepared = ground(tmp_path / "prepared")
    for step in range(0, steps["commit"], 1 if full else 9):
        place = tmp_path / f"{step}"
        shutil.copytree(prepared, place)
        meet(place, "commit", step, second)


def test_commands_at_random_with_kills(full: bool, note: Callable[[str], None]) -> None:
    minutes = 3.0 if full else 0.1
    done = python(
        "import sys; from tests.faults.housekeeping import main; raise SystemExit(main())",
        *("--minutes", minutes, "--seed", 24),
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    note(f"{minutes:g} minutes at random: {' '.join(done.stdout.split('{')[-1].split())}"[:300])
