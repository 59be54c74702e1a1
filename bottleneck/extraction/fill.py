"""Filling a store: what is missing is planned, computed and committed; what is there costs nothing."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from bottleneck.bases import known
from bottleneck.contracts import Source
from bottleneck.errors import BaseError, SourceError, TooManyBadImages
from bottleneck.extraction.supervise import WorkerProcess
from bottleneck.extraction.task import Outcome
from bottleneck.files import shown
from bottleneck.progress import Progress
from bottleneck.schema import BaseRequest, Cache, Inventory, Rejection, StoreSpec, Task
from bottleneck.store.plan import first_rows, plan
from bottleneck.store.read import Store, open_store

#: Files may change while they are read; after so many rounds of planning anew they are left for the next run.
_ROUNDS = 3


class Computes(Protocol):
    """A worker, here or in a process of its own."""

    @property
    def spec(self) -> StoreSpec:
        """What the rows will be."""

    def compute(self, source: Source, task: Task, moved_on: Callable[[int], None]) -> Outcome:
        """Run one task."""


@dataclass(frozen=True)
class Extraction:
    """What an extraction did, counted in files of the source.

    ``images = computed + reused + duplicates + rejected`` and ``rows = computed + reused``.
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

    @property
    def rows(self) -> int:
        """Distinct contents that have a row."""
        return self.computed + self.reused


def fill(
    source: Source,
    scan: Callable[[], Inventory],
    request: BaseRequest,
    cache: Cache,
    progress: Progress,
    *,
    worker: Computes | None = None,
    task_rows: int | None = None,
) -> tuple[Extraction, Inventory, Store]:
    """Compute what the store of `request` lacks of `source`.

    Parameters
    ----------
    source : Source
    scan : callable
        Gives the inventory as it is now; called again when files changed under way.
    request : BaseRequest
    cache : Cache
    progress : Progress
    worker : Computes, optional
        A worker in this process (for a model object); by default one is started, if there is work.
    task_rows : int, optional
        For tests and benchmarks only.

    Returns
    -------
    Extraction, Inventory, Store
        What was done, the images as last scanned, and the store as it is after.
    """
    started = time.perf_counter()
    inventory = scan()
    with WorkerProcess(request, cache) as process:
        spec = worker.spec if worker else known.recall(request, cache)
        computing: Computes = worker or process
        if spec is None:
            spec = process.spec
            known.remember(request, spec, cache)
        outcomes: list[Outcome] = []
        clock: Counter[str] = Counter()
        store = open_store(cache, spec)
        damaged = dict(store.damaged)
        for _ in range(_ROUNDS):
            todo = plan(inventory, spec, store.known(inventory.keys), task_rows=task_rows)
            if not todo.images:
                break
            _check_recalled(spec, computing.spec, cache)
            fresh: list[Outcome] = []
            with progress.bar("extract", todo.images) as bar:
                for task in todo:
                    outcome = computing.compute(source, task, bar.update)
                    fresh.append(outcome)
                    clock.update(outcome.seconds)
                    bad = sum(len(o.rejections) for o in [*outcomes, *fresh])
                    if bad:
                        bar.note(f"{bad} rejected")
            outcomes += fresh
            store = open_store(cache, spec)
            if not any(outcome.moved for outcome in fresh):
                break
            inventory = scan()
    seconds = time.perf_counter() - started
    computed = sum(outcome.computed for outcome in outcomes)
    report = _report(inventory, store, spec, computed, outcomes, seconds, clock)
    return _with_damage(report, damaged), inventory, store


def _check_recalled(recalled: StoreSpec, built: StoreSpec, cache: Cache) -> None:
    """Rows must go to the store that was planned for."""
    if recalled.recipe != built.recipe:
        raise BaseError(
            f"{recalled.base} was known here under recipe {recalled.recipe.fingerprint[:16]}, but as built now it "
            f"has {built.recipe.fingerprint[:16]}: its weights changed behind an unchanged name. Remove the .json "
            f"files in {cache.bases}, and it is looked at anew"
        )


def _report(
    inventory: Inventory,
    store: Store,
    spec: StoreSpec,
    computed: int,
    outcomes: list[Outcome],
    seconds: float,
    clock: Mapping[str, float],
) -> Extraction:
    there = store.find(inventory.keys) >= 0
    rows = len(first_rows(inventory.keys, there))
    rejections = _rejections(inventory, store, there, outcomes)
    images = len(inventory) + len(inventory.unreadable)
    rejected = int((~there).sum()) + len(inventory.unreadable)
    # Files may have gone between planning and the last scan: then more was computed than is still there.
    computed = min(computed, rows)
    stage = max(clock, key=lambda name: clock[name]) if clock else "nothing to compute"
    return Extraction(
        images=images,
        computed=computed,
        reused=rows - computed,
        duplicates=int(there.sum()) - rows,
        rejected=rejected,
        ignored=sum(inventory.ignored.values()),
        seconds=seconds,
        images_per_second=computed / seconds if seconds else 0.0,
        bottleneck_stage=stage,
        store=store.folder,
        spec=spec,
        rejections=rejections,
        ignored_why=dict(inventory.ignored),
    )


def _rejections(
    inventory: Inventory, store: Store, there: np.ndarray, outcomes: list[Outcome]
) -> tuple[Rejection, ...]:
    """Every image-like file without a row, each with a reason: from this run, from the records, or none."""
    this_run = {why.path: why for outcome in outcomes for why in outcome.rejections}
    found: list[Rejection] = list(inventory.unreadable)
    paths = inventory.table.column("path")
    for row in np.flatnonzero(~there):
        path = paths[int(row)].as_py().decode("utf-8", "backslashreplace")
        key = inventory.keys[row].tobytes()
        stored = store.rejected.get(key)
        if stored is not None:
            found.append(Rejection(**stored.model_dump() | {"path": path}))
        elif path in this_run:
            found.append(this_run[path])
        else:
            found.append(
                Rejection(
                    content=key.hex(),
                    path=path,
                    stage="read",
                    reason="it kept changing while it was read",
                    retry=True,
                )
            )
    return tuple(found)


def _with_damage(report: Extraction, damaged: Mapping[str, str]) -> Extraction:
    from dataclasses import replace

    return replace(report, damaged=damaged)


def check_bad(report: Extraction, max_bad: float) -> None:
    """Refuse a run with too many bad images, after everything good is stored.

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
        [f"{r.path or r.content[:16]}: {r.stage}: {r.reason}" for r in report.rejections],
        report.ignored_why,
        max_bad,
        "have no features",
        f" The other {good:,} are stored." if good else "",
    )


def refuse_bad(
    images: int, bad: Sequence[str], ignored: Mapping[str, int], max_bad: float, what: str, rest: str = ""
) -> None:
    """`check_bad` in plain values: `bad` says of each bad image which and why, `what` what is wrong."""
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
