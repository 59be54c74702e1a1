"""Report what an extraction did, and judge it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bottleneck.errors import SourceError, TooManyBadImages
from bottleneck.extraction.profile import Clock, bottleneck_stage, combine_clocks
from bottleneck.extraction.worker.task import TaskOutcome
from bottleneck.forward.drift import worst_rounding
from bottleneck.schema import (
    Drift,
    Inventory,
    Rejection,
    Rounding,
    StoreSpec,
    canonical_json,
    json_fields,
    json_value,
)
from bottleneck.store.content_index import first_rows
from bottleneck.store.header import read_drift
from bottleneck.store.read import Store
from bottleneck.system.durable import shown


class ClassCount(NamedTuple):
    """Readable images of a label, and those with a row."""

    images: int
    rows: int


@dataclass(frozen=True)
class Extraction:
    """What an extraction did, counted in files of the source.

    ``images = computed + reused + duplicates + rejected`` and ``rows = computed + reused``; what other builders
    computed meanwhile is reused. `classes` counts by label, `rounding` is the worst_rounding of the store's shards, and
    `environments` is how many numeric environments its rows were computed in (their canaries agree), `clock` where this
    run's time went, `drift` what reduced precision costs, on a few of the images. `views` is the
    same of augmented views, where they were asked for: there an image is one of its views.
    """

    images: int
    computed: int
    reused: int
    duplicates: int
    rejected: int
    ignored: int
    seconds: float
    images_per_second: float
    bottleneck_stage: str
    store: Path
    spec: StoreSpec
    rejections: tuple[Rejection, ...] = ()
    ignored_why: Mapping[str, int] = field(default_factory=dict)
    damaged: Mapping[str, str] = field(default_factory=dict)
    classes: Mapping[str, ClassCount] = field(default_factory=dict)
    rounding: Rounding | None = None
    environments: int = 0
    clock: Clock = field(default_factory=Clock)
    drift: Drift | None = None
    views: Extraction | None = None

    @property
    def rows(self) -> int:
        """Distinct contents that have a row."""
        return self.computed + self.reused

    def to_json(self) -> dict[str, Any]:
        """Describe the extraction for a program."""
        counts = ("images", "computed", "reused", "duplicates", "rejected", "ignored", "rows")
        return {
            **json_fields(self, *counts),
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.images_per_second, 2),
            "bottleneck_stage": self.bottleneck_stage,
            "stages": {stage: round(took, 3) for stage, took in self.clock.waited.items()},
            "stages_alone": {stage: round(rate, 2) for stage, rate in self.clock.alone.items()},
            "store": str(self.store),
            **self.spec.summary(),
            **json_fields(self, "rejections", "ignored_why", "damaged", "classes", "rounding"),
            "precision": self.spec.recipe.precision,
            "drift": self.drift.model_dump(mode="json", exclude={"format"}) if self.drift else None,
            "environments": self.environments,
            "policy": str(self.spec.views) if self.spec.views else None,
            "views": json_value(self.views),
        }


def report(
    inventory: Inventory,
    store: Store,
    outcomes: Sequence[TaskOutcome],
    seconds: float,
    damaged: Mapping[str, str],
) -> Extraction:
    """Count what is stored now against what this run computed."""
    has_row = store.find(inventory.keys) >= 0
    rows = len(first_rows(inventory.keys, has_row))
    # Files may have gone between planning and the last scan: then more was computed than is still there.
    computed = min(sum(outcome.computed for outcome in outcomes), rows)
    clock = combine_clocks([outcome.clock for outcome in outcomes])
    return Extraction(
        images=len(inventory) + len(inventory.unreadable),
        computed=computed,
        reused=rows - computed,
        duplicates=int(has_row.sum()) - rows,
        rejected=int((~has_row).sum()) + len(inventory.unreadable),
        ignored=sum(inventory.ignored.values()),
        seconds=seconds,
        images_per_second=computed / seconds if seconds else 0.0,
        bottleneck_stage=bottleneck_stage(clock),
        clock=clock,
        drift=read_drift(store.folder) if store.spec.recipe.precision != "float32" else None,
        store=store.folder,
        spec=store.spec,
        rejections=_rejections(inventory, store, has_row, outcomes),
        ignored_why=dict(inventory.ignored),
        damaged=dict(damaged),
        classes=_classes(inventory, has_row),
        rounding=worst_rounding(
            [s.record.rounding for s in store.shards.files if s.record.rounding is not None]
        ),
        environments=len({canonical_json(dict(s.record.environment)) for s in store.shards.files}),
    )


def _classes(inventory: Inventory, has_row: np.ndarray) -> dict[str, ClassCount]:
    column = inventory.table.column("label").combine_chunks()
    coded = column.dictionary_encode()
    codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    images = np.bincount(codes[codes >= 0], minlength=len(coded.dictionary))
    rows = np.bincount(codes[(codes >= 0) & has_row], minlength=len(coded.dictionary))
    counted = zip(coded.dictionary.to_pylist(), images.tolist(), rows.tolist(), strict=True)
    return {label: ClassCount(*counts) for label, *counts in sorted(counted)}


def _rejections(
    inventory: Inventory, store: Store, has_row: np.ndarray, outcomes: Sequence[TaskOutcome]
) -> tuple[Rejection, ...]:
    """List every image-like file without a row, with its reason."""
    this_run = {why.path: why for outcome in outcomes for why in outcome.rejections}
    rejections: list[Rejection] = list(inventory.unreadable)
    paths = inventory.table.column("path")
    for row in np.flatnonzero(~has_row):
        path = paths[int(row)].as_py().decode("utf-8", "backslashreplace")
        key = inventory.keys[row].tobytes()
        stored = store.rejected.get(key)
        if stored is None and path in this_run:
            rejections.append(this_run[path])
            continue
        stored = stored or store.suspects.get(key)
        if stored is not None:
            rejections.append(Rejection(**stored.model_dump() | {"path": path}))
        else:
            reason = "it kept changing while it was read"
            rejections.append(
                Rejection(content=key.hex(), path=path, stage="read", reason=reason, retry=True)
            )
    return tuple(rejections)


def unexplained(inventory: Inventory, store: Store, outcomes: Sequence[TaskOutcome]) -> np.ndarray:
    """Find rows of `inventory` without a row or a reason, (n,) int64.

    Their files changed while they were read, here or by another builder; or what the store had of them was
    removed meanwhile.
    """
    missing = np.flatnonzero(~store.known(inventory.keys))
    if not len(missing):
        return missing
    this_run = {why.path for outcome in outcomes for why in outcome.rejections}
    paths = inventory.table.column("path").take(missing).to_pylist()
    silent = [
        inventory.keys[row].tobytes() not in store.suspects
        and path.decode("utf-8", "backslashreplace") not in this_run
        for row, path in zip(missing, paths, strict=True)
    ]
    return missing[np.array(silent, bool)]


def check_bad(report: Extraction, max_bad: float) -> None:
    """Refuse a run with too many bad images; the good are stored.

    Raises
    ------
    TooManyBadImages
        More than `max_bad` of the image-like files, and more than one of them, have no row.
    SourceError
        There was no image at all.
    """
    good = report.images - report.rejected
    refuse_bad(
        report.images,
        [f"{_named(r, report.spec)}: {r.stage}: {r.reason}" for r in report.rejections],
        report.ignored_why,
        max_bad,
        "(each view counted) have no features" if report.spec.views else "have no features",
        f" The other {good:,} are stored." if good else "",
    )


def _named(rejection: Rejection, spec: StoreSpec) -> str:
    image = rejection.path or rejection.content[:16]
    # The number of a view is the end of its key.
    return f"{image}, view {int(rejection.content[60:], 16)}" if spec.views and rejection.content else image


def refuse_bad(
    images: int, bad: Sequence[str], ignored: Mapping[str, int], max_bad: float, what: str, rest: str = ""
) -> None:
    """Refuse too many `bad` images with their reasons; `what` is wrong."""
    if not images:
        why = ", ".join(f"{count:,} {name}" for name, count in ignored.items())
        raise SourceError(
            f"no images were found{f' (passed over: {why})' if why else ''}; expected JPEG, PNG, BMP, GIF or WebP files"
        )
    allowed = max(1, int(max_bad * images))
    # Nothing good at all is no success, unless everything may be bad by the user's own word.
    if len(bad) > allowed or (len(bad) == images and max_bad < 1):
        first = "\n".join(f"  {shown(line)}" for line in bad[:10])
        more = f"\n  … and {len(bad) - 10:,} more" if len(bad) > 10 else ""
        raise TooManyBadImages(
            f"{len(bad):,} of {images:,} images {what}; --max-bad {max_bad:g} allows {allowed:,}."
            f"{rest} The first:\n{first}{more}"
        )
