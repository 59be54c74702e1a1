"""Describe a store as `store ls` and `store show` tell it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bottleneck.errors import StoreError
from bottleneck.schema import Cache, RejectedContent, json_fields, json_value
from bottleneck.store.header import StoreHeader
from bottleneck.store.listing import list_store
from bottleneck.store.read import open_store


@dataclass(frozen=True)
class StoreState:
    """The state of one store.

    Attributes
    ----------
    folder : Path
    problem : str
        Why it cannot be read (a newer format, a damaged `recipe.json`); empty when it can.
    header : Header or None
        None where it cannot be read.
    rows : int
        Contents that have a row.
    shards : int
        Shards that count.
    size : int
        Bytes of all files of the store.
    changed : float
        When a record last came or went, in seconds since 1970.
    rejected, suspects : tuple of RejectedContent
        Contents without a row because of their bytes, and because of circumstances.
    environments : tuple of (mapping of str to str, int)
        Numeric environments with the rows that each computed.
    damaged : mapping of str to str
        Records that count as missing, and why.
    """

    folder: Path
    problem: str = ""
    header: StoreHeader | None = None
    rows: int = 0
    shards: int = 0
    size: int = 0
    changed: float = 0.0
    rejected: tuple[RejectedContent, ...] = ()
    suspects: tuple[RejectedContent, ...] = ()
    environments: tuple[tuple[Mapping[str, str], int], ...] = ()
    damaged: Mapping[str, str] | None = None

    def to_json(self, *, details: bool = False) -> dict[str, Any]:
        """Describe the store for a program; `details` as `store show` tells."""
        document: dict[str, Any] = {"store": self.folder.name}
        if self.header is None:
            document |= {"problem": self.problem, "bytes": self.size}
        else:
            spec = self.header.spec
            document |= {
                "base": spec.base,
                "cut": spec.cut,
                "recipe": spec.recipe.fingerprint,
                "views": json_value(spec.views),
                "rows": self.rows,
                "shape": list(spec.shape),
                "dtype": spec.recipe.dtype,
                "bytes": self.size,
                "shards": self.shards,
                "rejected": len(self.rejected),
                "damaged": dict(self.damaged or {}),
                "changed": self.changed,
            }
        if not details:
            return document
        document["folder"] = str(self.folder)
        if self.header is None:
            return document
        return document | {
            "recipe_json": json_value(self.header.spec.recipe),
            **json_fields(self.header, "batch", "request"),
            "environments": [{"environment": dict(e), "rows": rows} for e, rows in self.environments],
            "rejections": json_value(self.rejected),
            "suspects": json_value(self.suspects),
        }


def store_state(cache: Cache, folder: Path) -> StoreState:
    """Look at one store. Writes nothing.

    Parameters
    ----------
    cache : Cache
    folder : Path
        The store's, in `cache`.

    Returns
    -------
    StoreState
        With a `problem` where it cannot be read: one bad store does not hide the others.
    """
    size, changed = _size(folder)
    try:
        listing = list_store(folder)
        store = open_store(cache, listing.header.spec)
    except StoreError as error:
        return StoreState(folder, str(error), size=size, changed=changed)
    standing = listing.standing.values()
    environments: dict[tuple[tuple[str, str], ...], int] = {}
    for record in standing:
        key = tuple(sorted(record.environment.items()))
        environments[key] = environments.get(key, 0) + record.rows
    return StoreState(
        folder,
        "",
        listing.header,
        len(store),
        sum(1 for record in standing if record.rows),
        size,
        changed,
        tuple(store.rejected.values()),
        tuple(store.suspects.values()),
        tuple((dict(key), rows) for key, rows in environments.items()),
        dict(store.damaged),
    )


def _size(folder: Path) -> tuple[int, float]:
    total, changed = 0, 0.0
    for parent, _, files in os.walk(folder):
        with contextlib.suppress(OSError):
            if Path(parent).name == "shards":
                changed = max(changed, Path(parent).stat().st_mtime)
        for name in files:
            with contextlib.suppress(OSError):
                total += (Path(parent) / name).lstat().st_size
    return total, changed
