"""The `.keras` file: written aside, tried, then named; with a member `bottleneck.json` that says what it is."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bottleneck.errors import BaseError
from bottleneck.files import sync_folder
from bottleneck.strict import MalformedDocument, check_zip, loads

MEMBER = "bottleneck.json"


@contextlib.contextmanager
def written_aside(model: Any, path: Path, document: Mapping[str, Any]) -> Iterator[Path]:
    """Write `model` with its document to a temporary beside `path`; on leaving without error, give it its name.

    Yields
    ------
    Path
        The temporary, to be reloaded and compared before it counts. An exception inside leaves the previous file
        at `path` as it was.
    """
    folder = path.parent / f".{path.stem}.{secrets.token_hex(4)}.tmp"
    folder.mkdir()
    try:
        aside = folder / "model.keras"
        model.save(aside)
        with zipfile.ZipFile(aside, "a", zipfile.ZIP_STORED) as archive:
            # A fixed date: the file's bytes should not depend on the clock more than Keras makes them.
            entry = zipfile.ZipInfo(MEMBER, (1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, json.dumps(document, indent=1, sort_keys=True, allow_nan=False))
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        yield aside
        os.replace(aside, path)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def read_document(path: Path) -> dict[str, Any]:
    """What `bottleneck.json` in a `.keras` file says.

    Raises
    ------
    BaseError
        No `.keras` file, or one that `bottleneck merge` did not write.
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
    except (
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
        RuntimeError,
        OSError,
        MalformedDocument,
    ) as error:
        raise BaseError(f"{path} is no merged model: {error}") from error
    if not isinstance(value, dict):
        raise BaseError(f"{path} is no merged model: {MEMBER} is no object")
    return value
