"""A head learns from labelled rows, and is measured on the others."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bottleneck import runs
from bottleneck.errors import UsageError
from bottleneck.evaluation.metrics import Metrics, absent
from bottleneck.extraction.report import Extraction
from bottleneck.inventory.checks import check_trainable
from bottleneck.inventory.split import resolve_split, split_images
from bottleneck.pipeline.evaluate import not_converged
from bottleneck.pipeline.extract import extract_missing, join_views
from bottleneck.pipeline.session import Options, PathLike, Request, Session, refuse_unknown, versions
from bottleneck.schema import HeadSpec, Inventory, Run, SplitPolicy, json_fields, json_value, parse
from bottleneck.store.join import Features

if TYPE_CHECKING:
    from typing import Unpack


@dataclass(frozen=True, eq=False)
class Trained:
    """What `train` gives: the run's folder, its figures, and advice."""

    folder: runs.RunFolder
    extraction: Extraction
    advice: tuple[str, ...]
    counts: Mapping[str, int]

    @property
    def metrics(self) -> Mapping[str, Metrics]:
        """Figures by split."""
        return self.folder.figures.by_split

    def to_json(self) -> dict[str, Any]:
        """Describe the run and its figures for a program."""
        figures = self.folder.figures
        return {
            "run": str(self.folder.path),
            **json_fields(self.folder.run, "head", "classes"),
            "counts": dict(self.counts),
            "split": json_value(self.folder.run.split),
            "classes_without_images": absent(self.metrics),
            "metrics": json_value(self.metrics),
            **json_fields(figures, "folds", "fit"),
            "train_seconds": round(figures.seconds, 3),
            **json_fields(self, "advice", "extraction"),
        }


def train(
    source: PathLike,
    base: Any,
    head: str = "logistic",
    *,
    run: PathLike,
    settings: Mapping[str, Any] | None = None,
    validation: float = 0.2,
    split: Literal["auto", "hash", "exact"] = "auto",
    folds: int | None = None,
    seed: int = 0,
    on_message: Callable[[str], None] = lambda _: None,
    **options: Unpack[Options],
) -> Trained:
    """Train a head on cached features; what is missing is extracted first.

    Parameters
    ----------
    source, base, **options
        As for `extract`.
    head : str
        A head of the catalog.
    run : path
        Folder for the run; made when it is not there.
    settings : mapping, optional
        The head's settings.
    validation : float
        Share of the training images held out, unless the source names a validation split.
    split : {"auto", "hash", "exact"}
        How they are chosen: ``exact`` gives each class its share, ``hash`` draws each image by itself, so that images
        added later move no others. ``auto`` takes ``exact`` where classes are small (see
        `bottleneck.inventory.split.resolve_split`); the run says which it was and why.
    folds : int, optional
        Cross-validate too, with a fresh head for each fold.
    seed : int
    on_message : callable
        Hears advice: before the training begins, and after it where the fit did not converge.

    Returns
    -------
    Trained

    Raises
    ------
    SourceError, UsageError
        No labels, one class, nothing to train on; the known layouts are named.
    """
    from bottleneck.evaluation.fit import fit_and_measure
    from bottleneck.heads.make import capacity_advice, count_parameters, make

    refuse_unknown(train, options, Options)
    session, request = Session.parse(options), Request.parse(base, options)
    if request.model is not None:
        raise UsageError(
            "a run remembers how to build its base, which a model object cannot tell: save it "
            "(model.save('base.keras')) and give that path, or write a function and give 'module:function'"
        )
    policy = parse(SplitPolicy, {"kind": split, "validation": validation, "seed": seed}, "--validation")
    spec = HeadSpec(name=head, settings=dict(settings or {}))
    unfitted = make(spec)
    folder = Path(run)
    runs.prepare(folder)
    images = session.open(source)
    # Asked of the scan, before hours of extraction; and again of the images that got features.
    (done,), inventory = extract_missing(
        images, request, session, examine=lambda inventory: _divided(inventory, policy)
    )
    report, store = done.report, done.store
    joined = join_views(store, inventory, request.views, session.cache)
    rows, splits, policy, remarks = _labelled(joined, inventory, policy)
    samples = int((splits == "train").sum())
    classes = tuple(sorted(set(rows.y[splits == "train"])))
    advice = [*remarks, *_lost_views(report)]
    _, trainable = count_parameters(spec, store.spec.shape, len(classes))
    capacity = capacity_advice(trainable, samples)
    if capacity:
        advice.append(capacity)
    for text in advice:
        on_message(text)

    def advise(text: str) -> None:
        advice.append(text)
        on_message(text)

    started = time.perf_counter()
    fitted, by_split, fold_figures = fit_and_measure(
        unfitted, rows, splits, classes, folds=folds, seed=seed, progress=session.progress, on_message=advise
    )
    figures = runs.Figures(
        by_split=by_split,
        folds=fold_figures,
        seconds=time.perf_counter() - started,
        fit=fitted.fit_facts(),
    )
    for text in not_converged(figures):
        advise(text)
    record = Run(
        name=folder.name,
        source=images.location,
        cache=str(session.cache.root),
        # As it was on this machine: a later command, elsewhere, must come to the same store.
        request=request.bases[0].computed_in(store.spec.recipe.precision),
        spec=store.spec,
        head=spec,
        split=policy,
        classes=classes,
        views=request.views,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions=versions(),
    )
    with runs.replacing(folder) as room:
        runs.write_table(room, rows, splits)
        runs.write_run(room, record, figures, fitted)
    counts = {name: int((splits == name).sum()) for name in ("train", "validation", "test")}
    return Trained(runs.read_run(folder), report, tuple(advice), counts)


def _lost_views(report: Extraction) -> list[str]:
    if report.views is None or not report.views.rejected:
        return []
    return [
        f"{report.views.rejected:,} of {report.views.images:,} augmented views have no features; the image as it is "
        "stands in for each"
    ]


def _divided(inventory: Inventory, policy: SplitPolicy) -> tuple[np.ndarray, SplitPolicy, tuple[str, ...]]:
    """Split the images, or raise where there is nothing to learn from."""
    policy = resolve_split(inventory, policy)
    splits = split_images(inventory, policy)
    validated, exact = policy.validation > 0, policy.kind == "exact"
    return splits, policy, check_trainable(inventory, splits, validated=validated, exact=exact)


def _labelled(
    rows: Features, inventory: Inventory, policy: SplitPolicy
) -> tuple[Features, np.ndarray, SplitPolicy, list[str]]:
    """Choose and split the rows that can be learnt from, with remarks."""
    there = np.isin(
        inventory.keys.view("V32").ravel(), np.unique(rows.keys.view("V32").ravel()) if len(rows) else []
    )
    if not there.all():
        inventory = replace(inventory, table=inventory.table.filter(there))
    splits, policy, remarks = _divided(inventory, policy)
    labelled = rows.labelled
    return rows.where(labelled), np.asarray(splits, object)[labelled], policy, list(remarks)
