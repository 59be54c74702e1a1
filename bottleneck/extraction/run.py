"""Filling stores: what is missing is planned, computed and committed; what is there costs nothing."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from bottleneck.contracts import Source
from bottleneck.extraction.filler import Filler, FillOptions
from bottleneck.extraction.report import Extraction
from bottleneck.extraction.worker.process import WorkerProcess
from bottleneck.schema import BaseRequest, Cache, Inventory
from bottleneck.store.read import Store
from bottleneck.system.progress import Progress

if TYPE_CHECKING:
    from typing import Unpack

#: Files may change while they are read, and rows may be removed: after so many rounds it is left for the next run.
_ROUNDS = 3


class Filled(NamedTuple):
    """A store that was filled, and what was done for it."""

    report: Extraction
    store: Store


def fill(
    source: Source,
    scan: Callable[[], Inventory],
    request: BaseRequest,
    cache: Cache,
    progress: Progress,
    **options: Unpack[FillOptions],
) -> tuple[Extraction, Inventory, Store]:
    """`fill_cuts` at one cut: what was done, the images as last scanned, and the store as it is after."""
    (done,), inventory = fill_cuts(source, scan, [request], cache, progress, **options)
    return done.report, inventory, done.store


def fill_cuts(
    source: Source,
    scan: Callable[[], Inventory],
    requests: Sequence[BaseRequest],
    cache: Cache,
    progress: Progress,
    **options: Unpack[FillOptions],
) -> tuple[tuple[Filled, ...], Inventory]:
    """Compute what the stores of `requests` lack of `source`, together with whoever else is at it.

    Images that several of the stores lack go through the base once for all of them. Where nothing is lacking, nothing
    is written.

    Parameters
    ----------
    source : Source
    scan : callable
        Gives the inventory as it is now; called again when files changed under way.
    requests : sequence of BaseRequest
        One base at one cut or at several: they differ in nothing else.
    cache : Cache
    progress : Progress
    **options
        See `FillOptions`.

    Returns
    -------
    tuple of Filled, Inventory
        For each request what was done and its store as it is after; the images as last scanned.

    Raises
    ------
    EngineError
        The team's workers cannot be had, or do not see source and store.
    StoreError
        There is something to compute, and the cache cannot be written to, or it or rows of it were removed meanwhile.
    WorkerDied
        Workers died of something that is no image's fault.
    """
    started = time.perf_counter()
    engine = contextlib.ExitStack()
    run = Filler(source, requests, cache, progress, options, engine)
    ended = "done"
    try:
        with WorkerProcess(requests, cache, options.get("limits")) as process, engine:
            run.begin(options.get("worker") or process)
            inventory = scan()
            run.specify(inventory)
            stores = run.open_stores()
            run.prove(inventory, stores)
            damaged = [dict(store.damaged) for store in stores]
            for look in itertools.islice(run.looks(), _ROUNDS):
                left = run.round(inventory, stores, look)
                if left is None:
                    break
                stores = run.open_stores()
                if not left(stores):
                    break
                before, inventory = inventory, scan()
            else:
                run.check_there()
                run.check_kept(before, inventory, stores)
            stores = run.try_again(inventory, stores)
        run.check_there()
        done = run.reports(inventory, stores, damaged, time.perf_counter() - started)
        run.settle(stores)
        return tuple(map(Filled, done, stores)), inventory
    except BaseException as error:
        ended = type(error).__name__
        # The worker is gone by now; what it was writing has no name.
        run.sweep()
        raise
    finally:
        run.log(ended, time.perf_counter() - started)
