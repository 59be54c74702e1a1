"""From a source and a base to stores of features."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bottleneck.errors import UsageError
from bottleneck.extraction.report import Extraction, check_bad
from bottleneck.extraction.run import ExtractionRun, FilledStore
from bottleneck.extraction.setup import RunOptions
from bottleneck.extraction.worker.main import Worker
from bottleneck.pipeline.session import Options, PathLike, Request, Session, refuse_unknown
from bottleneck.schema import Cache, Inventory, Views
from bottleneck.store.join import Features, join
from bottleneck.store.read import Store, open_store
from bottleneck.store.views import views_wanted
from bottleneck.store.writers import Format, check_out, take_out

if TYPE_CHECKING:
    from typing import Unpack

    from bottleneck.contracts import Source


def extract(source: PathLike, base: Any, **options: Unpack[Options]) -> Extraction:
    """Run every image that the store lacks once through the base.

    Parameters
    ----------
    source : path
        A folder with one sub-folder a class, ``train/ val/ test/`` of these, a flat folder, a CSV or Parquet table
        ``path,label[,group,split]``, a zip, a WebDataset tar, or the URL of one of these.
    base : str or keras.Model
        A catalog name, a ``.keras`` file, ``module:function``, or a model (which then runs in this process).
    **options
        See `BaseOptions`, `ViewOptions` and `SessionOptions`.

    Returns
    -------
    Extraction

    Raises
    ------
    TooManyBadImages
        More images were rejected than ``max_bad`` allows; the others are stored.
    SourceError, BaseError, StoreError, UsageError

    Examples
    --------
    >>> done = extract("photos/", "squeezenet", size=96)  # doctest: +SKIP
    >>> done.computed, done.rows  # doctest: +SKIP
    (1797, 1797)
    """
    refuse_unknown(extract, options, Options)
    session, request = Session.parse(options), Request.parse(base, options)
    (done,), _ = extract_missing(session.open(source), request, session)
    return done.report


def extract_cuts(
    source: PathLike, base: Any, cuts: Sequence[str], **options: Unpack[Options]
) -> dict[str, Extraction]:
    """Extract at several cuts in one pass over the images.

    Parameters
    ----------
    source, base, **options
        As for `extract`, without ``cut``.
    cuts : sequence of str
        Aliases or layers, no two of them the same place.

    Returns
    -------
    dict of str to Extraction
        What was done for each cut; each has a store of its own, the one that this cut alone would fill.

    Raises
    ------
    TooManyBadImages
        More images were rejected at a cut than ``max_bad`` allows; the others are stored.
    SourceError, BaseError, StoreError, UsageError

    Examples
    --------
    >>> done = extract_cuts("photos/", "vgg16", ["pool4", "pool5"], pooling="avg")  # doctest: +SKIP
    >>> {cut: one.spec.shape for cut, one in done.items()}  # doctest: +SKIP
    {'pool4': (512,), 'pool5': (512,)}
    """
    refuse_unknown(extract_cuts, options, Options)
    session, request = Session.parse(options), Request.parse(base, options, cuts)
    done, _ = extract_missing(session.open(source), request, session)
    return dict(zip(cuts, (one.report for one in done), strict=True))


def features(
    source: PathLike,
    base: Any,
    *,
    out: PathLike | None = None,
    format: Format = "npy",  # noqa: A002 - the option's name on the command line
    **options: Unpack[Options],
) -> Features:
    """Give the features of `source`, extracted where they are missing.

    Parameters
    ----------
    source, base, **options
        As for `extract`.
    out : path, optional
        Folder to write them to, for other tools.
    format : {"npy", "parquet", "h5"}
        Of the matrix there.

    Returns
    -------
    Features
        ``X`` (n, *shape), ``y``, ``keys``, ``groups``, ``paths``, ``splits`` in path order; with ``views=K``,
        ``views`` (n, K, *shape) too, which is not written to `out`.
    """
    refuse_unknown(features, options, Options)
    session, request = Session.parse(options), Request.parse(base, options)
    if out is not None:
        check_out(Path(out), format)  # before hours of extraction
    (done,), inventory = extract_missing(session.open(source), request, session)
    rows = join_views(done.store, inventory, request.views, session.cache)
    if out is not None:
        take_out(rows, Path(out), format)
    return rows


def extract_missing(
    images: Source,
    request: Request,
    session: Session,
    *,
    examine: Callable[[Inventory], object] = lambda _: None,
) -> tuple[list[FilledStore], Inventory]:
    """Compute what the stores of `request` lack of `images`.

    Parameters
    ----------
    images : Source
    request : Request
    session : Session
    examine : callable
        May refuse what the scan found, before anything is computed.

    Returns
    -------
    list of FilledStore, Inventory
        For each base of `request` what was done and its store as it is after; the images as last scanned.

    Raises
    ------
    TooManyBadImages, SourceError, BaseError, StoreError, UsageError
    """

    def scan() -> Inventory:
        inventory = session.scan(images)
        if len(inventory):
            examine(inventory)
        return inventory

    workers, cache = session.engine_workers, session.cache
    if workers is not None and request.model is not None:
        raise UsageError(
            "a model object is in this process alone: for --engine or --workers name a file of it"
        )
    worker = None if request.model is None else worker_here(images, request, cache)
    with contextlib.nullcontext() if worker is None else worker:
        options = RunOptions(worker, session.limits, workers)
        run = ExtractionRun(images, scan, request.bases, cache, session.progress, options)
        plain, inventory = run.run()
        for done in plain:
            check_bad(done.report, session.max_bad)
        if request.views is None:
            return list(plain), inventory
        # Where `auto` took a store that was complete, views go with it.
        resolved = [
            base.computed_in(done.store.spec.recipe.precision)
            for base, done in zip(request.bases, plain, strict=True)
        ]
        # Of what has a row; where the base or a decoder fails an image, its views would fail too.
        whole = np.all([done.store.find(inventory.keys) >= 0 for done in plain], axis=0)
        wanted = views_wanted(inventory, whole, request.views.count)
        options = replace(options, views=request.views.policy)
        views, _ = ExtractionRun(images, lambda: wanted, resolved, cache, session.progress, options).run()
        for done in views:
            check_bad(done.report, session.max_bad)
        return [
            done._replace(report=replace(done.report, views=seen.report))
            for done, seen in zip(plain, views, strict=True)
        ], inventory


def views_of(store: Store, views: Views | None, cache: Cache) -> tuple[Store, int] | None:
    """Open the store of views that belongs to `store`, for `join`."""
    if views is None:
        return None
    return open_store(cache, store.spec.model_copy(update={"views": views.policy})), views.count


def join_views(store: Store, inventory: Inventory, views: Views | None, cache: Cache) -> Features:
    """Join the images with their rows, and with those of their views."""
    return join(store, inventory, views=views_of(store, views, cache))


def worker_here(images: Source, request: Request, cache: Cache) -> Worker:
    """Make a worker in this process, where a model object lives already."""
    from bottleneck.bases.load import load_model
    from bottleneck.forward.keras_forward import keras_forward

    forward = keras_forward(functools.partial(load_model, request.model), request.bases, cache)
    return Worker(forward, images, cache)
