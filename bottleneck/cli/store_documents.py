"""What `bottleneck store …` found, for a program: JSON-able documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bottleneck.pipeline.stores import Checked
from bottleneck.store.maintenance.compact import Compaction
from bottleneck.store.maintenance.copy import Copied
from bottleneck.store.maintenance.prune import Pruning
from bottleneck.store.maintenance.state import StoreState


def state_document(state: StoreState) -> dict[str, Any]:
    """One store, in one line of `ls`."""
    if state.header is None:
        return {"store": state.folder.name, "problem": state.problem, "bytes": state.size}
    spec = state.header.spec
    return {
        "store": state.folder.name,
        "base": spec.base,
        "cut": spec.cut,
        "recipe": spec.recipe.fingerprint,
        "views": spec.views.model_dump(mode="json") if spec.views else None,
        "rows": state.rows,
        "shape": list(spec.shape),
        "dtype": spec.recipe.dtype,
        "bytes": state.size,
        "shards": state.shards,
        "rejected": len(state.rejected),
        "damaged": dict(state.damaged or {}),
        "changed": state.changed,
    }


def details_document(state: StoreState) -> dict[str, Any]:
    """One store, with all that `show` tells."""
    document = {**state_document(state), "folder": str(state.folder)}
    if state.header is None:
        return document
    request = state.header.request
    return {
        **document,
        "recipe_json": state.header.spec.recipe.model_dump(mode="json"),
        "batch": state.header.batch,
        "request": request.model_dump(mode="json") if request else None,
        "environments": [{"environment": dict(e), "rows": rows} for e, rows in state.environments],
        "rejections": [why.model_dump(mode="json") for why in state.rejected],
        "suspects": [why.model_dump(mode="json") for why in state.suspects],
    }


def checked_document(found: Sequence[Checked]) -> dict[str, Any]:
    """What `verify` found and did."""
    return {"sound": all(one.sound for one in found), "stores": [_checked(one) for one in found]}


def _checked(one: Checked) -> dict[str, Any]:
    document: dict[str, Any] = {"store": one.folder.name, "sound": one.sound}
    if one.problem:
        document["problem"] = one.problem
    if one.verdict is not None:
        document |= {
            "shards": one.verdict.shards,
            "rows": one.verdict.rows,
            "bytes": one.verdict.size,
            "digest": one.verdict.digest,
            "damaged": [damage._asdict() for damage in one.verdict.damaged],
            "orphans": list(one.verdict.orphans),
            "remarks": list(one.verdict.remarks),
        }
    if one.repair is not None:
        repair = one.repair
        document["repair"] = {
            "recomputed": repair.recomputed,
            "in_place": repair.in_place,
            "superseded": repair.superseded,
            "lost": repair.lost,
            "left": repair.left,
            "failed": repair.failed,
        }
    if one.sample is not None:
        sample = one.sample
        document["sample"] = {
            "rows": sample.rows,
            "exact": sample.exact,
            "differing": list(sample.differing),
            "missing": dict(sample.missing),
            "largest": sample.largest,
        }
    return document


def compaction_document(found: Sequence[Compaction | StoreState]) -> dict[str, Any]:
    """What `compact` did."""
    return {"stores": [_compaction(one) for one in found]}


def _compaction(one: Compaction | StoreState) -> dict[str, Any]:
    if isinstance(one, StoreState):
        return {"store": one.folder.name, "problem": one.problem}
    return {
        "store": one.folder.name,
        "before": one.before,
        "after": one.after,
        "rows": one.rows,
        "freed": one.freed,
        "damaged": dict(one.damaged),
        "failed": dict(one.failed),
    }


def copying_document(found: Sequence[Copied]) -> dict[str, Any]:
    """What `copy` did."""
    return {"stores": [{**asdict(one), "damaged": dict(one.damaged)} for one in found]}


def pruning_document(found: Sequence[Pruning | StoreState]) -> dict[str, Any]:
    """What `prune` did, or would do."""
    done = any(isinstance(one, Pruning) and one.done for one in found)
    return {"done": done, "stores": [_pruning(one) for one in found]}


def _pruning(one: Pruning | StoreState) -> dict[str, Any]:
    if isinstance(one, StoreState):
        return {"store": one.folder.name, "problem": one.problem}
    return {
        "store": one.folder.name,
        "rows": one.rows,
        "shards": one.shards,
        "rewritten": one.rewritten,
        "leftovers": list(one.leftovers),
        "freed": one.freed,
        "damaged": dict(one.damaged),
        "failed": dict(one.failed),
    }
