"""Read and check `export.json`, the manifest of a folder of exports."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from bottleneck.errors import ExportError, UsageError
from bottleneck.schema import Frozen
from bottleneck.schema.strict_json import MalformedDocument, parse_as
from bottleneck.system.durable import sha256_of, shown

NAME = "export.json"

#: Files that appear in any folder by themselves, and may be removed with it.
_LITTER = frozenset({".lock", ".DS_Store", "Thumbs.db", "__pycache__"})


class FileFacts(Frozen):
    """Size and hash of one file as written."""

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Delivered(Frozen):
    """An artefact that passed.

    Attributes
    ----------
    kind, path : str
        Of the catalog; in the folder.
    bytes : int
        Of all its files.
    milliseconds : float
        An image, one at a time: the median in a process without this package.
    milliseconds_from_file : float or None
        The same from the image file, where it takes files.
    """

    kind: str
    path: str
    bytes: int
    milliseconds: float
    milliseconds_from_file: float | None = None


class Refusal(Frozen):
    """A kind that is not delivered, with size and milliseconds if known."""

    kind: str
    why: str
    bytes: int | None = None
    milliseconds: float | None = None


class Manifest(Frozen):
    """What an export delivered: `export.json`."""

    format: Literal[1] = 1
    run: str
    created: str
    recipe: str
    head: str
    artefacts: tuple[Delivered, ...]
    refused: tuple[Refusal, ...]
    files: Mapping[str, FileFacts]


def facts_of(folder: Path) -> dict[str, FileFacts]:
    """Describe every file below `folder`, except litter, by its path with ``/``."""
    paths = {name: folder / name for name in _names(folder)}
    return {name: FileFacts(bytes=p.stat().st_size, sha256=sha256_of(p)) for name, p in paths.items()}


def _names(folder: Path) -> list[str]:
    below = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    return sorted(path.as_posix() for path in below if not _LITTER & set(path.parts))


def size_of(path: Path) -> int:
    """Count the bytes of a file or folder."""
    return sum(part.stat().st_size for part in (path, *path.rglob("*")) if part.is_file())


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest in `folder`.

    Raises
    ------
    ExportError
        It is missing, or this version does not write such a manifest.
    """
    try:
        return parse_as(Manifest, (folder / NAME).read_bytes(), most_bytes=64 << 20)
    except OSError as error:
        raise ExportError(
            f"{shown(str(folder))} holds no export: {NAME} cannot be read ({error.strerror})"
        ) from error
    except MalformedDocument as error:
        raise ExportError(f"{shown(str(folder / NAME))} is not what this version writes: {error}") from error


def check_manifest(folder: Path) -> Manifest:
    """Read the manifest in `folder` and check every file it names.

    Raises
    ------
    ExportError
        A file is missing, or has other bytes; the first three are named.
    """
    manifest = read_manifest(folder)
    present = facts_of(folder)
    wrong = [
        f"{shown(name)} {_damage(present.get(name), facts)}"
        for name, facts in manifest.files.items()
        if present.get(name) != facts
    ]
    if wrong:
        raise ExportError(
            f"{shown(str(folder))} is not whole: {', '.join(wrong[:3])}"
            + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")
            + "; export the run again"
        )
    return manifest


def _damage(actual: FileFacts | None, expected: FileFacts) -> str:
    if actual is None:
        return "is missing"
    return "is cut short" if actual.bytes < expected.bytes else "has other bytes"


def check_target(target: Path) -> None:
    """Refuse a target that holds anything an export did not write.

    Raises
    ------
    UsageError
        Names what is there.
    """
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        raise UsageError(f"--out {shown(str(target))} is a file: give a folder of its own for the export")
    present = set(_names(target))
    if not present:
        return
    try:
        ours = {*read_manifest(target).files, NAME}
    except ExportError:
        ours = set()
    others = sorted(present - ours)
    if others:
        raise UsageError(
            f"--out {shown(str(target))} holds other things ({', '.join(map(shown, others[:3]))}): give a new folder, "
            "or one that an earlier export made"
        )
