"""Everything in the package that writes several files that belong together, as something to publish twice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import bottleneck
from bottleneck import runs
from bottleneck.exports.merged_file import name_set
from bottleneck.schema import Certificate
from bottleneck.store.join import Features
from bottleneck.store.writers import take_out
from bottleneck.system.staging import room_beside
from tests.fakes import FakeForward, write_images
from tests.in_process import FAKE, InProcessWorker

#: A set of files as it lies in a folder: path -> sha256.
State = dict[str, str]

#: What a user has in the same folder.
OTHERS = {"notes.txt": b"mine", "more/decode.txt": b"mine too", ".hidden": b"and this"}


@dataclass(frozen=True)
class Pair:
    """Files that belong together.

    Attributes
    ----------
    lead : str
        The file without which nobody reads the others.
    write : callable
        Publishes the first or the second set (1, 2) in a folder.
    """

    lead: str
    write: Callable[[Path, int], object]

    def states(self, place: Path) -> dict[int, State]:
        """What an undisturbed writer leaves, of each set."""
        found = {}
        for which in (1, 2):
            folder = with_others(place / f"straight {which}")
            self.write(folder, which)
            found[which] = state(folder)
        assert found[1] != found[2]
        return found

    def read(self, folder: Path, states: dict[int, State]) -> int | None:
        """Which set a reader finds who opens the files by name: 1, 2, or None where the leading file is not there."""
        if not (folder / self.lead).exists():
            return None
        there = state(folder)
        found = [which for which, files in states.items() if files == there]
        assert found, f"files of two sets: {sorted(there)}"
        return found[0]


def with_others(folder: Path) -> Path:
    for name, data in OTHERS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def check_others(folder: Path) -> None:
    assert {name: (folder / name).read_bytes() for name in OTHERS} == OTHERS


def state(folder: Path) -> State:
    """Every file that is neither the user's nor hidden."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in OTHERS and not name.startswith("."):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob(".*") if path.name not in OTHERS)


def features(which: int, rows: int = 6) -> Features:
    """Rows and names of one size, so that only their values tell a mixture."""
    draw = np.random.default_rng(which)
    texts = {name: pa.array([None] * rows, pa.string()) for name in ("group", "split")}
    return Features(
        X=draw.normal(size=(rows, 4)).astype("float32"),
        keys=draw.integers(0, 256, (rows, 32)).astype(np.uint8),
        table=pa.table(
            {
                "path": pa.array([b"%d/%d.png" % (which, n) for n in range(rows)], pa.binary()),
                "label": pa.array(["ab"[n % 2] for n in range(rows)], pa.string()),
                **texts,
            }
        ),
        classes=("a", "b"),
        spec=FakeForward().spec,
    )


def _take_out(kinds: tuple[Any, Any], folder: Path, which: int) -> None:
    take_out(features(which), folder, kinds[which - 1])


def _merge(folder: Path, which: int) -> None:
    """What `merge` does with a model once it is proved."""
    target = folder / "model.keras"
    proof = Certificate(
        verdict="certified", tolerance=1e-4, recipe=f"{which}" * 64, head="h", forms=(), twins=()
    )
    with room_beside(target) as room:
        (room / target.name).write_bytes(b"model %d" % which * 1000)
        name_set(room, target, proof, f"SIZE = {which}\n")


def _train(made: dict[int, tuple[runs.RunFolder, Any]], tuned: bool, folder: Path, which: int) -> None:
    """What `train` and, with a base of the run's own, `finetune` do with a head once it is fitted."""
    run, head = made[which]
    with runs.replacing(folder) as room:
        if tuned:
            (room / f"base{which}{runs.TUNED}").write_bytes(b"base %d" % which)
        (room / "table.parquet").write_bytes((run.path / "table.parquet").read_bytes())
        runs.write_run(room, run.run, run.figures, head)


def pairs(place: Path) -> dict[str, Pair]:
    """By name."""
    source = write_images(place / "in", {"cat": 12, "dog": 12})
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bottleneck.extraction.run.ExtractionRun.worker_type", InProcessWorker)
        for which in (1, 2):
            done = bottleneck.train(
                source,
                FAKE,
                run=place / f"run{which}",
                cache=place / "cache",
                seed=which,
                settings={"C": which},
            )
            made[which] = (done.folder, done.folder.head())
    return {
        "features npy": Pair("table.parquet", partial(_take_out, ("npy", "npy"))),
        "features h5": Pair("table.parquet", partial(_take_out, ("h5", "h5"))),
        "features h5, then npy": Pair("table.parquet", partial(_take_out, ("h5", "npy"))),
        "merge": Pair("model.keras", _merge),
        "train": Pair("run.json", partial(_train, made, False)),
        "finetune": Pair("run.json", partial(_train, made, True)),
    }


NAMES = ("features npy", "features h5", "features h5, then npy", "merge", "train", "finetune")
