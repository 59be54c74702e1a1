"""Gather a model card from the run, its store and certificate."""

from __future__ import annotations

import datetime
import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from bottleneck.errors import BottleneckError
from bottleneck.exports.card import Card, DataFacts, RejectedGroup
from bottleneck.exports.manifest import Delivered, Refusal
from bottleneck.inventory.scan import scan_source
from bottleneck.models.reference import Reference
from bottleneck.models.sample_images import OWN
from bottleneck.schema import Cache, Certificate, Inventory, ScoreFacts, canonical_json
from bottleneck.store.read import Store

#: Paths that stand for a group of rejected images.
_EXAMPLES = 3


def card_of(
    reference: Reference,
    model: Any,
    certificate: Certificate,
    artefacts: Sequence[Delivered],
    refused: Sequence[Refusal],
    cache: Cache,
    score: ScoreFacts | None = None,
) -> Card:
    """Make the card of a run's merged `model` and its files."""
    folder, run = reference.model.folder, reference.run
    figures, inventory = folder.figures, folder.inventory()
    own = reference.images.get(OWN)
    base = int(reference.model.base.model.count_params())
    return Card(
        name=run.name,
        created=run.created,
        exported=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        data=DataFacts(
            fingerprint=data_fingerprint(inventory),
            images=len(inventory),
            classes=_counts(inventory, run.classes),
            rejected=rejected(reference, cache),
        ),
        base=run.spec,
        asked=run.request.model_dump(mode="json"),
        head=run.head,
        fit=figures.fit,
        parameters={"base": base, "head": int(model.count_params()) - base},
        tuned=getattr(run, "tuned", None),
        split=run.split,
        metrics={name: metrics.model_dump(mode="json") for name, metrics in figures.by_split.items()},
        folds=tuple(metrics.model_dump(mode="json") for metrics in figures.folds),
        certificate=certificate,
        compared=0 if own is None else len(own),
        unseen=0 if own is None else own.unseen,
        artefacts=tuple(artefacts),
        refused=tuple(refused),
        score=score,
        versions=run.versions,
    )


def data_fingerprint(inventory: Inventory) -> str:
    """Hash content, label, group and split of all images.

    Names of files are left out, as they are in the store: renamed images are the same data.
    """
    columns = (inventory.table.column(name).to_pylist() for name in ("content", "label", "group", "split"))
    lines = sorted(canonical_json([content.hex(), *rest]) for content, *rest in zip(*columns, strict=True))
    digest = hashlib.sha256(b"bottleneck data 1\n")
    for line in lines:
        digest.update(line + b"\n")
    return digest.hexdigest()


def _counts(inventory: Inventory, classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """Count images by class and split; unknown classes come last."""
    counts: dict[str, dict[str, int]] = {name: {} for name in classes}
    labels, splits = (inventory.table.column(name).to_pylist() for name in ("label", "split"))
    for label, split in zip(labels, splits, strict=True):
        if label is not None:
            of_class = counts.setdefault(label, {})
            of_class[split or "train"] = of_class.get(split or "train", 0) + 1
    return counts


def rejected(reference: Reference, cache: Cache) -> tuple[RejectedGroup, ...] | None:
    """Group images without features by reason, the most frequent first.

    A store serves many sources, so the source is scanned again (through the index of scans). None where it is gone.
    """
    try:
        inventory = scan_source(reference.model.folder.source(cache.fetched), cache.scans, keep=False)
    except (BottleneckError, OSError):
        return None
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for problem in inventory.unreadable:
        groups[problem.stage, problem.reason].append(problem.path)
    for path, stage, reason in _without_row(inventory, reference.model.store):
        groups[stage, reason].append(path)
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    return tuple(
        RejectedGroup(stage=stage, reason=reason, images=len(paths), paths=tuple(sorted(paths)[:_EXAMPLES]))
        for (stage, reason), paths in ordered
    )


def _without_row(inventory: Inventory, store: Store) -> list[tuple[str, str, str]]:
    lost = np.flatnonzero(store.find(inventory.keys) < 0)
    images = []
    for row in map(int, lost):
        image = inventory[row]
        why = store.rejected.get(image.content) or store.suspects.get(image.content)
        # Images that are new since the run do not concern its card.
        if why is not None:
            images.append((image.path.decode("utf-8", "backslashreplace"), why.stage, why.reason))
    return images
