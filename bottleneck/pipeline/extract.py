"""From a source and a base to a store that has a row for every image: the stages before any head."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bottleneck import catalog
from bottleneck.bases import known
from bottleneck.bases.custom import is_file, is_function
from bottleneck.contracts import Readers, Source
from bottleneck.errors import UnknownName, UsageError
from bottleneck.extraction.fill import Filled, fill_cuts
from bottleneck.extraction.filler import FillOptions
from bottleneck.extraction.report import Extraction, check_bad
from bottleneck.extraction.worker import Worker
from bottleneck.images import scan as scanning
from bottleneck.options import (
    Options,
    PathLike,
    Session,
    cache_at,
    cache_of,
    limits_of,
    progress_of,
    request_of,
    requests_of,
    team_of,
    views_of,
)
from bottleneck.progress import Progress, Silent
from bottleneck.schema import BaseRequest, BaseSpec, Cache, Inventory, Views
from bottleneck.sources.open import open_source
from bottleneck.store.read import Store, open_store
from bottleneck.store.views import views_wanted

if TYPE_CHECKING:
    from typing import Unpack

    from bottleneck.extraction.estimate import Estimate


def base_named(name: str) -> BaseSpec:
    """One base of the catalog. Raises `UnknownName` with the nearest ones."""
    from bottleneck.bases import specs

    known = specs()
    if name.lower() not in known:
        raise UnknownName("base", name, known, "or give FILE.keras or module:function")
    return known[name.lower()]


def scan(
    source: PathLike, *, cache: PathLike | None = None, rehash: bool = False, progress: Progress | None = None
) -> Inventory:
    """Which images `source` holds, by content.

    Parameters
    ----------
    source : path
        A folder, a CSV or Parquet table, a zip or a tar file, or the URL of one.
    cache : path, optional
        Where the index of earlier scans lies.
    rehash : bool
        Read every file, whatever the index says.
    progress : Progress, optional
    """
    return scan_for(source, {"cache": cache, "rehash": rehash, "progress": progress or Silent()})


def opened(source: PathLike, session: Session) -> Source:
    """`source`, with what the session says of where things lie and which hosts may be read from."""
    where = cache_at(session.get("cache"))
    return open_source(source, fetched=where.fetched, allow_host=session.get("allow_host", ()))


def scan_for(source: PathLike, session: Session) -> Inventory:
    """`scan` with a session's options."""
    where = cache_at(session.get("cache"))
    return scanning.scan(
        opened(source, session),
        where.scans,
        rehash=session.get("rehash", False),
        readers=_readers(session),
        progress=progress_of(session),
    )


def _readers(session: Session) -> Readers | None:
    """Who reads the files of a scan; None: threads here, which lack nothing where the workers are here too."""
    team = team_of(session) if session.get("address") else None
    if team is None:
        return None
    made: Readers = catalog.load("engine", catalog.READERS, team.engine)(team)
    return made


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
        readers = _readers(options)
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
    from bottleneck.extraction.estimate import estimate
    from bottleneck.extraction.predict import predict, sample
    from bottleneck.extraction.suggest import Machine
    from bottleneck.extraction.supervise import WorkerProcess

    cache, limits, progress = cache_of(options), limits_of(options), progress_of(options)
    images = opened(source, options)
    views = views_of(options)
    here = isinstance(base, (str, BaseRequest))
    recalled = [known.recall(request, cache) if here else None for request in requests]
    started = time.perf_counter()
    with WorkerProcess(requests, cache, limits) if here else _in_process(base, requests, cache) as worker:
        if isinstance(worker, WorkerProcess) and None in recalled:
            worker.begin()  # as the run will
        inventory = scanning.scan(
            images,
            cache.scans,
            rehash=options.get("rehash", False),
            keep=False,
            readers=_readers(options),
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
    from bottleneck.extraction.forward import keras_forward

    return Worker(keras_forward(functools.partial(load_model, model), requests, cache), cache)
