"""What an extraction would do: looked up, nothing written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from bottleneck.bases import known
from bottleneck.extraction.share import cut
from bottleneck.extraction.supervise import WorkerProcess
from bottleneck.schema import BaseRequest, Cache, Inventory, StoreSpec, Views
from bottleneck.store.plan import first_rows
from bottleneck.store.read import Store, open_store
from bottleneck.store.views import views_wanted


@dataclass(frozen=True)
class Estimate:
    """What there is to do.

    Attributes
    ----------
    images : int
        Image-like files.
    unreadable : int
        Those that could not be read in this scan.
    reused : int
        Distinct contents that the store has a row of, or has rejected for good.
    to_compute : int
        Distinct contents that would go through the base.
    retried : int
        Those of them that circumstances failed before.
    tasks : int
        Shards that would be made.
    bytes : int
        Of feature rows that would be stored, at most.
    store : Path
    spec : StoreSpec
    views : Estimate or None
        The same of augmented views, where they are asked for: there an image is one of its views.
    """

    images: int
    unreadable: int
    reused: int
    to_compute: int
    retried: int
    tasks: int
    bytes: int
    store: Path
    spec: StoreSpec
    views: Estimate | None = None


def estimate(
    inventory: Inventory,
    request: BaseRequest,
    cache: Cache,
    spec: StoreSpec | None = None,
    views: Views | None = None,
) -> Estimate:
    """What filling the store of `request` with `inventory` would take.

    Parameters
    ----------
    inventory : Inventory
    request : BaseRequest
    cache : Cache
    spec : StoreSpec, optional
        What the rows are, where it is known; else it is recalled, or the base is built to find out.
    views : Views, optional
        Augmented views that are asked for too.
    """
    spec = spec or known.recall(request, cache)
    if spec is None:
        with WorkerProcess(request, cache) as process:
            spec = process.spec
    store = open_store(cache, spec)
    left = _lacking(inventory, spec, store)
    if views is None:
        return left
    rejected = store.known(inventory.keys) & (store.find(inventory.keys) < 0)
    wanted = views_wanted(inventory, ~rejected, views.count)
    spec = spec.model_copy(update={"views": views.policy})
    return replace(left, views=_lacking(wanted, spec, open_store(cache, spec)))


def _lacking(inventory: Inventory, spec: StoreSpec, store: Store) -> Estimate:
    there = store.known(inventory.keys)
    todo = cut(inventory, spec, store, again=False)
    return Estimate(
        images=len(inventory) + len(inventory.unreadable),
        unreadable=len(inventory.unreadable),
        reused=len(first_rows(inventory.keys, there)),
        to_compute=todo.images,
        retried=todo.lone,
        tasks=len(todo),
        bytes=todo.images * spec.row_bytes,
        store=store.folder,
        spec=spec,
    )
