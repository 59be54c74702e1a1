"""Probabilities for images, by a run or by a merged model."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bottleneck import runs
from bottleneck.bases.weight_copy import plain_copy
from bottleneck.contracts import Source
from bottleneck.errors import BaseError, Rejected, UsageError
from bottleneck.exports.keras_archive import read_document
from bottleneck.extraction.report import refuse_bad
from bottleneck.models.outputs import ENERGY
from bottleneck.pipeline.extract import extract_missing
from bottleneck.pipeline.session import (
    PathLike,
    Request,
    Session,
    SessionOptions,
    refuse_unknown,
)
from bottleneck.pixels import header
from bottleneck.pixels.reasons import reason_for
from bottleneck.schema import Inventory, Pixels, Rejection
from bottleneck.sources.reading import reason_of
from bottleneck.store.read import Store
from bottleneck.system.durable import shown
from bottleneck.system.file_set import settle
from bottleneck.system.progress import Progress

if TYPE_CHECKING:
    from typing import Unpack

_BATCH = 32

#: Rows of the store that a head is asked about at a time.
_GATHER = 4096


@dataclass(frozen=True, eq=False)
class Predictions:
    """One row for each image-like file, in path order.

    Attributes
    ----------
    paths : tuple of bytes
    probabilities : numpy.ndarray
        (n, k) float32; NaN where the image was rejected.
    classes : tuple of str
    errors : tuple of str
        Empty where there are probabilities.
    energy : numpy.ndarray or None
        (n,) float32, by a model that was merged with this score; NaN as above.
    """

    paths: tuple[bytes, ...]
    probabilities: np.ndarray
    classes: tuple[str, ...]
    errors: tuple[str, ...]
    energy: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def problems(self) -> list[str]:
        """Which images have no probabilities, and why."""
        bad = zip(self.paths, self.errors, strict=True)
        return [f"{shown(path)}: {error}" for path, error in bad if error]

    @property
    def labels(self) -> list[str | None]:
        """The likeliest class of each, None where the image was rejected."""
        return [
            None if error else self.classes[int(row.argmax())]
            for row, error in zip(self.probabilities, self.errors, strict=True)
        ]

    def to_json(self) -> dict[str, Any]:
        """Give the predictions for a program."""
        return {
            "classes": list(self.classes),
            "predictions": [json.loads(line) for line in self.lines("jsonl")],
        }

    def lines(self, kind: str) -> Iterator[bytes]:
        """Write as CSV with a header line, or as JSON lines.

        Paths keep their bytes. A class whose name is that of another column is written as ``class NAME`` in the header.
        """
        scores = [[]] * len(self) if self.energy is None else [[float(value)] for value in self.energy]
        rows = zip(self.paths, self.labels, self.probabilities, self.errors, scores, strict=True)
        if kind == "csv":
            first, last = (
                ["path", "label", "probability"],
                ["error"] if self.energy is None else ["energy", "error"],
            )
            yield _csv_line([*first, *_distinct(self.classes, {*first, *last}), *last])
            for path, label, chances, error, score in rows:
                top = "" if label is None else f"{chances.max():.6g}"
                each = ["" if label is None else f"{p:.6g}" for p in (*chances, *score)]
                yield _csv_line([os.fsdecode(path), label or "", top, *each, error])
        else:
            for path, label, chances, error, score in rows:
                document: dict[str, Any] = {"path": os.fsdecode(path), "label": label}
                if label is None:
                    document["error"] = error
                else:
                    document["probabilities"] = dict(
                        zip(self.classes, (float(f"{p:.7g}") for p in chances), strict=True)
                    )
                    if score:
                        document["energy"] = float(f"{score[0]:.7g}")
                yield json.dumps(document).encode("ascii") + b"\n"


def _distinct(classes: Sequence[str], taken: Set[str]) -> Iterator[str]:
    """Name the classes' columns so that each name is unique."""
    for name in classes:
        column = name
        while column in taken or (column != name and column in classes):
            column = f"class {column}"
        yield column


def _csv_line(cells: list[str]) -> bytes:
    buffer = io.StringIO()
    # Its own line ends make the writer quote both halves of them; older Pythons else leave \r bare in a name.
    csv.writer(buffer, lineterminator="\r\n").writerow(cells)
    return buffer.getvalue()[:-2].encode("utf-8", "surrogateescape") + b"\n"


def predict(run_or_model: PathLike, source: PathLike, **options: Unpack[SessionOptions]) -> Predictions:
    """Give class probabilities for every image of `source`.

    Parameters
    ----------
    run_or_model : path
        A run, which goes through the cache, or a merged `.keras` file.
    source : path
        As for `extract`.
    **options
        See `SessionOptions`.

    Returns
    -------
    Predictions
        One row for each image-like file, in path order; rejected ones carry a reason instead of probabilities.
    """
    refuse_unknown(predict, options, SessionOptions)
    path = Path(run_or_model)
    if path.suffix == ".keras" and not path.exists():
        settle(path.parent)  # a merge was killed in the midst of giving its files their names
    # A bad image has a line of its own here, with the reason: by default that is answer enough.
    options = {"max_bad": 1.0, **options}
    if path.is_file():
        session = Session.parse(options)
        images = session.open(source)
        inventory = session.scan(images)
        refuse_bad(len(inventory) + len(inventory.unreadable), (), inventory.ignored, 1.0, "")
        predictions = with_model(path, inventory, images, session.progress)
        refuse_bad(
            len(predictions), predictions.problems, inventory.ignored, session.max_bad, "have no prediction"
        )
        return predictions
    if path.suffix == ".keras":
        raise UsageError(f"{path}: there is no such file; make one with `bottleneck merge RUN --out {path}`")
    folder = runs.open_run(path, options)
    session = Session.parse(options, cache=folder.run.cache)
    images = session.open(source)
    (done,), inventory = extract_missing(images, Request((folder.run.request,)), session)
    runs.check_base(folder.run, done.store.spec, any_precision=True)
    return with_head(folder.head(), folder.run.classes, inventory, done.store, done.report.rejections, images)


def with_head(
    head: Any,
    classes: tuple[str, ...],
    inventory: Inventory,
    store: Store,
    rejections: Iterable[Rejection],
    source: Source,
) -> Predictions:
    """Predict from cached features, a part at a time."""
    positions = store.find(inventory.keys)
    found = np.full((len(inventory), len(classes)), np.nan, np.float32)
    there = np.flatnonzero(positions >= 0)
    # A gather at a time; a store's own rows stay on disk until then.
    rows = store.rows(positions[there])
    for start in range(0, len(there), _GATHER):
        part = slice(start, start + _GATHER)
        found[there[part]] = head.predict_proba(rows.select(part))
    # By content, where it is certain: two names may look the same once their bytes are written out.
    reasons = {r.content or r.path: f"{r.stage}: {r.reason}" for r in rejections}
    paths = inventory.table.column("path").to_pylist()

    def reason(row: int) -> str:
        by_path = reasons.get(paths[row].decode("utf-8", "backslashreplace"), "no features")
        return reasons.get(inventory.keys[row].tobytes().hex(), by_path)

    errors = ["" if position >= 0 else reason(row) for row, position in enumerate(positions)]
    return _with_unreadable(paths, found, classes, errors, inventory, source)


def with_model(path: Path, inventory: Inventory, source: Source, progress: Progress) -> Predictions:
    """Predict by a merged `.keras` file; nothing is cached.

    Raises
    ------
    BaseError
        Not a file that `bottleneck merge` wrote.
    """
    document = read_document(path)
    try:
        classes = tuple(str(name) for name in document["classes"])
        pixels = Pixels.model_validate(document["spec"]["recipe"]["pixels"])
    except (KeyError, TypeError, ValueError) as error:
        raise BaseError(
            f"{path}: its bottleneck.json lacks classes or the pixel contract ({error})"
        ) from error
    import keras
    import tensorflow as tf

    from bottleneck.pixels.contract.decode import decoder

    try:
        with plain_copy(path) as plain:
            model = keras.saving.load_model(plain, safe_mode=True, compile=False)
    except (ValueError, TypeError, OSError) as error:
        raise BaseError(f"{path} cannot be loaded: {error}") from error
    decode = decoder(pixels.height, pixels.width, pixels.resize)

    def image(name: bytes) -> np.ndarray | str:
        try:
            data = source.read(name)
            header.check_header(data)
            return np.asarray(decode(tf.constant(data)))
        except Rejected as why:
            return str(why)
        except OSError as error:
            return f"read: {reason_of(error)}"
        except tf.errors.OpError as error:
            return f"decode: {reason_for(error.message, data)}"

    paths = inventory.table.column("path").to_pylist()
    found = np.full((len(paths), len(classes)), np.nan, np.float32)
    scores = np.full(len(paths), np.nan, np.float32) if ENERGY in model.output_names else None
    errors = [""] * len(paths)
    with ThreadPoolExecutor() as pool, progress.bar("predict", len(paths)) as bar:
        for start in range(0, len(paths), _BATCH):
            batch = np.zeros((_BATCH, pixels.height, pixels.width, 3), np.float32)
            good = []
            for slot, result in enumerate(pool.map(image, paths[start : start + _BATCH])):
                if isinstance(result, str):
                    errors[start + slot] = result
                else:
                    batch[slot] = result
                    good.append(slot)
            answers = model.predict_on_batch(batch)
            places = [start + slot for slot in good]
            if scores is None:
                found[places] = answers[good]
            else:
                found[places], scores[places] = answers["probabilities"][good], answers[ENERGY][good]
            bar.update(min(_BATCH, len(paths) - start))
    return _with_unreadable(paths, found, classes, errors, inventory, source, scores)


def _with_unreadable(
    paths: list[bytes],
    probabilities: np.ndarray,
    classes: tuple[str, ...],
    errors: list[str],
    inventory: Inventory,
    source: Source,
    scores: np.ndarray | None = None,
) -> Predictions:
    lost = inventory.unreadable
    more = np.full((len(lost), len(classes)), np.nan, np.float32)
    everything = [*paths, *_names(inventory, source)]
    errors = [*errors, *(f"{r.stage}: {r.reason}" for r in lost)]
    order = sorted(range(len(everything)), key=everything.__getitem__)
    return Predictions(
        tuple(everything[i] for i in order),
        np.concatenate([probabilities, more])[order],
        classes,
        tuple(errors[i] for i in order),
        None if scores is None else np.concatenate([scores, more[:, 0]])[order],
    )


def _names(inventory: Inventory, source: Source) -> list[bytes]:
    """Give paths of unreadable files in bytes; their rejections have them escaped."""
    texts = [r.path for r in inventory.unreadable]
    if not any("\\" in text for text in texts):
        return [os.fsencode(text) for text in texts]
    wanted = set(texts)
    listed = {shown(entry.path): entry.path for entry in source.entries()}
    raw = {text: path for text, path in listed.items() if text in wanted}
    return [raw.get(text, os.fsencode(text)) for text in texts]
