"""From a source and a base to a store that has a row for every image: the stages before any head."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bottleneck.bases import known
from bottleneck.bases.custom import is_file, is_function
from bottleneck.errors import UnknownName
from bottleneck.extraction.fill import fill
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
    where = cache_at(cache)
    opened = open_source(source, fetched=where.fetched)
    return scanning.scan(opened, where.scans, rehash=rehash, progress=progress or Silent())


def scan_for(source: PathLike, session: Session) -> Inventory:
    """`scan` with a session's options."""
    return scan(
        source,
        cache=session.get("cache"),
        rehash=session.get("rehash", False),
        progress=progress_of(session),
    )


def filled(
    source: PathLike,
    base: Any,
    options: Options,
    *,
    examine: Callable[[Inventory], object] = lambda _: None,
) -> tuple[Extraction, Inventory, Store]:
    """Extract what is missing; `examine` may refuse what the scan found before anything is computed."""
    cache = cache_of(options)
    opened = open_source(source, fetched=cache.fetched)
    progress = options.get("progress") or Silent()
    rehash = options.get("rehash", False)
    request, limits, views = request_of(base, options), limits_of(options), views_of(options)
    if isinstance(base, str) and not is_file(base) and not is_function(base):
        base_named(base)  # before a long scan, not after it

    def scanned() -> Inventory:
        found = scanning.scan(opened, cache.scans, rehash=rehash, progress=progress)
        if len(found):
            examine(found)
        return found

    # A model object lives in this process already, so its worker does too.
    here = isinstance(base, (str, BaseRequest))
    with contextlib.nullcontext() if here else _in_process(base, request, cache) as worker:
        report, inventory, store = fill(
            opened, scanned, request, cache, progress, worker=worker, limits=limits
        )
        check_bad(report, options.get("max_bad", 0.01))
        if views is not None:
            # Where `auto` took a store that was complete, views go with it.
            request = request.model_copy(update={"precision": store.spec.recipe.precision})
            # Of what has a row; where the base or a decoder fails an image, its views would fail too.
            wanted = views_wanted(inventory, store.find(inventory.keys) >= 0, views.count)
            made, _, _ = fill(
                opened,
                lambda: wanted,
                request,
                cache,
                progress,
                worker=worker,
                limits=limits,
                views=views.policy,
            )
            check_bad(made, options.get("max_bad", 0.01))
            report = replace(report, views=made)
    return report, inventory, store


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
    from bottleneck.extraction.estimate import estimate
    from bottleneck.extraction.predict import predict, sample
    from bottleneck.extraction.supervise import WorkerProcess

    cache, limits, progress = cache_of(options), limits_of(options), progress_of(options)
    opened = open_source(source, fetched=cache.fetched)
    request, views = request_of(base, options), views_of(options)
    started = time.perf_counter()
    inventory = scanning.scan(
        opened, cache.scans, rehash=options.get("rehash", False), keep=False, progress=progress
    )
    scanned = time.perf_counter() - started
    here = isinstance(base, (str, BaseRequest))
    with WorkerProcess(request, cache, limits) if here else _in_process(base, request, cache) as worker:
        spec = (known.recall(request, cache) if here else None) or worker.spec
        left = estimate(inventory, spec, cache, views)
        plans = [part.todo for part in (left, left.views) if part is not None and part.to_compute]
        if not plans:
            return left
        task = sample(plans[0])
        with progress.bar("sample", len(task.keys)) as bar:
            trial = worker.attempt(opened, task, bar.update)
        return replace(left, prediction=predict(plans, spec, trial, scanned))


def _in_process(model: Any, request: BaseRequest, cache: Cache) -> Worker:
    from bottleneck.bases.load import load_model
    from bottleneck.extraction.forward import KerasForward, batch_for

    return Worker(KerasForward(load_model(model, request), batch_for(request, cache)), cache)
