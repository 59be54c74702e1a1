"""The trip, one function a stage: the Python API, which the command line calls and nothing else."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottleneck import runs
from bottleneck.errors import UsageError
from bottleneck.exports.together import settle
from bottleneck.extraction.report import Extraction, refuse_bad
from bottleneck.filling import (
    base_named,
    filled,
    filled_cuts,
    foresee,
    foresee_cuts,
    opened,
    scan,
    scan_for,
    views_store,
)
from bottleneck.finetuning import FineTuned, check_tuning, finetune
from bottleneck.objects import local
from bottleneck.options import Options, PathLike, Session, cache_of, options_of_run, progress_of, views_of
from bottleneck.schema import BaseSpec, Score
from bottleneck.store.join import Features, join
from bottleneck.store.takeout import Format, check_out, take_out
from bottleneck.training import Trained, evaluate, train

if TYPE_CHECKING:
    from typing import Unpack

    from bottleneck.models.deliver import Delivery
    from bottleneck.models.exporting import Exported
    from bottleneck.predicting import Predictions

__all__ = [
    "FineTuned",
    "Session",
    "Trained",
    "base_named",
    "check_tuning",
    "evaluate",
    "export",
    "extract",
    "extract_cuts",
    "features",
    "finetune",
    "foresee",
    "foresee_cuts",
    "list_bases",
    "merge",
    "predict",
    "scan",
    "train",
]


def list_bases() -> list[BaseSpec]:
    """Every base of the catalog, with sizes, cuts and shapes; builds none of them."""
    from bottleneck.bases import specs

    return list(specs().values())


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


def predict(run_or_model: PathLike, source: PathLike, **session: Unpack[Session]) -> Predictions:
    """Class probabilities for every image of `source`, from a run (through the cache) or a merged `.keras` file.

    Returns
    -------
    Predictions
        One row for each image-like file, in path order; rejected ones carry a reason instead of probabilities.
    """
    from bottleneck import predicting

    path = Path(run_or_model)
    if path.suffix == ".keras" and not path.exists():
        settle(path.parent)  # a merge was killed in the midst of giving its files their names
    # A bad image has a line of its own here, with the reason: by default that is answer enough.
    session = {"max_bad": 1.0, **session}
    if path.is_file():
        inventory = scan_for(source, session)
        refuse_bad(len(inventory) + len(inventory.unreadable), (), inventory.ignored, 1.0, "")
        images = opened(source, session)
        found = predicting.with_model(path, inventory, images, progress_of(session))
        refuse_bad(len(found), found.problems, inventory.ignored, session["max_bad"], "have no prediction")
        return found
    if path.suffix == ".keras":
        raise UsageError(f"{path}: there is no such file; make one with `bottleneck merge RUN --out {path}`")
    folder = runs.read(path, session.get("allow_host", ()))
    report, inventory, store = filled(source, folder.run.request, options_of_run(folder.run, session))
    runs.check_base(folder.run, store.spec, any_precision=True)
    again = functools.partial(opened, source, session)
    return predicting.with_head(folder.head(), folder.run.classes, inventory, store, report.rejections, again)


def merge(
    run: PathLike, out: PathLike, *, score: Score | None = None, **session: Unpack[Session]
) -> Delivery:
    """One `keras.Model` from image to probabilities, certified equal to the run's cached head, at `out`.

    Beside it lie ``decode.py`` (the pixel contract as one file) and ``<name>.parity.json``.

    Parameters
    ----------
    run : path
        A run's folder.
    out : path
        The ``.keras`` file.
    score : {"energy"}, optional
        A second output that says how little the head knows an image: low for images like those it learnt from.
    **session
        See `Session`.

    Raises
    ------
    ParityError
        Some form differs, or the comparison has no power; nothing is written then.
    """
    from bottleneck.models.deliver import deliver

    target = local(out, "--out")
    folder = runs.read(run, session.get("allow_host", ()))
    if target.suffix != ".keras":
        raise UsageError(f"--out {target}: a merged model is a Keras file; give it the ending .keras")
    where = cache_of(options_of_run(folder.run, session))
    return deliver(folder, target, where, progress_of(session), score=score)


def export(
    run: PathLike,
    out: PathLike,
    formats: Sequence[str] = ("keras",),
    *,
    gate: float = 0.97,
    images: int = 256,
    score: Score | None = None,
    **session: Unpack[Session],
) -> Exported:
    """A folder of artefacts of a run's model, each run by a process without this package and proved equal.

    Parameters
    ----------
    run : path
        A run's folder.
    out : path
        A new folder, an empty one, or one that an earlier export made, which is replaced in one step at the end.
    formats : sequence of str
        ``keras``, ``saved_model``, ``litert``, ``litert-float16``, ``litert-dynamic``, ``litert-int16x8``,
        ``litert-int8``, ``onnx``, ``openvino``; or ``all``, which leaves out those whose libraries are not installed.
    gate : float
        A kind that rounds (the last four of LiteRT) is delivered when it names the cached head's first choice for
        this share of the run's images, and else refused by name.
    images : int
        Up to so many of the run's images are compared on, those that it did not learn from first.
    score : {"energy"}, optional
        As for `merge`.
    **session
        See `Session`.

    Returns
    -------
    Exported

    Raises
    ------
    ParityError
        A form differs, or the comparison has no power. Nothing is delivered, as with every other error.
    ExportError, HeadError, BaseError, UsageError

    Examples
    --------
    >>> done = export("runs/digits", "digits-export", ["keras", "onnx"])  # doctest: +SKIP
    >>> [(item.kind, item.bytes) for item in done.manifest.artefacts]  # doctest: +SKIP
    [('keras', 2972034), ('onnx', 2917542)]
    """
    from bottleneck.models import exporting

    if not 0.0 <= gate <= 1.0:
        raise UsageError(f"--gate {gate:g}: a share of first choices lies between 0 and 1")
    if images < 1:
        raise UsageError(f"--images {images}: at least one image must be compared on")
    target = local(out, "--out")
    folder = runs.read(run, session.get("allow_host", ()))
    where = cache_of(options_of_run(folder.run, session))
    progress = progress_of(session)
    return exporting.export(folder, target, formats, where, progress, gate=gate, images=images, score=score)
