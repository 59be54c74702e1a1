"""Figures of a run's head, on its own images or on others."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from bottleneck import runs
from bottleneck.errors import UsageError
from bottleneck.pipeline.extract import extract_missing, join_views, views_of
from bottleneck.pipeline.session import (
    PathLike,
    Request,
    Session,
    SessionOptions,
    refuse_unknown,
)
from bottleneck.schema import Views
from bottleneck.store.join import Features
from bottleneck.store.read import Store, open_store
from bottleneck.store.views import view_keys
from bottleneck.system.durable import shown

if TYPE_CHECKING:
    from typing import Unpack

    from bottleneck.evaluation.metrics import Metrics


def evaluate(
    run: PathLike,
    source: PathLike | None = None,
    *,
    average_views: bool = False,
    on_message: Callable[[str], None] = lambda _: None,
    **options: Unpack[SessionOptions],
) -> dict[str, Metrics]:
    """Measure a run's head on its own images or another source.

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
    **options
        See `SessionOptions`.

    Returns
    -------
    dict of str to Metrics
        By split; a `source` of its own gives one entry ``all`` (or its splits, when it names them).
    """
    from bottleneck.evaluation.fit import measure_splits

    refuse_unknown(evaluate, options, SessionOptions)
    folder = runs.open_run(run, options)
    session = Session.parse(options, cache=folder.run.cache)
    if average_views and folder.run.views is None:
        raise UsageError(
            f"{folder.path} was trained without views, so there are none to average over: train with --views K"
        )
    for text in not_converged(folder.figures):
        on_message(text)
    views = folder.run.views if average_views else None
    rows, splits = rows_to_measure(folder, source, on_message, session, views)
    return measure_splits(folder.head(), rows, splits, folder.run.classes, average_views=average_views)


def rows_to_measure(
    folder: runs.RunFolder,
    source: PathLike | None,
    on_message: Callable[[str], None],
    session: Session,
    views: Views | None,
) -> tuple[Features, np.ndarray]:
    """Choose the rows to measure on: a run's own, or another source's."""
    request, cache = Request((folder.run.request,), views), session.cache
    if source is None:
        inventory, store = folder.inventory(), open_store(cache, folder.run.spec)
        if not _all_known(store, inventory.keys, views_of(store, views, cache)):
            (done,), _ = extract_missing(session.open(folder.run.source), request, session)
            store = done.store
    else:
        (done,), inventory = extract_missing(session.open(source), request, session)
        store = done.store
    runs.check_base(folder.run, store.spec, any_precision=True)
    rows = join_views(store, inventory, views, cache)
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


def _all_known(store: Store, keys: np.ndarray, views: tuple[Store, int] | None) -> bool:
    if views is not None and not views[0].known(view_keys(keys, 1, views[1])).all():
        return False
    return bool(store.known(keys).all())


def not_converged(figures: runs.Figures) -> list[str]:
    """Say that the head's fit did not converge, where it did not."""
    if figures.fit is None or figures.fit.converged is not False:
        return []
    return [
        f"the head's fit did not converge: {figures.fit}; train again with a larger max_iter or a smaller C, unless "
        "stopping early is what you want"
    ]
