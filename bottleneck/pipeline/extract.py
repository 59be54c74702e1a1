"""From a source and a base to a store that has a row for every image: the stages before any head."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bottleneck.bases import digest_cache as known
from bottleneck.bases.custom import is_file, is_function
from bottleneck.errors import UsageError
from bottleneck.extraction.filler import FillOptions
from bottleneck.extraction.report import Extraction, check_bad
from bottleneck.extraction.run import Filled, fill_cuts
from bottleneck.extraction.worker.main import Worker
from bottleneck.inventory import scan as scanning
from bottleneck.pipeline.bases import base_named
from bottleneck.pipeline.scan import opened, readers_of
from bottleneck.pipeline.session import (
    Options,
    PathLike,
    cache_of,
    limits_of,
    progress_of,
    request_of,
    requests_of,
    team_of,
    views_of,
)
from bottleneck.schema import BaseRequest, Cache, Inventory, Views
from bottleneck.store.join import Features, join
from bottleneck.store.read import Store, open_store
from bottleneck.store.views import views_wanted
from bottleneck.store.writers import Format, check_out, take_out
from bottleneck.system.progress import Silent

if TYPE_CHECKING:
    from typing import Unpack

    from bottleneck.extraction.forecast.estimate import Estimate


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
        See `BaseOptions` and `Session`.

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
    report, _, _ = filled(source, base, options)
    return report


def extract_cuts(
    source: PathLike, base: Any, cuts: Sequence[str], **options: Unpack[Options]
) -> dict[str, Extraction]:
    """`extract` at several cuts in one pass: an image goes through the base once for all stores that lack it.

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
    return filled_cuts(source, base, cuts, options)


def features(
    source: PathLike,
    base: Any,
    *,
    out: PathLike | None = None,
    format: Format = "npy",  # noqa: A002 - the option's name on the command line
    **options: Unpack[Options],
) -> Features:
    """The features of `source`, extracted where they are missing; written to `out` for other tools when given.

    Returns
    -------
    Features
        ``X`` (n, *shape), ``y``, ``keys``, ``groups``, ``paths``, ``splits`` in path order; with ``views=K``,
        ``views`` (n, K, *shape) too, which is not written to `out`.
    """
    if out is not None:
        check_out(Path(out), format)  # before hours of extraction
    _, inventory, store = filled(source, base, options)
    rows = join(store, inventory, views=views_store(store, views_of(options), cache_of(options)))
    if out is not None:
        take_out(rows, Path(out), format)
    return rows


def filled(
    source: PathLike,
    base: Any,
    options: Options,
    *,
    examine: Callable[[Inventory], object] = lambda _: None,
) -> tuple[Extraction, Inventory, Store]:
    """Extract what is missing; `examine` may refuse what the scan found before anything is computed."""
    (done,), inventory = _filled(source, base, [request_of(base, options)], options, examine)
    return done.report, inventory, done.store


def filled_cuts(source: PathLike, base: Any, cuts: Sequence[str], options: Options) -> dict[str, Extraction]:
    """Extract what is missing at any of `cuts`, in one pass; what was done for each."""
    found, _ = _filled(source, base, requests_of(base, cuts, options), options, lambda _: None)
    return dict(zip(cuts, (done.report for done in found), strict=True))


def _filled(
    source: PathLike,
    base: Any,
    requests: Sequence[BaseRequest],
    options: Options,
    examine: Callable[[Inventory], object],
) -> tuple[list[Filled], Inventory]:
    cache = cache_of(options)
    images = opened(source, options)
    progress = options.get("progress") or Silent()
    rehash = options.get("rehash", False)
    max_bad, limits, views = options.get("max_bad", 0.01), limits_of(options), views_of(options)
    team = team_of(options)
    if isinstance(base, str) and not is_file(base) and not is_function(base):
        base_named(base)  # before a long scan, not after it

    def scanned() -> Inventory:
        readers = readers_of(options)
        found = scanning.scan(images, cache.scans, rehash=rehash, readers=readers, progress=progress)
        if len(found):
            examine(found)
        return found

    # A model object lives in this process already, so its worker does too.
    here = isinstance(base, (str, BaseRequest))
    if team is not None and not here:
        raise UsageError(
            "a model object is in this process alone: for --engine or --workers name a file of it"
        )
    with contextlib.nullcontext() if here else _in_process(base, requests, cache) as worker:
        fill: FillOptions = {"worker": worker, "limits": limits, "team": team}
        plain, inventory = fill_cuts(images, scanned, requests, cache, progress, **fill)
        for done in plain:
            check_bad(done.report, max_bad)
        if views is None:
            return list(plain), inventory
        # Where `auto` took a store that was complete, views go with it.
        resolved = [
            request.computed_in(done.store.spec.recipe.precision)
            for request, done in zip(requests, plain, strict=True)
        ]
        # Of what has a row; where the base or a decoder fails an image, its views would fail too.
        whole = np.all([done.store.find(inventory.keys) >= 0 for done in plain], axis=0)
        wanted = views_wanted(inventory, whole, views.count)
        fill["views"] = views.policy
        made, _ = fill_cuts(images, lambda: wanted, resolved, cache, progress, **fill)
        for done in made:
            check_bad(done.report, max_bad)
        return [
            done._replace(report=replace(done.report, views=seen.report))
            for done, seen in zip(plain, made, strict=True)
        ], inventory


def views_store(store: Store, views: Views | None, cache: Cache) -> tuple[Store, int] | None:
    """The store of the views of what `store` holds, and how many an image has, as `join` takes them."""
    if views is None:
        return None
    return open_store(cache, store.spec.model_copy(update={"views": views.policy})), views.count


def foresee(source: PathLike, base: Any, **options: Unpack[Options]) -> Estimate:
    """What `extract` with the same arguments would do, and how long it would take; writes nothing.

    A sample of the images, about ten seconds of them, is run on this machine and thrown away.

    Parameters
    ----------
    source, base, **options
        As for `extract`.

    Returns
    -------
    Estimate

    Raises
    ------
    WorkerDied
        An image of the sample ended the worker; `extract` would do without it.
    """
    return _foreseen(source, base, [request_of(base, options)], options)[0]


def foresee_cuts(
    source: PathLike, base: Any, cuts: Sequence[str], **options: Unpack[Options]
) -> dict[str, Estimate]:
    """`foresee` for each of several cuts in one pass: each tells its own bytes, and the time of the pass."""
    found = _foreseen(source, base, requests_of(base, cuts, options), options)
    return dict(zip(cuts, found, strict=True))


def _foreseen(
    source: PathLike, base: Any, requests: Sequence[BaseRequest], options: Options
) -> list[Estimate]:
    from bottleneck.extraction.forecast.estimate import estimate
    from bottleneck.extraction.forecast.forecast import predict, sample
    from bottleneck.extraction.forecast.recommend import Machine
    from bottleneck.extraction.worker.process import WorkerProcess

    cache, limits, progress = cache_of(options), limits_of(options), progress_of(options)
    images = opened(source, options)
    views = views_of(options)
    here = isinstance(base, (str, BaseRequest))
    recalled = [known.recall_digests(request, cache) if here else None for request in requests]
    started = time.perf_counter()
    with WorkerProcess(requests, cache, limits) if here else _in_process(base, requests, cache) as worker:
        if isinstance(worker, WorkerProcess) and None in recalled:
            worker.begin()  # as the run will
        inventory = scanning.scan(
            images,
            cache.scans,
            rehash=options.get("rehash", False),
            keep=False,
            readers=readers_of(options),
            progress=progress,
        )
        specs = [spec or worker.specs[number] for number, spec in enumerate(recalled)]
        ready = time.perf_counter() - started
        found = [estimate(inventory, spec, cache, limits, views) for spec in specs]
        plans = [
            [part.todo for part in (left, left.views) if part is not None and part.to_compute]
            for left in found
        ]
        longest = max(plans, key=lambda parts: sum(todo.images for todo in parts))
        if not longest:
            return found
        task = sample(longest[0])
        with progress.bar("sample", len(task.keys)) as bar:
            trial = worker.attempt(images, task, bar.update)
        machine = Machine.here()
        return [
            replace(left, prediction=predict(longest, left.spec, trial, ready, machine)) if parts else left
            for left, parts in zip(found, plans, strict=True)
        ]


def _in_process(model: Any, requests: Sequence[BaseRequest], cache: Cache) -> Worker:
    from bottleneck.bases.load import load_model
    from bottleneck.forward.keras_forward import keras_forward

    return Worker(keras_forward(functools.partial(load_model, model), requests, cache), cache)
