"""Pack a head's arrays into an npz, and unpack them without trust.

No member is a pickle, and none is compressed: so no file unpacks to more than its own size.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bottleneck.errors import HeadError

# A member's name twice, local and central header, npy header: far below this even with zip64.
_MEMBER_OVERHEAD = 4096


def most_bytes(layout: Mapping[str, tuple[int, ...]]) -> int:
    """Most bytes that float32 arrays of these shapes take in an npz."""
    return sum(4 * math.prod(shape) + _MEMBER_OVERHEAD for shape in layout.values()) + _MEMBER_OVERHEAD


def pack_arrays(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Pack an uncompressed npz whose bytes depend on the arrays alone."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            member.create_system = 3  # else the number of the writing system
            with archive.open(member, "w", force_zip64=array.nbytes >= 1 << 31) as file:
                np.lib.format.write_array(
                    file, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False
                )
    return buffer.getvalue()


def unpack_arrays(path: Path, data: bytes, layout: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Unpack float32 arrays of these names and shapes, and no others.

    Raises
    ------
    HeadError
        Names `path`, and what is wrong with its bytes.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            if names != [f"{name}.npy" for name in layout]:
                raise HeadError(f"{path}: expected the arrays {list(layout)}, got {shorten(names)}")
            return {
                name: _array(archive, member, shape)
                for (name, shape), member in zip(layout.items(), members, strict=True)
            }
    except HeadError as error:
        raise HeadError(f"{path}: {error}") if str(path) not in str(error) else error from error
    # A hostile zip reaches many corners of zipfile; whatever it raises there means the same.
    except (
        zipfile.BadZipFile, ValueError, OSError, EOFError, NotImplementedError, RuntimeError, OverflowError,
        KeyError, IndexError, SyntaxError, TypeError, MemoryError,
    ) as error:  # fmt: skip
        raise HeadError(
            f"{path}: not the arrays of a head ({shorten(str(error))}); train the head again"
        ) from error


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, shape: tuple[int, ...]) -> np.ndarray:
    size = 4 * math.prod(shape)
    if (
        member.compress_type != zipfile.ZIP_STORED
        or member.flag_bits & 1
        or member.file_size > size + _MEMBER_OVERHEAD
    ):
        raise HeadError(
            f"array {member.filename!r} is compressed, encrypted or longer than float32 {shape} takes"
        )
    with archive.open(member) as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise HeadError(f"array {member.filename!r} is not in version 1.0 of the npy format")
        found, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        # An object array is a pickle: refused by its dtype, before a byte of it is read.
        if dtype != np.dtype("<f4") or dtype.hasobject or fortran or found != shape:
            raise HeadError(
                f"array {member.filename!r}: expected float32 {shape}, got {dtype} {found}"
                f"{' in Fortran order' if fortran else ''}"
            )
        data = file.read()
    if len(data) != size:
        raise HeadError(f"array {member.filename!r}: expected {size:,} bytes, got {len(data):,}")
    return np.frombuffer(data, "<f4").reshape(shape)


def shorten(value: Any) -> str:
    """Cut a long value for a message."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 200 else text[:200] + "…"
