"""HDF5 files that attack whoever opens them."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from tests.faults.reference_stores import some

ROWS = 20
Evil = Callable[[h5py.File, Path], None]


def rows() -> tuple[np.ndarray, np.ndarray]:
    """Keys and rows that would fit a shard."""
    return some(ROWS)


def add_content(file: h5py.File) -> None:
    file.create_dataset("content", data=rows()[0], track_times=False)


def add_features(file: h5py.File) -> None:
    file.create_dataset("features", data=rows()[1], track_times=False)


def external_storage(file: h5py.File, target: Path) -> None:
    file.create_dataset("features", (ROWS, 6), "<f4", external=[(os.fsencode(target), 0, ROWS * 24)])
    add_content(file)


def external_link(file: h5py.File, target: Path) -> None:
    file["features"] = h5py.ExternalLink(str(target), "features")
    add_content(file)


def external_link_for_both(file: h5py.File, target: Path) -> None:
    file["features"] = h5py.ExternalLink(str(target), "features")
    file["content"] = h5py.ExternalLink(str(target), "content")


def virtual_dataset(file: h5py.File, target: Path) -> None:
    layout = h5py.VirtualLayout((ROWS, 6), "<f4")
    layout[:] = h5py.VirtualSource(str(target), "features", (ROWS, 6))
    file.create_virtual_dataset("features", layout)
    add_content(file)


def soft_link_loop(file: h5py.File, target: Path) -> None:
    file["features"] = h5py.SoftLink("/content")
    file["content"] = h5py.SoftLink("/features")


def soft_link_to_rows(file: h5py.File, target: Path) -> None:
    file.create_group("inner")["rows"] = rows()[1]
    file["features"] = h5py.SoftLink("/inner/rows")
    add_content(file)


def group_loop(file: h5py.File, target: Path) -> None:
    file.create_group("features")["features"] = file["/"]
    add_content(file)


def four_tebibytes(file: h5py.File, target: Path) -> None:
    file.create_dataset("features", (1 << 38, 4), "<f4")
    add_content(file)


def four_tebibytes_of_the_right_width(file: h5py.File, target: Path) -> None:
    file.create_dataset("features", ((1 << 42) // 24, 6), "<f4", chunks=(1 << 16, 6))
    add_content(file)


def gzip_bomb(file: h5py.File, target: Path) -> None:
    made = file.create_dataset("features", (ROWS, 6), "<f4", chunks=(ROWS, 6), compression="gzip")
    made[:] = 0
    wide = file.create_dataset(
        "content", (1 << 20, 1 << 10), "u1", chunks=(1 << 14, 1 << 10), compression="gzip"
    )
    wide[: 1 << 14] = 0


def variable_length(file: h5py.File, target: Path) -> None:
    made = file.create_dataset("features", (ROWS,), h5py.vlen_dtype(np.float32))
    for row in range(ROWS):
        made[row] = np.zeros(6, np.float32)
    add_content(file)


def compound(file: h5py.File, target: Path) -> None:
    file["features"] = np.zeros((ROWS, 6), [("a", "<f4"), ("b", "<i8")])
    add_content(file)


def object_references(file: h5py.File, target: Path) -> None:
    add_content(file)
    made = file.create_dataset("features", (ROWS, 6), h5py.ref_dtype)
    made[0, 0] = file["content"].ref


def many_attributes(file: h5py.File, target: Path) -> None:
    add_features(file)
    file["content"] = np.zeros((ROWS, 31), np.uint8)
    for number in range(3_000):
        file.attrs.create(f"a{number}", number, dtype="i8")


def many_objects(file: h5py.File, target: Path) -> None:
    add_features(file)
    add_content(file)
    for number in range(5_000):
        file.create_group(f"g{number}")


def other_byte_order(file: h5py.File, target: Path) -> None:
    file["features"] = rows()[1].astype(">f4")
    add_content(file)


EVIL: list[Evil] = [
    external_storage, external_link, external_link_for_both, virtual_dataset, soft_link_loop, soft_link_to_rows,
    group_loop,
]  # fmt: skip
LARGE: list[Evil] = [
    four_tebibytes, four_tebibytes_of_the_right_width, gzip_bomb, variable_length, compound, object_references,
    many_attributes, many_objects, other_byte_order,
]  # fmt: skip


def evil_file(evil: Evil, target: Path) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=("earliest", "v110")) as file:
        evil(file, target)
    # At least as long as the shard in whose place it is put, or its length alone would tell.
    return buffer.getvalue().ljust(1 << 16, b"\0")


def unknown_filter(file: h5py.File, target: Path) -> None:
    file.create_dataset("features", data=rows()[1], chunks=(ROWS, 6), compression="gzip", track_times=False)
    add_content(file)


def with_unknown_filter(target: Path) -> bytes:
    """Deflate, renamed to filter 40,000, which the library then looks for among its plugins."""
    data = bytearray(evil_file(unknown_filter, target))
    deflate = struct.pack("<HHHH", 1, 8, 1, 1) + b"deflate\0"
    assert data.count(deflate) == 1, "object headers of the first kind carry no checksum"
    at = data.index(deflate)
    data[at : at + 16] = struct.pack("<HHHH", 40_000, 8, 0, 1) + b"unknown\0"
    return bytes(data)
