"""Estimate what an extraction would do; write nothing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bottleneck.extraction.forecast.forecast import Prediction
from bottleneck.extraction.retry_policy import RetryPolicy
from bottleneck.extraction.scheduler import plan_missing
from bottleneck.schema import Cache, Inventory, Limits, StoreSpec, Views, json_fields
from bottleneck.store.content_index import first_rows
from bottleneck.store.plan import Plan
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
    todo : Plan
        What there is to compute, and in which order.
    views : Estimate or None
        The same of augmented views, where they are asked for: there an image is one of its views.
    prediction : Prediction or None
        How long it takes and how large it gets, told from a sample; None where there is nothing to compute.
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
    todo: Plan = field(repr=False)
    views: Estimate | None = None
    prediction: Prediction | None = None

    def to_json(self) -> dict[str, Any]:
        """Describe the estimate for a program."""
        counts = ("images", "unreadable", "reused", "to_compute", "retried", "tasks", "bytes")
        return {
            **json_fields(self, *counts, "store"),
            **self.spec.summary(),
            **json_fields(self, "views", "prediction"),
        }


def estimate(
    inventory: Inventory, spec: StoreSpec, cache: Cache, limits: Limits, views: Views | None = None
) -> Estimate:
    """Estimate what filling the store of `spec` takes, and of its `views`.

    Under other `limits` than before, images that were given up are tried again.
    """
    store, policy = open_store(cache, spec), RetryPolicy.first(limits)
    left = _lacking(inventory, spec, store, policy)
    if views is None:
        return left
    rejected = store.known(inventory.keys) & (store.find(inventory.keys) < 0)
    wanted = views_wanted(inventory, ~rejected, views.count)
    spec = spec.model_copy(update={"views": views.policy})
    return replace(left, views=_lacking(wanted, spec, open_store(cache, spec), policy))


def _lacking(inventory: Inventory, spec: StoreSpec, store: Store, policy: RetryPolicy) -> Estimate:
    done, _ = policy.masks(store, inventory.keys)
    todo = plan_missing(inventory, spec, store, policy)
    return Estimate(
        images=len(inventory) + len(inventory.unreadable),
        unreadable=len(inventory.unreadable),
        reused=len(first_rows(inventory.keys, done)),
        to_compute=todo.images,
        retried=todo.suspect_tasks,
        tasks=len(todo),
        bytes=todo.images * spec.row_bytes,
        store=store.folder,
        spec=spec,
        todo=todo,
    )
