"""Repair what `verify` found damaged: keep sound rows, compute lost ones again.

A shard is rewritten in place only by the very bytes that its record names. Where the numbers differ (another machine),
its sound rows and the new ones go into shards of their own, and the damaged record is superseded.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bottleneck.errors import DamagedShard, StoreError
from bottleneck.schema import Cache, Record
from bottleneck.store.commit import commit
from bottleneck.store.listing import Listing, list_store
from bottleneck.store.locks import committing, housekeeping, removing
from bottleneck.store.maintenance.removal import Removal
from bottleneck.store.maintenance.rewrite import identity_of
from bottleneck.store.maintenance.shard_check import Damage, check_shard, read_contents
from bottleneck.store.plan import task_id
from bottleneck.store.read import open_store
from bottleneck.store.record import READ_FLAGS, hash_blocks, read_file, root_of
from bottleneck.store.shard import build_shard
from bottleneck.system.durable import publish


@dataclass(frozen=True)
class Recomputed:
    """Rows that were computed again.

    Attributes
    ----------
    keys : numpy.ndarray
        (n, 32) uint8: those that the source has and that gave a row.
    features : numpy.ndarray
        (n, *shape) of the storage dtype.
    environment : mapping of str to str
    canary : str
        Of the machine that computed them, as in a record.
    rejected : mapping of bytes to str
        Contents that the source has and that gave no row now, with the reason.
    """

    keys: np.ndarray
    features: np.ndarray
    environment: Mapping[str, str]
    canary: str
    rejected: Mapping[bytes, str] = field(default_factory=dict)


#: Computes contents (n, 32) again from the source.
Recompute = Callable[[np.ndarray], Recomputed]


@dataclass
class Repair:
    """The result of a repair.

    Attributes
    ----------
    recomputed : int
        Rows that were computed again.
    in_place : list of str
        Records whose files are again the bytes that they name.
    superseded : list of str
        Records whose rows now stand in other shards.
    lost : list of str
        Contents (hex) that are lost: damaged, and the source does not have them or cannot give them.
    left : dict of str to str
        Damaged records that were left as they are, and why.
    failed : dict of str to str
        Files that could not be removed, and why.
    """

    recomputed: int = 0
    in_place: list[str] = field(default_factory=list)
    superseded: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Salvage:
    """What can still be read of a damaged shard.

    Attributes
    ----------
    name : str
    record : Record
    keys : numpy.ndarray
        (rows, 32), all of them: the content column is sound.
    features : numpy.ndarray
        (rows, *shape); only `sound` rows mean anything.
    sound : numpy.ndarray
        (rows,) bool.
    """

    name: str
    record: Record
    keys: np.ndarray
    features: np.ndarray
    sound: np.ndarray


def repair_store(
    folder: Path,
    damaged: Iterable[Damage],
    recompute: Recompute,
    refill: Callable[[], object],
    waiting: Callable[[str], None] = lambda _: None,
) -> Repair:
    """Repair what `verify_store` found damaged.

    Parameters
    ----------
    folder : Path
    damaged : iterable of Damage
    recompute : callable
        Gives the rows of contents, from a source, with the store's own base.
    refill : callable
        Fills the store with what it lacks of the source: for shards of which not even the contents can be read.
    waiting : callable
        Hears what is waited for: another housekeeper of the store.

    Returns
    -------
    Repair
    """
    with housekeeping(folder, "store verify --repair", waiting):
        return _repaired(folder, damaged, recompute, refill)


def _repaired(
    folder: Path, damaged: Iterable[Damage], recompute: Recompute, refill: Callable[[], object]
) -> Repair:
    done = Repair()
    listing = list_store(folder)
    salvaged: list[Salvage] = []
    untold: list[str] = []
    refused = {item.name: item.why for item in damaged if not item.lost}
    for name in sorted({item.name for item in damaged if item.shard}):
        if name in refused:
            done.left[name] = f"{refused[name]}; the bytes may be there yet, so nothing is removed"
        elif name in listing.records:
            try:
                salvaged.append(salvage(listing, name))
            except DamagedShard:
                untold.append(name)
        elif name in listing.broken:
            untold.append(name)
    # Other names were removed since they were verified: compacted, pruned, or repaired by another process.
    _restore(listing, salvaged, recompute, done)
    if untold:
        before = _known(listing)
        refill()
        after = list_store(folder)
        _forget(after, untold, _known(after) - before, done)
    return done


def salvage(listing: Listing, name: str) -> Salvage:
    """Read contents and sound rows of a damaged shard.

    Raises `DamagedShard` where the contents cannot be read.
    """
    record, spec = listing.records[name], listing.header.spec
    keys = read_contents(listing.shards, record)
    with open(os.open(listing.shards / record.shard, READ_FLAGS), "rb") as file:
        file.seek(record.features_offset)
        raw = file.read(record.rows * spec.row_bytes)
    flat = np.frombuffer(raw, np.dtype(spec.recipe.dtype).newbyteorder("<")).copy()
    features = flat.reshape(record.rows, *spec.shape)
    hashes = hash_blocks(record.id, features, record.block_rows)
    if root_of(hashes) == record.blocks_root:  # the list was damaged, or the file beside its rows
        return Salvage(name, record, keys, features, np.ones(record.rows, bool))
    sound = np.zeros(record.rows, bool)
    for block, (mine, right) in enumerate(zip(hashes, _listed(listing, record), strict=False)):
        sound[block * record.block_rows : (block + 1) * record.block_rows] = mine == right
    return Salvage(name, record, keys, features, sound)


def _listed(listing: Listing, record: Record) -> list[bytes]:
    """Read the block hashes as committed; none where they are damaged."""
    try:
        raw = read_file(listing.shards, record.blocks, None)
    except (OSError, StoreError):
        return []
    blocks = [raw[start : start + 32] for start in range(0, len(raw), 32)]
    return blocks if root_of(blocks) == record.blocks_root else []


def _restore(listing: Listing, salvaged: list[Salvage], recompute: Recompute, done: Repair) -> None:
    lost = [item.keys[~item.sound] for item in salvaged if not item.sound.all()]
    again = recompute(np.concatenate(lost)) if lost else None
    rows = {key.tobytes(): row for key, row in zip(again.keys, again.features, strict=True)} if again else {}
    done.recomputed = len(rows)
    for item in salvaged:
        missing = [i for i in np.flatnonzero(~item.sound) if item.keys[i].tobytes() not in rows]
        for index in np.flatnonzero(~item.sound):
            if item.keys[index].tobytes() in rows:
                item.features[index] = rows[item.keys[index].tobytes()]
        if not missing and _put_right(listing, item):
            done.in_place.append(item.name)
        else:
            _stand_in(listing, item, again, done)
            done.lost += [item.keys[i].tobytes().hex() for i in missing]


def _put_right(listing: Listing, item: Salvage) -> bool:
    """Rewrite the shard's files, if the rows give the committed bytes."""
    record = item.record
    image = build_shard(record.id, listing.header.spec, item.keys, item.features)
    if hashlib.sha256(image.data).hexdigest() != record.file_sha256:
        return False
    blocks = b"".join(hash_blocks(record.id, item.features, record.block_rows))
    with committing(listing.folder):
        for name, data in ((record.shard, image.data), (record.blocks, blocks)):
            publish(listing.shards / name, data, replace=True)
    return True


def _stand_in(listing: Listing, item: Salvage, again: Recomputed | None, done: Repair) -> None:
    """Commit new rows and sound old ones apart; remove the damaged record."""
    record, spec = item.record, listing.header.spec
    if again is not None:
        fresh = {key.tobytes() for key in item.keys[~item.sound]}
        wanted = np.array([key.tobytes() in fresh for key in again.keys], bool)
        if wanted.any():
            keys = np.ascontiguousarray(again.keys[wanted])
            commit(
                listing.shards,
                task_id(keys),
                spec,
                keys,
                np.ascontiguousarray(again.features[wanted]),
                rejected=[],
                environment=again.environment,
                canary=again.canary,
            )
    keys = np.ascontiguousarray(item.keys[item.sound])
    if len(keys) or record.rejected:
        supersedes = sorted({item.name} | (set(record.supersedes) & set(listing.records)))
        commit(
            listing.shards,
            identity_of(keys, record.rejected, supersedes),
            spec,
            keys,
            np.ascontiguousarray(item.features[item.sound]),
            rejected=record.rejected,
            environment=record.environment,
            canary=record.canary,
            rounding=record.rounding,
            supersedes=supersedes,
        )
    removed = Removal()
    removed.records(listing.shards, {item.name: record})
    done.failed.update(removed.failed)
    done.superseded.append(item.name)


def _known(listing: Listing) -> int:
    return len(open_store(Cache(listing.folder.parents[1]), listing.header.spec))


def _forget(listing: Listing, names: list[str], gained: int, done: Repair) -> None:
    """Remove unreadable records once their contents are known from the source.

    They are known where a sound record has the same id, which is the hash of the contents; and where the source gave,
    besides those, at least as many missing rows as all the others had. Else they may be another source's, and stay.
    Their shard files stay where no sound record names them: without a record nothing is served, and `store prune`
    removes them.
    """
    sound = {name for name, record in listing.standing.items() if _readable(listing, record)}
    ids = {name[:16] for name in sound}
    doubtful = [name for name in names if name[:16] not in ids]
    known = {name[:16]: listing.records[name].rows for name in sound if name[:16] in {n[:16] for n in names}}
    gained -= sum(known.values())
    rows = [listing.records[name].rows for name in doubtful if name in listing.records]
    settled = len(rows) == len(doubtful) and gained >= sum(rows)
    removed = Removal()
    for name in names:
        if name in sound:
            done.in_place.append(name)
        elif name in doubtful and not settled:
            done.left[name] = (
                f"which images it had cannot be told, and this source gave {gained:,} other rows that were missing: "
                "repair from the source they came from; where there is none any more, remove that one file"
            )
        else:
            with removing(listing.folder):
                if removed.file(listing.shards / name):
                    done.superseded.append(name)
    done.failed.update(removed.failed)


def _readable(listing: Listing, record: Record) -> bool:
    return not check_shard(listing.shards, "", record, lambda _: None)
