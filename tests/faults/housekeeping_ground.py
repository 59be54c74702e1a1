"""The caches and sources of random housekeeping, and its reference."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bottleneck.inventory.scan import scan_source
from bottleneck.sources.open import open_source
from tests.fakes import rows_by_hand, write_images
from tests.faults.reference_stores import FAKE

Reference = dict[bytes, np.ndarray]


@dataclass(frozen=True)
class Ground:
    """Two caches, a source of all images, and one of those that every prune keeps."""

    root: Path
    all: Path
    kept: Path
    main: Path
    other: Path

    @classmethod
    def make(cls, root: Path, images: int = 32) -> Ground:
        """With both caches filled, and copied once."""
        made = cls(root, root / "all", root / "kept", root / "main", root / "other")
        write_images(made.all, {"cat": images // 2, "dog": images // 2})
        for path in sorted(made.all.rglob("*.png"))[::2]:
            (made.kept / path.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, made.kept / path.parent.name)
        return made

    def commands(self) -> dict[str, Callable[[random.Random], list[object]]]:
        """What may be run, by name."""
        here = ("--cache", self.main)
        return {
            "extract all": lambda _: ["extract", self.all, "--base", FAKE, *here],
            "extract kept": lambda _: ["extract", self.kept, "--base", FAKE, *here],
            "prune": lambda _: ["store", "prune", "--yes", *here],
            "prune kept": lambda _: ["store", "prune", "--keep", self.kept, "--yes", *here],
            "prune all": lambda _: ["store", "prune", "--keep", self.all, "--yes", *here],
            "prune dry": lambda _: ["store", "prune", "--keep", self.kept, *here],
            "compact": lambda _: ["store", "compact", *here],
            "verify": lambda _: ["store", "verify", *here],
            "ls": lambda _: ["store", "ls", *here],
            "copy there": lambda _: ["store", "copy", self.other, *here],
            "copy back": lambda _: ["store", "copy", self.main, "--cache", self.other],
            "prune other": lambda _: ["store", "prune", "--keep", self.kept, "--yes", "--cache", self.other],
            "compact other": lambda _: ["store", "compact", "--cache", self.other],
            "repair": lambda _: ["store", "verify", "--repair", self.all, "--trust", *here],
        }


def keys_of(source: Path) -> list[bytes]:
    return [bytes(key) for key in scan_source(open_source(source), None).keys]


def reference_rows(ground: Ground) -> Reference:
    by_path, inventory = rows_by_hand(ground.all), scan_source(open_source(ground.all), None)
    paths = inventory.table.column("path").to_pylist()
    return {key.tobytes(): by_path[path] for key, path in zip(inventory.keys, paths, strict=True)}
