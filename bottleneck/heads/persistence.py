"""Save and load a head: ``head.json`` and ``head.npz``.

The reader knows every shape from the head's settings before it opens the arrays, and asks the loaded head about a fixed
probe batch whose logits were recorded when it was saved.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
from pydantic import Field

from bottleneck import catalog
from bottleneck.errors import HeadError, UnknownName
from bottleneck.heads.head_arrays import most_bytes, pack_arrays, shorten, unpack_arrays
from bottleneck.schema import Frozen, HeadSpec, strict_json
from bottleneck.system.durable import publish

DOCUMENT, ARRAYS = "head.json", "head.npz"

#: 2: facts say which solver ran, on which rows and how well. Format 1 is read; these facts are then None.
FORMAT: Final = 2

#: Largest ``head.json`` that is read: room for 100,000 classes of long names.
MAX_DOCUMENT = 64 << 20

PROBE_SEED, PROBE_ROWS = 20_240_229, 8

#: How far the replayed probe may lie from the recorded one, relative to its largest logit: another CPU's rounding.
PROBE_TOLERANCE = 1e-5


class ArrayFacts(Frozen):
    """One array as the document declares it."""

    shape: tuple[int, ...]
    dtype: Literal["float32"]


class HeadDocument(Frozen):
    """``head.json``: everything about a saved head but its weights."""

    format: Literal[1, 2] = FORMAT
    spec: HeadSpec
    recipe: str
    state: Mapping[str, Any]
    arrays: Mapping[str, ArrayFacts]
    npz_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    npz_bytes: int = Field(ge=0)
    probe: tuple[tuple[float, ...], ...]

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of the rows it was fitted on."""
        return tuple(self.state["feature_shape"])

    @property
    def classes(self) -> tuple[Any, ...]:
        """Its labels in order."""
        return tuple(self.state["classes"])


def save_head(
    head: Any,
    spec: HeadSpec,
    folder: Path,
    *,
    recipe: str,
    feature_shape: tuple[int, ...],
    classes: Sequence[Any],
) -> HeadDocument:
    """Write a fitted head into `folder`, or replace an older one.

    The bytes depend on the head alone: no dates, no machine.

    Parameters
    ----------
    head : Head
        Fitted.
    spec : HeadSpec
        The catalog name and settings it was made from.
    folder : Path
        Must exist.
    recipe : str
        Fingerprint of the features it was fitted on.
    feature_shape : tuple of int
    classes : sequence
        What the caller holds the head to be; compared with the head's own.

    Raises
    ------
    HeadError
        The head was fitted on other rows or classes than given; labels JSON cannot hold; weights that are not finite.
    UnknownName
        A head that is not in the catalog.

    Examples
    --------
    >>> import tempfile
    >>> from bottleneck.heads.make import make
    >>> spec = HeadSpec(name="logistic")
    >>> head = make(spec).fit(np.eye(4, dtype="float32"), ["a", "b", "a", "b"])
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = save_head(head, spec, folder, recipe="0" * 64, feature_shape=(4,), classes=["a", "b"])
    >>> loaded, document = load_head(folder, recipe="0" * 64)
    >>> loaded.predict(np.eye(4, dtype="float32")).tolist(), document.classes
    (['a', 'b', 'a', 'b'], ('a', 'b'))
    """
    kind = catalog.load("head", catalog.HEADS, spec.name)
    if type(head) is not kind:
        raise HeadError(f"expected a head {spec.name!r} ({kind.__name__}), got {type(head).__name__}")
    state, arrays = head.state()
    _check_same("rows of shape", tuple(feature_shape), tuple(state["feature_shape"]))
    _check_same("classes", list(classes), list(state["classes"]))
    kind.restore(state, arrays)  # what cannot be read back is not written
    packed = pack_arrays(arrays)
    document = HeadDocument(
        spec=HeadSpec(name=spec.name, settings=state["settings"]),
        recipe=recipe,
        state=state,
        arrays={name: ArrayFacts(shape=array.shape, dtype="float32") for name, array in arrays.items()},
        npz_sha256=hashlib.sha256(packed).hexdigest(),
        npz_bytes=len(packed),
        probe=tuple(tuple(float(x) for x in row) for row in head.logits(probe_rows(tuple(feature_shape)))),
    )
    text = json.dumps(document.model_dump(mode="json"), indent=1, allow_nan=False).encode("ascii") + b"\n"
    publish(folder / ARRAYS, packed, replace=True)
    publish(folder / DOCUMENT, text, replace=True)
    return document


def load_head(
    folder: Path,
    *,
    recipe: str | None = None,
    feature_shape: tuple[int, ...] | None = None,
    classes: Sequence[Any] | None = None,
) -> tuple[Any, HeadDocument]:
    """Read a head back, its weights bit for bit.

    Parameters
    ----------
    folder : Path
    recipe, feature_shape, classes : optional
        What the caller is about to use it on; None is not compared.

    Returns
    -------
    head : Head
    document : HeadDocument

    Raises
    ------
    HeadError
        A missing, damaged, foreign or hostile file; a head for other features or classes than asked for (both
        fingerprints are named); a probe batch that no longer gives the recorded logits.
    """
    document = _document(folder / DOCUMENT)
    advice = "give the features it was trained on, or train a head on these"
    if recipe is not None:
        _check_same("features of the recipe", recipe, document.recipe, advice)
    head, layout = _prepare(folder / DOCUMENT, document)
    if feature_shape is not None:
        _check_same("rows of shape", tuple(feature_shape), head.feature_shape_, advice)
    if classes is not None:
        _check_same("classes", list(classes), list(document.classes), advice)
    arrays = _arrays(folder / ARRAYS, document, layout)
    head = type(head).restore(_state(type(head), document), arrays)
    _replay(folder / DOCUMENT, head, document)
    return head, document


def probe_rows(feature_shape: tuple[int, ...]) -> np.ndarray:
    """Draw the fixed batch (8, *shape) a saved head is asked."""
    return np.random.default_rng(PROBE_SEED).standard_normal((PROBE_ROWS, *feature_shape), dtype=np.float32)


def _check_same(what: str, asked: Any, fitted: Any, advice: str = "fit it on these") -> None:
    if asked != fitted:
        raise HeadError(
            f"expected {what} {shorten(asked)}, but the head was fitted on {shorten(fitted)}: {advice}"
        )


def _read(path: Path, most: int) -> bytes:
    """Read at most `most` bytes; never wait on a pipe."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise HeadError(
            f"{path}: cannot be read ({error.strerror}): expected a head saved by `train`"
        ) from error
    if data is None or len(data) > most:
        raise HeadError(f"{path}: larger than the {most:,} bytes it may have: not a head saved by `train`")
    return data


def _document(path: Path) -> HeadDocument:
    try:
        value = strict_json.loads(_read(path, MAX_DOCUMENT), most_bytes=MAX_DOCUMENT)
        number = value.get("format") if isinstance(value, dict) else None
        if type(number) is int and number > FORMAT:
            raise HeadError(
                f"{path}: format {number}, written by a newer bottleneck; this one reads up to {FORMAT}: upgrade"
            )
        return strict_json.validate(HeadDocument, value)
    except (strict_json.MalformedDocument, RecursionError) as error:
        raise HeadError(
            f"{path}: not a head's document: {shorten(str(error))}; train the head again"
        ) from error


def _state(kind: Any, document: HeadDocument) -> Mapping[str, Any]:
    """Read a state of format 1 too; missing facts are None."""
    state, facts = document.state, document.state.get("facts")
    if document.format > 1 or not isinstance(facts, Mapping):
        return state
    unknown = [name for name, types in kind.FACTS.items() if type(None) in get_args(types)]
    return {**state, "facts": dict.fromkeys(unknown) | dict(facts)}


def _prepare(path: Path, document: HeadDocument) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """Prepare the head without weights, and its arrays' shapes."""
    try:
        kind = catalog.load("head", catalog.HEADS, document.spec.name)
        head, layout = kind.prepare(_state(kind, document))
    except (HeadError, UnknownName) as error:
        raise HeadError(f"{path}: {error}") from error
    except RecursionError as error:
        raise HeadError(f"{path}: nested too deeply; train the head again") from error
    declared = {name: facts.shape for name, facts in document.arrays.items()}
    if declared != layout:
        raise HeadError(
            f"{path}: declares arrays {shorten(declared)}, but its settings ask for {shorten(layout)}; "
            "train the head again"
        )
    if document.spec.settings != document.state["settings"]:
        raise HeadError(f"{path}: names other settings than its state holds; train the head again")
    expected = (PROBE_ROWS, len(head.classes_))
    if len(document.probe) != expected[0] or {len(row) for row in document.probe} != {expected[1]}:
        raise HeadError(f"{path}: the recorded probe is not of shape {expected}; train the head again")
    return head, layout


def _replay(path: Path, head: Any, document: HeadDocument) -> None:
    expected = np.array(document.probe)
    with np.errstate(all="ignore"):  # weights at the edge of float32 overflow: then the comparison is false
        off = np.abs(head.logits(probe_rows(head.feature_shape_)) - expected).max()
    if not off <= PROBE_TOLERANCE * max(np.abs(expected).max(), 1e-6):
        raise HeadError(
            f"{path}: the probe batch gives logits {off:.3g} away from those recorded when the head was saved "
            f"(largest {np.abs(expected).max():.3g}): document and weights are not of one head; train it again"
        )


def _arrays(
    path: Path, document: HeadDocument, layout: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    most = most_bytes(layout)
    if document.npz_bytes > most:
        raise HeadError(f"{path}: declared to have {document.npz_bytes:,} bytes, expected at most {most:,}")
    data = _read(path, document.npz_bytes)
    if hashlib.sha256(data).hexdigest() != document.npz_sha256:
        raise HeadError(
            f"{path}: sha256 is not {document.npz_sha256}, which {DOCUMENT} names: the file was changed or belongs to "
            "another head; restore it or train the head again"
        )
    return unpack_arrays(path, data, layout)
