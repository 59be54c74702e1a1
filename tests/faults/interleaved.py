"""One command paused before its n-th step on the disk, while another runs as far as it can: every meeting of two.

The paused one waits until the other has ended, or for a moment where that one waits in turn. Afterwards both must have
ended without a raw error, all kept rows must be served, and `verify` must find nothing.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottleneck.errors import BottleneckError
from bottleneck.schema import Cache, Record
from bottleneck.store.listing import list_store
from bottleneck.store.locations import FolderLocation
from bottleneck.store.maintenance.compact import compact_store
from bottleneck.store.maintenance.copy import copy_store
from bottleneck.store.maintenance.prune import KeptContents, prune_store
from bottleneck.store.maintenance.repair import Recomputed, repair_store
from bottleneck.store.maintenance.shard_check import Damage, check_shard
from bottleneck.store.maintenance.verify import verify_store
from bottleneck.store.read import open_store
from tests.faults.reference_stores import SPEC, put, some

_STEPS = ("link", "unlink", "replace", "listdir", "scandir", "open", "fsync")

#: Seconds after which the other one is taken to wait for the paused one.
_BLOCKED = 0.1

PARTS = [some(6, seed) for seed in range(5)]
#: Every prune keeps these: two of the six rows of each shard, so that all are written anew.
KEPT = np.concatenate([keys[:2] for keys, _ in PARTS[:4]])
REFERENCE = {key.tobytes(): row for keys, rows in PARTS for key, row in zip(keys, rows, strict=True)}

Work = Callable[[Path], object]


def ground(root: Path) -> Path:
    """A store of four shards, with the files of a fifth whose record never came, and a copy of it elsewhere."""
    for part in PARTS:
        record = put(Cache(root / "main"), *part)
    folder = root / "main" / "stores" / SPEC.folder
    (folder / "shards" / f"{record.id}.json").unlink()
    shutil.copytree(root / "main", root / "other")
    return root


def _folder(root: Path) -> Path:
    return root / "main" / "stores" / SPEC.folder


def _commit(root: Path) -> None:
    """The builder whose files are there already, and one whose are not."""
    put(Cache(root / "main"), *PARTS[4])
    put(Cache(root / "main"), *PARTS[0])


def _repair(root: Path) -> None:
    """Of a record that was said to be damaged, by a machine that computes other bits: its rows stand elsewhere then."""
    folder = _folder(root)
    for name, record in list_store(folder).standing.items():
        damage = Damage(name, record.id, None, "said to be damaged")
        repair_store(
            folder, [damage], lambda keys: Recomputed(keys[:0], keys[:0], {}, "0" * 64), lambda: None
        )
        return


def _read(root: Path) -> None:
    store = open_store(Cache(root / "main"), SPEC)
    assert (store.find(KEPT) >= 0).all(), "kept rows are there at every opening"


def _verify(root: Path) -> None:
    assert verify_store(_folder(root)).damaged == ()


def _copy_away(root: Path) -> None:
    done = copy_store(FolderLocation(_folder(root)), str(root / "third"))
    assert not done.damaged
    store = open_store(Cache(root / "third"), SPEC)
    assert (store.find(KEPT) >= 0).all(), "a copy has all kept rows"


WORKS: dict[str, Work] = {
    "commit": _commit,
    "prune": lambda root: prune_store(_folder(root), None, done=True),
    "prune kept": lambda root: prune_store(_folder(root), KeptContents(KEPT), done=True),
    "compact": lambda root: compact_store(_folder(root)),
    "repair": _repair,
    "copy into": lambda root: copy_store(
        FolderLocation(root / "other" / "stores" / SPEC.folder), str(root / "main")
    ),
    "copy away": _copy_away,
    "verify": _verify,
    "read": _read,
}


class _NoHdf5:
    """Stands for the process that looks at structures: half a second to start."""

    def __enter__(self) -> _NoHdf5:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def check(self, folder: Path, record: Record) -> str:
        return "" if (folder / record.shard).exists() else "it is gone"


def steps_of(root: Path, work: Work) -> int:
    """How many steps `work` takes by itself."""
    return _run(root, work, None, None)


def meet(root: Path, first: str, step: int, second: str) -> None:
    """Run `second` before step number `step` of `first`, counted from 0, and hold the store to the reference."""
    _run(root, WORKS[first], step, WORKS[second])
    _check(root)


def _check(root: Path) -> None:
    listing = list_store(_folder(root))
    assert not listing.broken
    assert not listing.lacking
    for name, record in listing.records.items():
        assert check_shard(listing.shards, name, record, lambda _: None) == []
    store = open_store(Cache(root / "main"), SPEC)
    assert store.damaged == {}
    assert (store.find(KEPT) >= 0).all(), "kept rows are lost"
    for key, row in zip(store.index.keys, store.gather(store.find(store.index.keys)), strict=True):
        np.testing.assert_array_equal(row, REFERENCE[key.tobytes()])


def _run(root: Path, work: Work, step: int | None, other: Work | None) -> int:
    paused, count, failed = threading.get_ident(), 0, list[BaseException]()

    def beside() -> None:
        try:
            assert other is not None
            other(root)
        except BaseException as error:
            failed.append(error)

    running = threading.Thread(target=beside)

    def stepped(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            if threading.get_ident() == paused:
                if count == step:
                    running.start()
                    running.join(_BLOCKED)
                count += 1
            return real(*arguments, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in _STEPS:
            patch.setattr(os, name, stepped(getattr(os, name)))
        patch.setattr("bottleneck.store.maintenance.verify.StructureChecker", _NoHdf5)
        work(root)
        assert other is None or running.ident is not None, "they never met"
        if running.ident is not None:
            running.join(60)
            assert not running.is_alive(), "both wait for each other"
    for error in failed:
        if not isinstance(error, BottleneckError):
            raise error
        raise AssertionError(f"refused: {error}") from error
    return count
