"""Rows of a store computed again, aside, for `store verify`."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bottleneck.bases.trust import require_trust
from bottleneck.errors import ForeignEnvironment, StoreError
from bottleneck.extraction.run import ExtractionRun
from bottleneck.extraction.setup import RunOptions
from bottleneck.pipeline.extract import extract_missing
from bottleneck.pipeline.session import Request, Session
from bottleneck.schema import BaseRequest, Cache, Inventory, Views
from bottleneck.store.canary import CANARY, NO_CANARY, compare_decoder
from bottleneck.store.listing import Listing, list_store
from bottleneck.store.maintenance.prune import KeptContents
from bottleneck.store.maintenance.repair import Recomputed
from bottleneck.store.maintenance.shard_check import read_contents
from bottleneck.store.views import CONTENT_BYTES, views_wanted

if TYPE_CHECKING:
    from bottleneck.contracts import Source


class Recomputation:
    """The rows that `source` gives for a store.

    Parameters
    ----------
    listing : Listing
        Of the store: its header says how its base is built.
    source : Source
    session : Session
    """

    def __init__(self, listing: Listing, source: Source, session: Session) -> None:
        self._listing, self._source, self._session = listing, source, session

    def recompute(self, keys: np.ndarray) -> Recomputed:
        """Compute the rows of the contents `keys` (n, 32) once more.

        Raises
        ------
        ForeignEnvironment
            This machine's numbers differ from the store's by more than rounding.
        StoreError
            The store does not say how its base is built, or what is built now is another.
        Untrusted
            It is built by code, and nobody said that it may run.
        """
        request, header, cache = self._request(), self._listing.header, self._session.cache
        inventory = _only(self._inventory(keys), keys)
        with tempfile.TemporaryDirectory(prefix="bottleneck-") as scratch:
            aside = _aside(Path(scratch), cache, self._listing)
            try:
                options = RunOptions(limits=self._session.limits, views=header.spec.views)
                run = ExtractionRun(
                    self._source, lambda: inventory, [request], aside, self._session.progress, options
                )
                ((_, store),), _ = run.run()
            except ForeignEnvironment as error:
                raise ForeignEnvironment(str(error).replace(scratch, str(cache.root))) from error
            if store.spec.recipe != header.spec.recipe:
                raise StoreError(
                    f"{request.base}, as it is built now, has recipe {store.spec.recipe.fingerprint[:12]} and not "
                    f"{header.spec.recipe.fingerprint[:12]}: its weights or its code changed since"
                )
            places = store.find(keys)
            there = np.flatnonzero(places >= 0)
            records = list(list_store(store.folder).standing.values())
            for record in records[:1]:
                compare_decoder(self._listing.folder, record.environment)
            rejected = {**store.suspects, **store.rejected}
            return Recomputed(
                np.ascontiguousarray(keys[there]),
                store.gather(places[there]),
                records[0].environment if records else {},
                records[0].canary if records else NO_CANARY,
                {content: f"{why.stage}: {why.reason}" for content, why in rejected.items()},
            )

    def refill(self) -> None:
        """Compute, into the store itself, what it lacks of the source."""
        policy, views = self._listing.header.spec.views, None
        if policy is not None:
            known = [read_contents(self._listing.shards, r) for r in self._listing.standing.values()]
            views = Views(count=max((_views(keys) for keys in known), default=2), policy=policy)
        session = replace(self._session, max_bad=1.0)
        extract_missing(self._source, Request((self._request(),), views), session)

    def _inventory(self, keys: np.ndarray) -> Inventory:
        """List the images of the source, or views of them."""
        inventory = self._session.scan(self._source)
        if self._listing.header.spec.views is None:
            return inventory
        return views_wanted(
            inventory, KeptContents(keys).contains(inventory.keys, CONTENT_BYTES), _views(keys)
        )

    def _request(self) -> BaseRequest:
        header, name = self._listing.header, self._listing.folder.name
        if header.request is None or header.request.base.startswith("object:"):
            raise StoreError(
                f"{name} does not say how its base is built (a model object, or an early version): run the "
                "extraction that made it again, which computes what is missing"
            )
        require_trust(header.request.base, self._session.trust, f"store {name}")
        return header.request.model_copy(update={"batch": header.batch})


def _aside(scratch: Path, cache: Cache, listing: Listing) -> Cache:
    """Make a cache with the store's own header and canary.

    By the canary, a machine that computes otherwise is refused.
    """
    aside = Cache(scratch)
    folder = aside.stores / listing.folder.name
    folder.mkdir(parents=True)
    for name in ("recipe.json", CANARY):
        with contextlib.suppress(FileNotFoundError):
            (folder / name).write_bytes((listing.folder / name).read_bytes())
    if cache.bases.is_dir():
        with contextlib.suppress(OSError, NotImplementedError):
            aside.bases.symlink_to(cache.bases.resolve(), target_is_directory=True)
    return aside


def _views(keys: np.ndarray) -> int:
    """Count the views of an image, itself included."""
    return 1 + int(np.ascontiguousarray(keys[:, CONTENT_BYTES:]).view(">u2").max(initial=1))


def _only(inventory: Inventory, keys: np.ndarray) -> Inventory:
    """The images with one of these contents."""
    mine, wanted = (np.ascontiguousarray(k).view("V32").ravel() for k in (inventory.keys, keys))
    return Inventory(inventory.table.take(np.flatnonzero(np.isin(mine, wanted))), inventory.location)
