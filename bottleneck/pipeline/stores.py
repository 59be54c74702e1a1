"""Stores of a cache: list, verify, repair, compact, prune, copy."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bottleneck.errors import ForeignEnvironment, NewerFormat, SourceError, StoreError, UsageError
from bottleneck.pipeline.recompute import Recomputation
from bottleneck.pipeline.session import PathLike, Session, SessionOptions, refuse_unknown
from bottleneck.schema import Cache, json_value
from bottleneck.store.canary import CANARY
from bottleneck.store.listing import find_folder, list_store, store_folders
from bottleneck.store.locations import FolderLocation, StoreLocation, locate_stores
from bottleneck.store.maintenance.compact import TARGET, Compaction, bytes_to_compact, compact_store
from bottleneck.store.maintenance.copy import Copied, copy_store
from bottleneck.store.maintenance.prune import KeptContents, Pruning, keeper, prune_store
from bottleneck.store.maintenance.repair import Repair, repair_store
from bottleneck.store.maintenance.sample import Sample, compare_sample, draw_sample
from bottleneck.store.maintenance.shard_check import Damage
from bottleneck.store.maintenance.state import StoreState as StoreState
from bottleneck.store.maintenance.state import store_state
from bottleneck.store.maintenance.verify import Verdict, bytes_of, verify_store
from bottleneck.system.durable import shown
from bottleneck.system.objects import is_url

if TYPE_CHECKING:
    from typing import Unpack


@dataclass(frozen=True)
class Checked:
    """What `verify` did in one store.

    `problem` says why it was not looked at; a store of a `newer` version is not, and is no damage. `verdict` is of
    things as they are after a repair.
    """

    folder: Path
    problem: str = ""
    verdict: Verdict | None = None
    repair: Repair | None = None
    sample: Sample | None = None
    newer: bool = False

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged, lost or differing."""
        return not (
            (self.verdict and self.verdict.damaged)
            or (self.repair and (self.repair.lost or self.repair.failed))
            or (self.sample and (self.sample.differing or self.sample.missing))
            or (self.problem and self.verdict is None and not self.newer)
        )

    def to_json(self) -> dict[str, Any]:
        """Describe the checks that were made, for a program."""
        document: dict[str, Any] = {"store": self.folder.name, "sound": self.sound}
        if self.problem:
            document["problem"] = self.problem
        if self.verdict is not None:
            document |= self.verdict.to_json()
        checks = {"repair": self.repair, "sample": self.sample}
        return document | {name: json_value(check) for name, check in checks.items() if check is not None}


def list_stores(**options: Unpack[SessionOptions]) -> list[StoreState]:
    """Every store of the cache, by name. Writes nothing."""
    cache = Cache(_session(list_stores, options).cache.root)  # without the one behind it
    return [store_state(cache, folder) for folder in store_folders(cache)]


def show_store(name: str, **options: Unpack[SessionOptions]) -> StoreState:
    """Describe one store, by its folder's name or recipe.

    Parameters
    ----------
    name : str
        A folder's name, a part of it that is unique, or the 12 hex digits of its recipe. Raises `UnknownName`.
    """
    cache = Cache(_session(show_store, options).cache.root)  # without the one behind it
    return store_state(cache, find_folder(cache, name))


def verify(
    names: Sequence[str] = (),
    *,
    repair: PathLike | None = None,
    sample: int = 0,
    source: PathLike | None = None,
    seed: int | None = None,
    **options: Unpack[SessionOptions],
) -> list[Checked]:
    """Check every byte of stores, and repair or sample them on demand.

    Parameters
    ----------
    names : sequence of str
        Which stores; all of the cache when empty.
    repair : path, optional
        A source of images: what is damaged is computed again from it, and only that.
    sample : int
        As many rows, drawn at random among those of `source`, are computed again and compared.
    source : path, optional
        Where `sample` finds images; `repair`'s by default.
    seed : int, optional
        Of the draw.

    Returns
    -------
    list of Checked

    Raises
    ------
    UsageError
        A sample without a source.
    NewerFormat
        A store that was named is of a newer version; where none was named it is passed over, with a word.
    """
    session = _session(verify, options)
    images = source or repair
    if sample and images is None:
        raise UsageError("--sample N computes rows again: name the images, --source SOURCE")
    folders = _chosen(session.cache, names)
    found: list[Checked] = []
    with session.progress.bar("verify", sum(bytes_of(folder) for folder in folders), "B", brief=True) as bar:
        for folder in folders:
            try:
                found.append(Checked(folder, verdict=verify_store(folder, bar.update)))
            except NewerFormat as error:
                if names:
                    raise
                found.append(Checked(folder, problem=f"newer format: {error}", newer=True))
            except StoreError as error:
                found.append(Checked(folder, problem=str(error)))
    if repair is not None:
        found = [_repaired(checked, repair, session) for checked in found]
    if sample and images is not None:
        found = [_sampled(checked, images, sample, seed, session) for checked in found]
    return found


def compact(
    names: Sequence[str] = (), *, target: int = TARGET, **options: Unpack[SessionOptions]
) -> list[Compaction | StoreState]:
    """Merge small shards. Safe to kill; the next call finishes.

    Parameters
    ----------
    target : int
        Bytes of a shard.

    Returns
    -------
    list of Compaction or StoreState
        A state, with its problem, for a store that was passed over.
    """
    if target < 1:
        raise UsageError(f"--target {target}: expected a number of bytes, at least 1")
    session = _session(compact, options)
    folders, problems = _readable(_chosen(session.cache, names), bool(names))
    total = sum(bytes_to_compact(folder, target) for folder in folders)
    with session.progress.bar("compact", total, "B", brief=True) as bar:
        return [
            *problems,
            *(compact_store(folder, target=target, moved=bar.update, waiting=bar.note) for folder in folders),
        ]


def prune(
    names: Sequence[str] = (),
    *,
    keep: Sequence[PathLike] = (),
    yes: bool = False,
    **options: Unpack[SessionOptions],
) -> list[Pruning | StoreState]:
    """Remove what no source in `keep` or no record refers to.

    Parameters
    ----------
    names : sequence of str
        Which stores; all of the cache when empty.
    keep : sequence of path
        Sources of images. Each must be readable whole, before anything is removed.
    yes : bool
        Do it. Default False: only say what would go.

    Returns
    -------
    list of Pruning or StoreState
        A state, with its problem, for a store that was passed over.

    Raises
    ------
    SourceError
        A source cannot be scanned, has unreadable files or no images: what it refers to is not known.
    """
    session = _session(prune, options)
    folders, problems = _readable(_chosen(session.cache, names), bool(names))
    kept = _kept(keep, session) if keep else None
    with session.progress.bar("prune", None, "shards", brief=True) as bar:
        return [
            *problems,
            *(prune_store(folder, kept, done=yes, moved=bar.update, waiting=bar.note) for folder in folders),
        ]


def copy(names: Sequence[str], target: PathLike, **options: Unpack[SessionOptions]) -> list[Copied]:
    """Copy stores to another cache. Safe to kill and to repeat.

    Parameters
    ----------
    names : sequence of str
        Stores of the cache, or URLs of stores or of whole caches; all of the cache when empty.
    target : path
        The other cache: a folder, or a URL.

    Returns
    -------
    list of Copied
        Shards that are damaged in the source are passed over, and named.

    Raises
    ------
    UnknownName
        The cache has no such store.
    StoreError
        A URL leads to no store, or one of the two sides cannot be read or written.
    """
    session = _session(copy, options)
    where = os.fspath(target) if is_url(os.fspath(target)) else os.path.abspath(os.fspath(target))
    sources: list[StoreLocation] = (
        [] if names else [FolderLocation(folder) for folder in store_folders(session.cache)]
    )
    for name in names:
        sources += locate_stores(name) if is_url(name) else [FolderLocation(find_folder(session.cache, name))]
    if not sources:
        raise StoreError(
            f"the cache {session.cache.root} has no stores to copy; name another by --cache DIR, or by its URL"
        )
    with session.progress.bar("copy", None, "B", brief=True) as bar:
        return [copy_store(source, where, bar.update, bar.note) for source in sources]


def _session(verb: Callable[..., Any], options: SessionOptions) -> Session:
    refuse_unknown(verb, options, SessionOptions)
    return Session.parse(options)


def _chosen(cache: Cache, names: Sequence[str]) -> list[Path]:
    return sorted({find_folder(cache, name) for name in names}) if names else store_folders(cache)


def _readable(folders: Sequence[Path], named: bool) -> tuple[list[Path], list[StoreState]]:
    """Divide stores by whether this version reads them; `named` ones must be."""
    fine: list[Path] = []
    problems: list[StoreState] = []
    for folder in folders:
        try:
            list_store(folder)
            fine.append(folder)
        except StoreError as error:
            if named:
                raise
            problems.append(StoreState(folder, str(error)))
    return fine, problems


def _kept(keep: Sequence[PathLike], session: Session) -> KeptContents:
    keys: list[np.ndarray] = []
    for source in keep:
        inventory = session.scan(session.open(source))
        where = shown(os.fspath(source))
        if inventory.unreadable:
            first = inventory.unreadable[0]
            raise SourceError(
                f"--keep {where}: {len(inventory.unreadable):,} of its files cannot be read ({shown(first.path)}: "
                f"{first.reason}), so nobody knows which features they need. Nothing was removed"
            )
        if not len(inventory):
            raise SourceError(f"--keep {where}: no images were found there. Nothing was removed")
        keys.append(inventory.keys)
    return KeptContents(np.concatenate(keys))


def _repaired(checked: Checked, source: PathLike, session: Session) -> Checked:
    verdict = checked.verdict
    if verdict is None or not any(damage.shard for damage in verdict.damaged):
        return checked
    rows = Recomputation(list_store(checked.folder), session.open(source), session)
    with session.progress.bar("repair", None, "shards", brief=True) as bar:
        repair = repair_store(checked.folder, verdict.damaged, rows.recompute, rows.refill, bar.note)
    return Checked(checked.folder, verdict=verify_store(checked.folder), repair=repair)


def _sampled(checked: Checked, source: PathLike, count: int, seed: int | None, session: Session) -> Checked:
    verdict = checked.verdict
    if verdict is None:
        return checked
    if verdict.damaged:
        return replace(checked, problem="rows are computed again once it is repaired")
    images, listing = session.open(source), list_store(checked.folder)
    drawn = draw_sample(listing, keeper(listing, KeptContents(session.scan(images).keys)), count, seed)
    if not len(drawn.keys):
        return replace(checked, problem=f"none of its rows is of {shown(os.fspath(source))}")
    try:
        again = Recomputation(listing, images, session).recompute(drawn.keys)
    except ForeignEnvironment as error:
        damage = Damage(CANARY, "", None, str(error))
        return replace(checked, problem="", verdict=replace(verdict, damaged=(*verdict.damaged, damage)))
    return replace(checked, problem="", sample=compare_sample(drawn, again, listing.header.spec))
