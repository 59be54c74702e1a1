"""Write and read the `.keras` file with its `bottleneck.json`."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bottleneck.contracts import Making, Reader
from bottleneck.errors import BaseError
from bottleneck.exports.artefact import DOCUMENT, Artefact, add_member, as_text
from bottleneck.schema.strict_json import MalformedDocument, check_zip, loads
from bottleneck.system.disk_errors import about

MEMBER = DOCUMENT


class KerasFile(Artefact):
    """Keras' own format, loaded in safe mode: only layers of Keras."""

    kind = "keras"
    name = "model.keras"
    reader = Reader("keras_file")
    live = True

    def make(self, model: Any, path: Path, making: Making) -> None:
        """As `Artefact.make`."""
        save_keras(model, path, making.document)


def save_keras(model: Any, path: Path, document: Mapping[str, Any]) -> None:
    """Write `model` to `path` with its document as a member."""
    # Keras and zipfile write through open files: what they raise names none.
    with about(path):
        model.save(path)
        with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
            add_member(archive, MEMBER, as_text(document))


def read_document(path: Path) -> dict[str, Any]:
    """Read `bottleneck.json` in a `.keras` file.

    Raises
    ------
    BaseError
        It is no `.keras` file, or `bottleneck merge` did not write it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(MEMBER).file_size > 64 << 20:
                raise MalformedDocument("it is larger than 64 MiB")
            value = loads(archive.read(MEMBER), most_bytes=64 << 20)
        check_zip(path)  # before Keras unpacks the rest
    except KeyError as error:
        raise BaseError(
            f"{path} has no {MEMBER}: it is a Keras file, but not one that `bottleneck merge` wrote, so its class "
            "names and pixel contract are unknown"
        ) from error
    except (zipfile.BadZipFile, zlib.error, RuntimeError, OSError, MalformedDocument) as error:
        raise BaseError(f"{path} is no merged model: {error}") from error
    if not isinstance(value, dict):
        raise BaseError(f"{path} is no merged model: {MEMBER} is no object")
    return value
