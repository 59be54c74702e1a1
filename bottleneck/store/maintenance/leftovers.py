"""Find and remove files of a store that nothing needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bottleneck.schema import Cache
from bottleneck.store.listing import TEMPORARY, Listing
from bottleneck.store.locks import removing
from bottleneck.store.maintenance.removal import Removal, task_is_free
from bottleneck.store.plan_files import read_plans
from bottleneck.store.read import open_store


def find_leftovers(listing: Listing) -> tuple[str, ...]:
    """Find files below the store that nothing needs and nobody has locked."""
    names: list[str] = []
    for name in listing.orphans:
        with task_is_free(listing.folder, name[:16]) as free:
            names += [f"shards/{name}"] if free else []
    for name in listing.temporaries:
        match = TEMPORARY.fullmatch(name)
        with task_is_free(listing.folder, match["name"][:16] if match else "") as free:
            names += [f"shards/{name}"] if free else []
    names += [
        f"{p.parent.name}/{p.name}" for sub in ("plans", "log") for p in _temporaries(listing.folder / sub)
    ]
    names += [path.name for path in _temporaries(listing.folder)]
    names += [f"plans/{name}" for name in _finished_plans(listing)]
    for path in sorted((listing.folder / "locks").glob("*.lock")):
        with task_is_free(listing.folder, path.stem[:16]) as free:
            names += [f"locks/{path.name}"] if free else []
    return tuple(names)


def _finished_plans(listing: Listing) -> list[str]:
    """Find plans that have no wholly missing task, or are no plans."""
    folder = listing.folder / "plans"
    names = sorted(path.name for path in folder.glob("*.plan"))
    plans = read_plans(folder, 1 << 32)
    finished = [name for name in names if name not in plans]
    if plans:
        store = open_store(Cache(listing.folder.parents[1]), listing.header.spec)
        for name, one in plans.items():
            known = store.known(one.keys)
            if np.logical_or.reduceat(known, np.arange(0, len(known), one.task_rows)).all():
                finished.append(name)
    return finished


def _temporaries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(".*.tmp") if TEMPORARY.fullmatch(path.name))


def remove_leftovers(listing: Listing, names: tuple[str, ...], removed: Removal) -> None:
    """Remove what `find_leftovers` named, unless it is in use by now."""
    parts: list[str] = []
    for name in names:
        path = listing.folder / name
        match = TEMPORARY.fullmatch(path.name)
        with task_is_free(listing.folder, (match["name"] if match else path.name)[:16]) as free:
            if not free:
                continue
            if path.parent == listing.shards and not match:
                parts.append(path.name)
            else:
                with removing(listing.folder):
                    removed.file(path)
    # A builder may have begun since with the task that one of them was made for: then it commits before or after this.
    removed.parts(listing.shards, parts)
