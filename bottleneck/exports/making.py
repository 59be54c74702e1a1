"""What every artefact carries beside the model, as text."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from bottleneck.contracts import Making
from bottleneck.errors import ExportError

__all__ = ["DOCUMENT", "LABELS", "Making", "add_member", "as_lines", "as_text", "examples"]

#: Name of the document inside every artefact.
DOCUMENT = "bottleneck.json"

#: The class names alone, in the order of the columns.
LABELS = "labels.txt"


def as_text(document: Mapping[str, Any]) -> str:
    """The document as JSON, sorted, so that equal documents are equal bytes.

    Examples
    --------
    >>> as_text({"format": 1, "classes": ["b", "a"]})
    '{"classes": ["b", "a"], "format": 1}'
    """
    return json.dumps(document, sort_keys=True, allow_nan=False)


def as_lines(classes: list[str]) -> str:
    r"""The class names as `labels.txt` has them, one a line.

    Names that would break a line, and those that begin with a quote, stand there as JSON has them: the n-th line is
    always the n-th column, and no two columns read the same.

    Examples
    --------
    >>> as_lines(["cat", "dog"]), as_lines(["a\nb", "c\n"])
    ('cat\ndog\n', '"a\\nb"\n"c\\n"\n')
    """
    plain = {name: name.splitlines() == [name] and name[0] != '"' for name in classes}
    return "".join(f"{name if plain[name] else json.dumps(name)}\n" for name in classes)


def add_member(archive: zipfile.ZipFile, name: str, text: str) -> None:
    """Add a text to a zip with a fixed date: an artefact's bytes should not depend on the clock more than they must."""
    archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), text)


def examples(making: Making, kind: str) -> np.ndarray:
    """The sample, for a `kind` that cannot be made without one: (n, height, width, 3) float32.

    Raises
    ------
    ExportError
        There is none.
    """
    if not len(making.sample):
        raise ExportError(
            f"{kind} is quantized by the ranges that values take on example images, and there are none: none of the "
            "run's images can be read. Put them back where the run found them, or leave this kind out"
        )
    return np.asarray(making.sample, np.float32)
