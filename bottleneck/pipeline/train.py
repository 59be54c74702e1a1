"""The stages of a run: labelled rows are divided, a head learns from them, and is measured on the others."""

from __future__ import annotations

import datetime
import os
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
from bottleneck.inventory.split import settled
from bottleneck.inventory.split import split as split_images
from bottleneck.pipeline.extract import filled, views_store
from bottleneck.pipeline.scan import opened
from bottleneck.pipeline.session import (
    Options,
    PathLike,
    Session,
    cache_of,
    options_of_run,
    request_of,
    versions,
    views_of,
)
from bottleneck.schema import (
    BaseRequest,
    HeadSpec,
    Inventory,
    Run,
    SplitPolicy,
    Views,
    json_fields,
    json_value,
    parse,
)
from bottleneck.store.join import Features, join
from bottleneck.store.read import Store, open_store
from bottleneck.store.views import view_keys
from bottleneck.system.durable import shown
from bottleneck.system.progress import Silent

if TYPE_CHECKING:
    from typing import Unpack


@dataclass(frozen=True, eq=False)
class Trained:
    """What `train` gives: the run's folder, its figures, and the advice that was told."""

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
        `bottleneck.inventory.split.settled`); the run says which it was and why.
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

    if not isinstance(base, (str, BaseRequest)):
        raise UsageError(
            "a run remembers how to build its base, which a model object cannot tell: save it "
            "(model.save('base.keras')) and give that path, or write a function and give 'module:function'"
        )
    policy = parse(SplitPolicy, {"kind": split, "validation": validation, "seed": seed}, "--validation")
    spec = HeadSpec(name=head, settings=dict(settings or {}))
    unfitted = make(spec)
    folder = Path(run)
    runs.prepare(folder)
    # Asked of the scan, before hours of extraction; and again of the images that got features.
    report, inventory, store = filled(source, base, options, examine=lambda found: _divided(found, policy))
    views = views_of(options)
    joined = join(store, inventory, views=views_store(store, views, cache_of(options)))
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
    progress = options.get("progress") or Silent()
    fitted, by_split, fold_figures = fit_and_measure(
        unfitted, rows, splits, classes, folds=folds, seed=seed, progress=progress, told=advise
    )
    figures = runs.Figures(
        by_split=by_split,
        folds=fold_figures,
        seconds=time.perf_counter() - started,
        fit=fitted.fit_facts(),
    )
    for text in _not_converged(figures):
        advise(text)
    record = Run(
        name=folder.name,
        source=opened(source, options).location,
        cache=str(cache_of(options).root),
        # As it was on this machine: a later command, elsewhere, must come to the same store.
        request=request_of(base, options).computed_in(store.spec.recipe.precision),
        spec=store.spec,
        head=spec,
        split=policy,
        classes=classes,
        views=views,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions=versions(),
    )
    with runs.replacing(folder) as room:
        runs.write_table(room, rows, splits)
        runs.write_run(room, record, figures, fitted)
    counts = {name: int((splits == name).sum()) for name in ("train", "validation", "test")}
    return Trained(runs.read_run(folder), report, tuple(advice), counts)


def evaluate(
    run: PathLike,
    source: PathLike | None = None,
    *,
    average_views: bool = False,
    on_message: Callable[[str], None] = lambda _: None,
    **session: Unpack[Session],
) -> dict[str, Metrics]:
    """Figures of a run's head: on its own images as they were split, or on all images of another source.

    Parameters
    ----------
    run : path
        A run's folder.
    source : path, optional
        Other images, with labels.
    average_views : bool
        Measure the mean of the probabilities over the views that the run was trained on, instead of those of the
        image itself; views that are missing are computed first.
    on_message : callable
        Hears which images are missing or of a class that the head does not know, and whether the head's fit did not
        converge.
    **session
        See `Session`.

    Returns
    -------
    dict of str to Metrics
        By split; a `source` of its own gives one entry ``all`` (or its splits, when it names them).
    """
    from bottleneck.evaluation.fit import measure_splits

    folder = runs.read_run(run, session.get("allow_host", ()))
    if average_views and folder.run.views is None:
        raise UsageError(
            f"{folder.path} was trained without views, so there are none to average over: train with --views K"
        )
    for text in _not_converged(folder.figures):
        on_message(text)
    rows, splits = rows_to_measure(
        folder, source, on_message, session, folder.run.views if average_views else None
    )
    return measure_splits(folder.head(), rows, splits, folder.run.classes, average_views=average_views)


def _all_known(store: Store, keys: np.ndarray, views: tuple[Store, int] | None) -> bool:
    if views is not None and not views[0].known(view_keys(keys, 1, views[1])).all():
        return False
    return bool(store.known(keys).all())


def _not_converged(figures: runs.Figures) -> list[str]:
    if figures.fit is None or figures.fit.converged is not False:
        return []
    return [
        f"the head's fit did not converge: {figures.fit}; train again with a larger max_iter or a smaller C, unless "
        "stopping early is what you want"
    ]


def _lost_views(report: Extraction) -> list[str]:
    if report.views is None or not report.views.rejected:
        return []
    return [
        f"{report.views.rejected:,} of {report.views.images:,} augmented views have no features; the image as it is "
        "stands in for each"
    ]


def _divided(inventory: Inventory, policy: SplitPolicy) -> tuple[np.ndarray, SplitPolicy, tuple[str, ...]]:
    """The split of each image, how it was made, and what is to be said. Raises when there is nothing to learn from."""
    policy = settled(inventory, policy)
    splits = split_images(inventory, policy)
    validated, exact = policy.validation > 0, policy.kind == "exact"
    return splits, policy, check_trainable(inventory, splits, validated=validated, exact=exact)


def _labelled(
    rows: Features, inventory: Inventory, policy: SplitPolicy
) -> tuple[Features, np.ndarray, SplitPolicy, list[str]]:
    """Rows that can be learnt from, the split of each and how it was made, and what is to be said about the others."""
    there = np.isin(
        inventory.keys.view("V32").ravel(), np.unique(rows.keys.view("V32").ravel()) if len(rows) else []
    )
    if not there.all():
        inventory = replace(inventory, table=inventory.table.filter(there))
    splits, policy, remarks = _divided(inventory, policy)
    labelled = rows.labelled
    return rows.where(labelled), np.asarray(splits, object)[labelled], policy, list(remarks)


def rows_to_measure(
    folder: runs.RunFolder,
    source: PathLike | None,
    on_message: Callable[[str], None],
    session: Session,
    views: Views | None,
) -> tuple[Features, np.ndarray]:
    """Rows to measure on: the run's own frozen table by content, or all labelled images of another source."""
    options = options_of_run(folder.run, session)
    if views is not None:
        options["views"], options["augment"] = views.count, views.policy
    if source is None:
        inventory = folder.inventory()
        store = open_store(cache_of(options), folder.run.spec)
        if not _all_known(store, inventory.keys, views_store(store, views, cache_of(options))):
            _, _, store = filled(folder.run.source, folder.run.request, options)
    else:
        _, inventory, store = filled(source, folder.run.request, options)
    runs.check_base(folder.run, store.spec, any_precision=True)
    rows = join(store, inventory, views=views_store(store, views, cache_of(options)))
    if source is None and len(rows) < len(inventory):
        lost = f"{len(inventory) - len(rows):,} of the run's {len(inventory):,} images"
        on_message(
            f"{lost} are neither stored nor at {shown(folder.run.source)} any more: the figures are of the others"
        )
    rows = rows.where(rows.labelled)
    if not len(rows):
        where = shown(os.fspath(source or folder.run.source))
        raise UsageError(
            f"{where} has no labelled images to measure on; `bottleneck predict` needs no labels"
        )
    strange = [label for label in rows.y if label not in folder.run.classes]
    if strange:
        on_message(
            f"{len(strange):,} images are of classes that the head does not know and count as wrong: "
            f"{', '.join(map(repr, sorted(set(strange))[:5]))}"
        )
    return rows, np.array([name or "all" for name in rows.splits], object)
