"""The trip, one function a stage: the Python API, which the command line calls and nothing else."""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bottleneck import runs
from bottleneck.bases.custom import is_file, is_function
from bottleneck.errors import UnknownName, UsageError
from bottleneck.extraction.fill import Extraction, check_bad, fill, refuse_bad
from bottleneck.extraction.worker import Worker
from bottleneck.images import scan as scanning
from bottleneck.images.split import split as split_images
from bottleneck.images.trainable import check_trainable
from bottleneck.options import (
    Options,
    PathLike,
    Session,
    cache_at,
    options_of_run,
    progress_of,
    request_of,
    versions,
)
from bottleneck.progress import Progress, Silent
from bottleneck.schema import (
    BaseRequest,
    BaseSpec,
    Cache,
    HeadSpec,
    Inventory,
    Run,
    SplitPolicy,
    parse,
)
from bottleneck.sources.open import open_source
from bottleneck.store.join import Features, join
from bottleneck.store.read import Store
from bottleneck.store.takeout import Format, take_out

if TYPE_CHECKING:
    from typing import Unpack

    from bottleneck.heads.metrics import Metrics
    from bottleneck.models.deliver import Delivery
    from bottleneck.predicting import Predictions


@dataclass(frozen=True, eq=False)
class Trained:
    """What `train` gives: the run's folder, the figures, and what was worth saying before it began."""

    folder: runs.RunFolder
    extraction: Extraction
    advice: tuple[str, ...]
    counts: Mapping[str, int]

    @property
    def metrics(self) -> Mapping[str, Metrics]:
        """Figures by split."""
        return self.folder.figures.by_split


def base_named(name: str) -> BaseSpec:
    """One base of the catalog. Raises `UnknownName` with the nearest ones."""
    from bottleneck.bases import specs

    known = specs()
    if name.lower() not in known:
        raise UnknownName("base", name, known, "or give FILE.keras or module:function")
    return known[name.lower()]


def list_bases() -> list[BaseSpec]:
    """Every base of the catalog, with sizes, cuts and shapes; builds none of them."""
    from bottleneck.bases import specs

    return list(specs().values())


def scan(
    source: PathLike, *, cache: PathLike | None = None, rehash: bool = False, progress: Progress | None = None
) -> Inventory:
    """Which images `source` holds, by content.

    Parameters
    ----------
    source : path
        A folder, a CSV or Parquet table, a zip or a tar file.
    cache : path, optional
        Where the index of earlier scans lies.
    rehash : bool
        Read every file, whatever the index says.
    progress : Progress, optional
    """
    return scanning.scan(
        open_source(source), cache_at(cache).scans, rehash=rehash, progress=progress or Silent()
    )


def extract(source: PathLike, base: Any, **options: Unpack[Options]) -> Extraction:
    """Run every image that the store lacks once through the base.

    Parameters
    ----------
    source : path
        A folder with one sub-folder a class, ``train/ val/ test/`` of these, a flat folder, a CSV or Parquet table
        ``path,label[,group,split]``, a zip or a WebDataset tar.
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
    report, _, _ = _filled(source, base, options)
    return report


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
        ``X`` (n, *shape), ``y``, ``keys``, ``groups``, ``paths``, ``splits`` in path order.
    """
    _, inventory, store = _filled(source, base, options)
    rows = join(store, inventory)
    if out is not None:
        take_out(rows, Path(out), format)
    return rows


def train(
    source: PathLike,
    base: Any,
    head: str = "logistic",
    *,
    run: PathLike,
    settings: Mapping[str, Any] | None = None,
    validation: float = 0.2,
    split: Literal["hash", "exact"] = "hash",
    folds: int | None = None,
    seed: int = 0,
    told: Callable[[str], None] = lambda _: None,
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
    split : {"hash", "exact"}
        How they are chosen.
    folds : int, optional
        Cross-validate too, with a fresh head for each fold.
    seed : int
    told : callable
        Hears advice before the training begins.

    Returns
    -------
    Trained

    Raises
    ------
    SourceError, UsageError
        No labels, one class, nothing to train on; the known layouts are named.
    """
    from bottleneck.heads.make import capacity_advice, count_parameters, make
    from bottleneck.heads.training import fit_and_measure

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
    report, inventory, store = _filled(source, base, options, examine=lambda found: _divided(found, policy))
    rows, splits, told_now = _labelled(join(store, inventory), inventory, policy)
    samples = int((splits == "train").sum())
    classes = tuple(sorted(set(rows.y[splits == "train"])))
    advice = list(told_now)
    _, trainable = count_parameters(spec, store.spec.shape, len(classes))
    capacity = capacity_advice(trainable, samples)
    if capacity:
        advice.append(capacity)
    for text in advice:
        told(text)
    started = time.perf_counter()
    fitted, by_split, fold_figures = fit_and_measure(
        unfitted, rows, splits, classes, folds=folds, seed=seed, progress=options.get("progress") or Silent()
    )
    figures = runs.Figures(by_split=by_split, folds=fold_figures, seconds=time.perf_counter() - started)
    record = Run(
        name=folder.name,
        source=open_source(source).location,
        cache=str(cache_at(options.get("cache")).root),
        request=request_of(base, options),
        spec=store.spec,
        head=spec,
        split=policy,
        classes=classes,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions=versions(),
    )
    with runs.replacing(folder):
        runs.write_table(folder, rows, splits)
        runs.write(folder, record, figures, fitted)
    counts = {name: int((splits == name).sum()) for name in ("train", "validation", "test")}
    return Trained(runs.read(folder), report, tuple(advice), counts)


def evaluate(
    run: PathLike,
    source: PathLike | None = None,
    *,
    told: Callable[[str], None] = lambda _: None,
    **session: Unpack[Session],
) -> dict[str, Metrics]:
    """Figures of a run's head: on its own images as they were split, or on all images of another source.

    Parameters
    ----------
    run : path
        A run's folder.
    source : path, optional
        Other images, with labels.
    told : callable
        Hears which images are missing or of a class that the head does not know.
    **session
        See `Session`.

    Returns
    -------
    dict of str to Metrics
        By split; a `source` of its own gives one entry ``all`` (or its splits, when it names them).
    """
    from bottleneck.heads.training import measure_splits

    folder = runs.read(run)
    rows, splits = _rows_of(folder, source, told, session)
    return measure_splits(folder.head(), rows, splits, folder.run.classes)


def predict(run_or_model: PathLike, source: PathLike, **session: Unpack[Session]) -> Predictions:
    """Class probabilities for every image of `source`, from a run (through the cache) or a merged `.keras` file.

    Returns
    -------
    Predictions
        One row for each image-like file, in path order; rejected ones carry a reason instead of probabilities.
    """
    from bottleneck import predicting

    path = Path(run_or_model)
    # A bad image has a line of its own here, with the reason: by default that is answer enough.
    session = {"max_bad": 1.0, **session}
    if path.is_file():
        inventory = scan_for(source, session)
        refuse_bad(len(inventory) + len(inventory.unreadable), (), inventory.ignored, 1.0, "")
        found = predicting.with_model(path, inventory, open_source(source), progress_of(session))
        refuse_bad(len(found), found.problems, inventory.ignored, session["max_bad"], "have no prediction")
        return found
    if path.suffix == ".keras":
        raise UsageError(f"{path}: there is no such file; make one with `bottleneck merge RUN --out {path}`")
    folder = runs.read(path)
    report, inventory, store = _filled(source, folder.run.request, options_of_run(folder.run, session))
    return predicting.with_head(folder.head(), folder.run.classes, inventory, store, report.rejections)


def merge(run: PathLike, out: PathLike, **session: Unpack[Session]) -> Delivery:
    """One `keras.Model` from image to probabilities, certified equal to the run's cached head, at `out`.

    Beside it lie ``decode.py`` (the pixel contract as one file) and ``<name>.parity.json``.

    Raises
    ------
    ParityError
        Some form differs, or the comparison has no power; nothing is written then.
    """
    from bottleneck.models.deliver import deliver

    folder = runs.read(run)
    target = Path(out)
    if target.suffix != ".keras":
        raise UsageError(f"--out {target}: a merged model is a Keras file; give it the ending .keras")
    where = cache_at(session.get("cache") or folder.run.cache)
    return deliver(folder, target, where, progress_of(session))


# ------------------------------------------------------------------------------------------------ inner parts


def scan_for(source: PathLike, session: Session) -> Inventory:
    """`scan` with a session's options."""
    return scan(
        source,
        cache=session.get("cache"),
        rehash=session.get("rehash", False),
        progress=progress_of(session),
    )


def _filled(
    source: PathLike,
    base: Any,
    options: Options,
    *,
    examine: Callable[[Inventory], object] = lambda _: None,
) -> tuple[Extraction, Inventory, Store]:
    """Extract what is missing; `examine` may refuse what the scan found before anything is computed."""
    opened = open_source(source)
    cache = cache_at(options.get("cache"))
    progress = options.get("progress") or Silent()
    rehash = options.get("rehash", False)
    request = request_of(base, options)
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
        report, inventory, store = fill(opened, scanned, request, cache, progress, worker=worker)
    check_bad(report, options.get("max_bad", 0.01))
    return report, inventory, store


def _in_process(model: Any, request: BaseRequest, cache: Cache) -> Worker:
    from bottleneck.bases.load import load_model
    from bottleneck.extraction.forward import KerasForward, batch_for

    return Worker(KerasForward(load_model(model, request), batch_for(request, cache)), cache)


def _divided(inventory: Inventory, policy: SplitPolicy) -> tuple[np.ndarray, tuple[str, ...]]:
    """The split of each image, and what is to be said. Raises when there is nothing to learn from."""
    splits = split_images(inventory, policy)
    return splits, check_trainable(inventory, splits, validated=policy.validation > 0)


def _labelled(
    rows: Features, inventory: Inventory, policy: SplitPolicy
) -> tuple[Features, np.ndarray, list[str]]:
    """Rows that can be learnt from, the split of each, and what is to be said about the others."""
    there = np.isin(
        inventory.keys.view("V32").ravel(), np.unique(rows.keys.view("V32").ravel()) if len(rows) else []
    )
    inventory = replace(inventory, table=inventory.table.filter(there))
    splits, told = _divided(inventory, policy)
    labelled = np.array([label is not None for label in rows.y], bool)
    return rows.where(labelled), np.asarray(splits, object)[labelled], list(told)


def _rows_of(
    folder: runs.RunFolder, source: PathLike | None, told: Callable[[str], None], session: Session
) -> tuple[Features, np.ndarray]:
    """Rows to measure on: the run's own frozen table by content, or all labelled images of another source."""
    from bottleneck.store.read import open_store

    options = options_of_run(folder.run, session)
    if source is None:
        inventory = folder.inventory()
        store = open_store(cache_at(options["cache"]), folder.run.spec)
        if not store.known(inventory.keys).all():
            _, _, store = _filled(folder.run.source, folder.run.request, options)
    else:
        _, inventory, store = _filled(source, folder.run.request, options)
    rows = join(store, inventory)
    if source is None and len(rows) < len(inventory):
        lost = f"{len(inventory) - len(rows):,} of the run's {len(inventory):,} images"
        told(f"{lost} are neither stored nor at {folder.run.source} any more: the figures are of the others")
    rows = rows.where(np.array([label is not None for label in rows.y], bool))
    if not len(rows):
        raise UsageError(
            f"{source or folder.run.source} has no labelled images to measure on; `bottleneck predict` needs no labels"
        )
    strange = [label for label in rows.y if label not in folder.run.classes]
    if strange:
        told(
            f"{len(strange):,} images are of classes that the head does not know and count as wrong: "
            f"{', '.join(map(repr, sorted(set(strange))[:5]))}"
        )
    return rows, np.array([name or "all" for name in rows.splits], object)
