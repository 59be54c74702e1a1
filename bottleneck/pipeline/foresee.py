"""What an extraction would do, and how long it would take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bottleneck.bases import digest_cache
from bottleneck.extraction.forecast.estimate import Estimate, estimate
from bottleneck.extraction.forecast.forecast import forecast_run, sample_task
from bottleneck.extraction.forecast.recommend import Machine
from bottleneck.extraction.worker.messages import Open
from bottleneck.extraction.worker.process import WorkerProcess
from bottleneck.pipeline.extract import worker_here
from bottleneck.pipeline.session import Options, PathLike, Request, Session, refuse_unknown

if TYPE_CHECKING:
    from typing import Unpack

    from bottleneck.contracts import Source


def foresee(source: PathLike, base: Any, **options: Unpack[Options]) -> Estimate:
    """Estimate what `extract` with the same arguments would do; write nothing.

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
    refuse_unknown(foresee, options, Options)
    session, request = Session.parse(options), Request.parse(base, options)
    return _foresee(session.open(source), request, session)[0]


def foresee_cuts(
    source: PathLike, base: Any, cuts: Sequence[str], **options: Unpack[Options]
) -> dict[str, Estimate]:
    """Estimate what `extract_cuts` with the same arguments would do.

    Returns
    -------
    dict of str to Estimate
        Each with the bytes of its cut, and the time of the whole pass.
    """
    refuse_unknown(foresee_cuts, options, Options)
    session, request = Session.parse(options), Request.parse(base, options, cuts)
    return dict(zip(cuts, _foresee(session.open(source), request, session), strict=True))


def _foresee(images: Source, request: Request, session: Session) -> list[Estimate]:
    cache, in_process = session.cache, request.model is not None
    recalled = [None if in_process else digest_cache.recall_digests(base, cache) for base in request.bases]
    started = time.perf_counter()
    with (
        worker_here(images, request, cache)
        if in_process
        else WorkerProcess(Open(images, tuple(request.bases), cache), session.limits) as worker
    ):
        if isinstance(worker, WorkerProcess) and None in recalled:
            worker.begin()  # as the run will
        inventory = session.scan(images, keep=False)
        specs = [spec or worker.specs[number] for number, spec in enumerate(recalled)]
        ready = time.perf_counter() - started
        estimates = [estimate(inventory, spec, cache, session.limits, request.views) for spec in specs]
        plans = [
            [part.todo for part in (left, left.views) if part is not None and part.to_compute]
            for left in estimates
        ]
        longest = max(plans, key=lambda parts: sum(todo.images for todo in parts))
        if not longest:
            return estimates
        task = sample_task(longest[0])
        with session.progress.bar("sample", len(task.keys)) as bar:
            trial = worker.attempt(task, bar.update)
        machine = Machine.here()
        return [
            replace(left, prediction=forecast_run(longest, left.spec, trial, ready, machine))
            if parts
            else left
            for left, parts in zip(estimates, plans, strict=True)
        ]
