"""Write one artefact: what all kinds share."""

from __future__ import annotations

import json
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib import resources, util
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bottleneck import catalog
from bottleneck.contracts import Exporter, Making, Reader
from bottleneck.errors import BottleneckError, ExportError, UsageError
from bottleneck.system.disk_errors import refusal
from bottleneck.system.staging import written_aside

#: Name of the document inside every artefact.
DOCUMENT = "bottleneck.json"

#: The class names alone, in the order of the columns.
LABELS = "labels.txt"

#: Every kind of the catalog whose libraries are installed.
ALL = "all"


class Artefact(ABC):
    """One kind of artefact, as `contracts.Exporter` says."""

    kind: ClassVar[str]
    name: ClassVar[str]
    tolerance: ClassVar[float | None] = 1e-4
    reader: ClassVar[Reader]
    takes_bytes: ClassVar[bool] = False
    live: ClassVar[bool] = False

    def write(self, model: Any, folder: Path, making: Making) -> Path:
        """As `contracts.Exporter.write`."""
        require_libraries(self.reader, self.kind)
        check_weights(model, self.kind)
        target = folder / self.name
        try:
            with written_aside(target) as aside:
                self.make(model, aside, making)
        except BottleneckError:
            raise
        except OSError as error:
            raise ExportError(
                f"{target} cannot be written: {refusal(error)}; nothing was put in its place"
            ) from error
        # Converters raise errors of every kind, for a full disk too, and none of them says which file it was about.
        except Exception as error:
            first = next((line for line in str(error).splitlines() if line.strip()), "it gives no reason")
            raise ExportError(
                f"{target} cannot be made: {type(error).__name__}: {first}; nothing was put in its place"
            ) from error
        return target

    @abstractmethod
    def make(self, model: Any, path: Path, making: Making) -> None:
        """Write `model` as `path`, in a temporary folder of its own."""


def check_weights(model: Any, kind: str) -> None:
    """Refuse a model of which a weight is not finite.

    Raises
    ------
    ExportError
        Names the weight.
    """
    for weight in model.weights:
        values = np.asarray(weight.value)
        bad = values.size - np.count_nonzero(np.isfinite(values))
        if bad:
            raise ExportError(
                f"{kind}: {bad:,} of {values.size:,} values of the weight {weight.path} are not finite, so nothing was "
                "written. Train again at a smaller rate, or load the base's weights anew"
            )


def load_exporters(kinds: Sequence[str]) -> tuple[list[Exporter], tuple[str, ...]]:
    """Load the exporters of these kinds, in the catalog's order.

    Also name the kinds that ``all`` leaves out because a library is missing.

    Raises
    ------
    UnknownName
        No such kind; the nearest are named.
    ExportError
        A kind was asked for by name, and its libraries are not installed.
    UsageError
        `kinds` is empty.

    Examples
    --------
    >>> [exporter.kind for exporter in load_exporters(["litert", "keras"])[0]]
    ['keras', 'litert']
    """
    named = {kind for kind in kinds if kind != ALL}
    if not kinds:
        raise UsageError(f"--format names no kind: give {ALL}, or some of {', '.join(catalog.EXPORTERS)}")
    for kind in named - catalog.EXPORTERS.keys():
        catalog.load("kind of artefact", catalog.EXPORTERS, kind)
    wanted = catalog.EXPORTERS if ALL in kinds else named
    chosen: list[Exporter] = [
        catalog.load("kind of artefact", catalog.EXPORTERS, kind)()
        for kind in catalog.EXPORTERS
        if kind in wanted
    ]
    for exporter in chosen:
        if exporter.kind in named:
            require_libraries(exporter.reader, exporter.kind)
    left = {e.kind for e in chosen if any(util.find_spec(name) is None for name in e.reader.libraries)}
    return [e for e in chosen if e.kind not in left], tuple(e.kind for e in chosen if e.kind in left)


def reader_text(reader: Reader) -> str:
    """Return a file of ``exports/readers/``, as a person may copy it.

    Examples
    --------
    >>> "def open_model(path" in reader_text(Reader("keras_file"))
    True
    """
    folder = resources.files(__package__) / "readers"
    return (folder / f"{reader.name}.py").read_text("utf-8")


def require_libraries(reader: Reader, kind: str) -> None:
    """Find a kind's libraries, without an import, or raise `ExportError`.

    Examples
    --------
    >>> require_libraries(Reader("keras_file"), "keras")
    >>> require_libraries(Reader("onnx_file", ("no_such_module",), "onnx"), "onnx")
    Traceback (most recent call last):
    ...
    bottleneck.errors.ExportError: onnx needs no_such_module, which is not installed here:
    pip install 'bottleneck-features[onnx]', or leave this kind out
    """
    missing = [name for name in reader.libraries if util.find_spec(name) is None]
    if missing:
        which = "which is" if len(missing) == 1 else "which are"
        raise ExportError(
            f"{kind} needs {' and '.join(missing)}, {which} not installed here: "
            f"pip install 'bottleneck-features[{reader.extra}]', or leave this kind out"
        )


def as_text(document: Mapping[str, Any]) -> str:
    """Write a document as sorted JSON: equal documents are equal bytes.

    Examples
    --------
    >>> as_text({"format": 1, "classes": ["b", "a"]})
    '{"classes": ["b", "a"], "format": 1}'
    """
    return json.dumps(document, sort_keys=True, allow_nan=False)


def as_lines(classes: list[str]) -> str:
    r"""Write the class names as `labels.txt`, one a line.

    Names that would break a line, and those that begin with a quote, are written as JSON: the n-th line is always the
    n-th column, and no two columns read the same.

    Examples
    --------
    >>> as_lines(["cat", "dog"]), as_lines(["a\nb", "c\n"])
    ('cat\ndog\n', '"a\\nb"\n"c\\n"\n')
    """
    plain = {name: name.splitlines() == [name] and name[0] != '"' for name in classes}
    return "".join(f"{name if plain[name] else json.dumps(name)}\n" for name in classes)


def add_member(archive: zipfile.ZipFile, name: str, text: str) -> None:
    """Add a text to a zip, with a fixed date."""
    # The bytes of an artefact should depend on the clock as little as possible.
    archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), text)


def examples(making: Making, kind: str) -> np.ndarray:
    """Return the sample (n, height, width, 3), or refuse if empty.

    Raises
    ------
    ExportError
        The sample is empty.
    """
    if not len(making.sample):
        raise ExportError(
            f"{kind} is quantized by the ranges that values take on example images, and there are none: none of the "
            "run's images can be read. Put them back where the run found them, or leave this kind out"
        )
    return np.asarray(making.sample, np.float32)
