"""A run's model as one Keras file or many artefacts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bottleneck import runs
from bottleneck.errors import UsageError
from bottleneck.pipeline.session import PathLike, Session, SessionOptions, refuse_unknown
from bottleneck.schema import Score
from bottleneck.system.objects import local_path

if TYPE_CHECKING:
    from typing import Unpack

    from bottleneck.exports.export import Exported
    from bottleneck.exports.merged_file import MergedModel


def merge(
    run: PathLike, out: PathLike, *, score: Score | None = None, **options: Unpack[SessionOptions]
) -> MergedModel:
    """Write one certified Keras model from image to probabilities.

    Beside it lie ``decode.py`` (the pixel contract as one file) and ``<name>.parity.json``.

    Parameters
    ----------
    run : path
        A run's folder.
    out : path
        The ``.keras`` file.
    score : {"energy"}, optional
        A second output that says how little the head knows an image: low for images like those it learnt from.
    **options
        See `SessionOptions`.

    Raises
    ------
    ParityError
        Some form differs, or the comparison has no power; nothing is written then.
    """
    from bottleneck.exports.merged_file import write_merged

    refuse_unknown(merge, options, SessionOptions)
    target = local_path(out, "--out")
    folder = runs.open_run(run, options)
    session = Session.parse(options, cache=folder.run.cache)
    if target.suffix != ".keras":
        raise UsageError(f"--out {target}: a merged model is a Keras file; give it the ending .keras")
    return write_merged(folder, target, session.cache, session.progress, score=score)


def export(
    run: PathLike,
    out: PathLike,
    formats: Sequence[str] = ("keras",),
    *,
    gate: float = 0.97,
    images: int = 256,
    score: Score | None = None,
    **options: Unpack[SessionOptions],
) -> Exported:
    """Write artefacts of a run's model, each proved without this package.

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
        At most as many of the run's images are compared on, those that it did not learn from first.
    score : {"energy"}, optional
        As for `merge`.
    **options
        See `SessionOptions`.

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
    from bottleneck.exports import export as exporting

    refuse_unknown(export, options, SessionOptions)
    if not 0.0 <= gate <= 1.0:
        raise UsageError(f"--gate {gate:g}: a share of first choices lies between 0 and 1")
    if images < 1:
        raise UsageError(f"--images {images}: at least one image must be compared on")
    target = local_path(out, "--out")
    folder = runs.open_run(run, options)
    session = Session.parse(options, cache=folder.run.cache)
    return exporting.export_artefacts(
        folder, target, formats, session.cache, session.progress, gate=gate, images=images, score=score
    )
