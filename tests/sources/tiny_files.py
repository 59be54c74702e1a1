"""Tiny images and trees for the tests of sources."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from bottleneck.contracts import Source


def png(value: int = 0) -> bytes:
    """A valid 1 x 1 grey PNG; another `value` is another content."""
    kinds = (
        (b"IHDR", (1).to_bytes(4, "big") * 2 + b"\x08\x00\x00\x00\x00"),
        (b"tEXt", b"value\0%d" % value),
        (b"IDAT", zlib.compress(bytes([0, value % 256]))),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
        for kind, data in kinds
    )


def tree(root: Path, files: Mapping[str | bytes, bytes | int]) -> Path:
    """Write files below `root`; a number stands for a PNG."""
    top = os.fsencode(root)
    os.makedirs(top, exist_ok=True)
    for name, data in files.items():
        path = os.path.join(top, os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(png(data) if isinstance(data, int) else data)
    return root


def zipped(path: Path, files: Mapping[str, bytes | int], method: int = zipfile.ZIP_DEFLATED) -> Path:
    """A zip of these files."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, png(data) if isinstance(data, int) else data)
    return path


def tarred(
    path: Path, files: Mapping[str, bytes | int] | list[tuple[str, bytes | int]], mode: str = "w"
) -> Path:
    """A tar of these files; a list may name one twice."""
    with tarfile.open(path, mode, encoding="utf-8", errors="surrogateescape") as archive:
        for name, data in files.items() if isinstance(files, Mapping) else files:
            content = png(data) if isinstance(data, int) else data
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def labels(source: Source) -> dict[bytes, tuple[str | None, str | None]]:
    """Path to (label, split) of everything the source lists."""
    found = [(entry.path, (entry.label, entry.split)) for entry in source.entries()]
    assert len(found) == len(dict(found)), "a path was listed twice"
    return dict(found)
