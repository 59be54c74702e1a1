"""JSON and zips from a disk that may lie, read within bounds."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from bottleneck.errors import BottleneckError
from bottleneck.schema import explain_errors

M = TypeVar("M", bound=BaseModel)


class MalformedDocument(BottleneckError):
    """Bytes that are not the expected JSON document."""


def loads(data: bytes, *, most_bytes: int = 16 << 20) -> Any:
    """Parse JSON that somebody else may have written.

    Parameters
    ----------
    data : bytes
    most_bytes : int
        Refused above this size, before parsing.

    Raises
    ------
    MalformedDocument
        Too large, not UTF-8, not JSON, duplicate keys, NaN or infinity, integers over 20 digits, too deep.

    Examples
    --------
    >>> loads(b'{"a": [1, 2.5]}')
    {'a': [1, 2.5]}
    >>> loads(b'{"a": 1, "a": 2}')
    Traceback (most recent call last):
    ...
    bottleneck.schema.strict_json.MalformedDocument: the key 'a' stands there twice
    """
    if len(data) > most_bytes:
        raise MalformedDocument(f"{len(data)} bytes; at most {most_bytes} were expected")
    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_int=_integer,
        )
    except (ValueError, RecursionError) as error:
        raise MalformedDocument(f"not a JSON document: {error}") from error


def parse_as(model: type[M], data: bytes, *, most_bytes: int = 16 << 20) -> M:
    """Load JSON and validate it as `model`. Raises `MalformedDocument`."""
    return validate(model, loads(data, most_bytes=most_bytes))


def validate(model: type[M], value: Any) -> M:
    """Validate a loaded `value` as `model`. Raises `MalformedDocument`."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise MalformedDocument(explain_errors(error)) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for key, item in pairs:
        if key in value:
            raise MalformedDocument(f"the key {key!r} stands there twice")
        value[key] = item
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise MalformedDocument(f"{name} is no number")


def _integer(text: str) -> int:
    if len(text) > 20:
        raise MalformedDocument(f"an integer of {len(text)} digits")
    return int(text)


def check_zip(path: Path, *, most_text: int = 64 << 20, most_ratio: int = 100) -> None:
    """Refuse a zip that would unpack to far more than its size.

    It goes by what the zip declares: nothing reads beyond that.

    Parameters
    ----------
    path : Path
    most_text : int
        Largest declared size of any member that is not weights (``.h5``, ``.npz``).
    most_ratio : int
        Largest declared size of all members, in sizes of the file.

    Raises
    ------
    MalformedDocument
        Declares more than that, or is no zip.
    OSError
        It cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise MalformedDocument(f"not a zip archive: {error}") from error
    for member in members:
        if member.file_size > most_text and not member.filename.endswith((".h5", ".npz")):
            raise MalformedDocument(
                f"its member {member.filename!r} declares {member.file_size:,} bytes; "
                f"at most {most_text:,} were expected"
            )
    total, size = sum(member.file_size for member in members), path.stat().st_size
    if total > max(most_text, most_ratio * size):
        raise MalformedDocument(
            f"{size:,} bytes that declare {total:,}: it would unpack to far more than it is"
        )
