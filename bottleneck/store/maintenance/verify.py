"""Compare every byte of a store with what was committed. Reads only."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bottleneck.errors import StoreError
from bottleneck.schema import Record, json_fields
from bottleneck.store.canary import CANARY, canary_values
from bottleneck.store.listing import Listing, list_store
from bottleneck.store.locks import reading
from bottleneck.store.maintenance.shard_check import Damage, _is_lost, check_shard
from bottleneck.store.maintenance.structure import StructureChecker
from bottleneck.store.record import read_file, superseded

#: How often the store is listed again, while what was listed is removed from it.
_LOOKS = 5


@dataclass(frozen=True)
class Verdict:
    """The result of `verify_store` for one store.

    Attributes
    ----------
    folder : Path
    shards, rows, size : int
        Shards, rows and bytes that were read and hashed.
    damaged : tuple of Damage
    orphans : tuple of str
        Files that no record names, superseded records and unfinished temporaries: harmless, and `store prune` or
        `store compact` removes them.
    digest : str
        sha256 over the sorted lines ``<shard file> <sha256>`` of the sound shards that count.
    remarks : tuple of str
        What is worth knowing and no damage.
    """

    folder: Path
    shards: int
    rows: int
    size: int
    damaged: tuple[Damage, ...]
    orphans: tuple[str, ...]
    digest: str
    remarks: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Describe the verdict for a program."""
        return {
            **json_fields(self, "shards", "rows"),
            "bytes": self.size,
            **json_fields(self, "digest", "damaged", "orphans", "remarks"),
        }


def verify_store(folder: Path, moved: Callable[[int], None] = lambda _: None) -> Verdict:
    """Hash every file of the store in `folder`, and check its structure.

    What is committed or removed meanwhile is no damage. What went is left out; what came is looked at too, except after
    the last of five looks.

    Parameters
    ----------
    folder : Path
    moved : callable
        Hears how many bytes were read, while they are.

    Returns
    -------
    Verdict

    Raises
    ------
    NewerFormat, StoreError
        Not a store that this version reads; nothing was touched.
    """
    seen: dict[str, tuple[Record, list[Damage]]] = {}
    listing = first = list_store(folder)
    with StructureChecker() as structure:
        for _ in range(_LOOKS):
            for name, record in sorted(listing.records.items()):
                if name not in seen or seen[name][0] != record:
                    seen[name] = record, _check(listing.shards, name, record, structure, moved)
            before, listing = listing, list_store(folder)
            removed = before.records.keys() - listing.records.keys()
            if not removed and listing.records.keys() <= seen.keys():
                break
        if listing.records != first.records:
            # Files may have been removed while they were checked, and written again.
            with reading(folder):
                listing = list_store(folder)
                for name in [
                    name for name, (_, damage) in seen.items() if damage and name in listing.records
                ]:
                    record = listing.records[name]
                    seen[name] = record, _check(listing.shards, name, record, structure, moved)
    records = {name: record for name, record in listing.records.items() if name in seen}
    damaged = [Damage(name, name[:16], None, why) for name, why in sorted(listing.broken.items())]
    damaged += [item for name in sorted(records) for item in seen[name][1]]
    wrong = {item.name for item in damaged}
    # A record that a damaged one supersedes still counts: `listing` saw sizes only, the hashes are known now.
    away = superseded({name: record for name, record in records.items() if name not in wrong})
    sound = {name: r for name, r in records.items() if name not in wrong and name not in away}
    damaged = [item for item in damaged if item.name not in away]
    canary, remarks = _check_canary(listing)
    orphans = [*listing.orphans, *sorted(away & set(listing.records)), *listing.temporaries]
    with_rows = [record for record in sound.values() if record.rows]
    return Verdict(
        folder,
        len(with_rows),
        sum(record.rows for record in with_rows),
        sum(record.file_bytes for record in with_rows),
        (*damaged, *canary),
        tuple(orphans),
        digest_of(with_rows),
        tuple(remarks),
    )


def _check(
    folder: Path, name: str, record: Record, structure: StructureChecker, moved: Callable[[int], None]
) -> list[Damage]:
    damages = check_shard(folder, name, record, moved)
    if not damages and record.rows:
        why = structure.check(folder, record)
        damages = [Damage(name, record.id, None, why)] if why else []
    return damages


def bytes_of(folder: Path) -> int:
    """Count the bytes that `verify_store` will read; 0 where unlistable."""
    with contextlib.suppress(StoreError):
        return sum(record.file_bytes for record in list_store(folder).records.values())
    return 0


def digest_of(records: list[Record]) -> str:
    """Hash the set of shard files that `records` stand for.

    Examples
    --------
    >>> digest_of([]) == hashlib.sha256(b"").hexdigest()
    True
    """
    lines = sorted({f"{record.shard} {record.file_sha256}\n" for record in records})
    return hashlib.sha256("".join(lines).encode("ascii")).hexdigest()


def _check_canary(listing: Listing) -> tuple[list[Damage], list[str]]:
    """Check `canary.f32`: its size, finite values, and some record's hash."""
    remedy = "remove that one file, and the next `extract` makes it anew"
    try:
        data = read_file(listing.folder, CANARY, 4 * canary_values(listing.header.spec))
    except FileNotFoundError:
        return [], ["canary.f32 is not there; the next `extract` makes it"] if listing.records else []
    except (OSError, StoreError) as error:
        return [Damage(CANARY, "", None, f"{error}; {remedy}", _is_lost(error))], []
    if not np.isfinite(np.frombuffer(data, "<f4")).all():
        return [Damage(CANARY, "", None, f"it holds values that are no numbers; {remedy}")], []
    known = {record.canary for record in listing.records.values()}
    if known and hashlib.sha256(data).hexdigest() not in known:
        return [], ["no shard that is there was made with the very canary.f32 of this store"]
    return [], []
