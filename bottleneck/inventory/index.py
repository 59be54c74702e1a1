"""The scan index: signatures of files whose content is known.

One Parquet file a source, sorted by path, disposable: one that is missing, damaged or of another version only
costs reading the images again. Pages carry checksums, so that a damaged one is never believed.

What it cannot see: a write that changes neither size, times nor inode. Through a memory map that was open before the
scan, the kernel may set the times only at `msync` or `munmap` (on tmpfs never); whoever writes to the device below a
file system can leave everything as it was. ``--rehash`` reads every file.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bottleneck.inventory.listing import SourceListing, fixed_binary, plain_paths
from bottleneck.schema import Signature

#: What a row says about a file that is known: whether it begins with an image's signature.
UNKNOWN, OTHER, IMAGE = 0, 1, 2

_VERSION = b"2"
#: The fields of a signature, as they are called here.
_NUMBERS = tuple("origin" if name == "volume" else name for name in Signature._fields)
_SCHEMA = pa.schema(
    [
        ("path", pa.binary()),
        *((n, pa.int64()) for n in _NUMBERS),
        ("sha256", pa.binary(32)),
        ("image", pa.bool_()),
    ],
    metadata={b"bottleneck scan index": _VERSION},
)
_GROUP = 1 << 17


def look_up(file: Path, listing: SourceListing, contents: np.ndarray, states: np.ndarray) -> int:
    """Fill in the files whose signature is the recorded one.

    Parameters
    ----------
    file : Path
        The index; need not be there.
    listing : SourceListing
        n files.
    contents : numpy.ndarray
        (n, 32) uint8, written where the file is known.
    states : numpy.ndarray
        (n,) uint8, all `UNKNOWN`; becomes `OTHER` or `IMAGE` where the file is known.

    Returns
    -------
    int
        Rows in the index; 0 when there is none that can be believed.
    """
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as index:
            if not index.schema_arrow.equals(_SCHEMA, check_metadata=False):
                return 0
            if (index.schema_arrow.metadata or {}).get(b"bottleneck scan index") != _VERSION:
                return 0
            for number in range(index.num_row_groups):
                _match(index.read_row_group(number, use_threads=False), listing, contents, states)
            return int(index.metadata.num_rows)
    except (OSError, pa.ArrowException, ValueError, KeyError, OverflowError):
        # Whatever was believed before the damage was met came from pages whose checksum held; still, one
        # damaged page is reason enough to read everything again.
        states[:] = UNKNOWN
        return 0


def _match(group: pa.Table, listing: SourceListing, contents: np.ndarray, states: np.ndarray) -> None:
    """Match one row group against the listed paths in its range."""
    recorded = group.column("path").combine_chunks()
    if not len(recorded):
        return
    first = _bisect(listing.paths, recorded[0].as_py(), after=False)
    last = _bisect(listing.paths, recorded[-1].as_py(), after=True)
    if first >= last:
        return
    wanted = pa.concat_arrays([listing.paths.slice(first, last - first)]).cast(pa.binary())
    if wanted.equals(recorded):
        rows = at = np.arange(len(recorded))
    else:
        found = pc.index_in(wanted, value_set=recorded)
        rows = np.flatnonzero(found.is_valid().to_numpy(zero_copy_only=False))
        at = found.drop_null().to_numpy()
    same = np.ones(len(rows), bool)
    for name, listed in zip(_NUMBERS, listing.signatures, strict=True):
        same &= group.column(name).to_numpy()[at] == listed[first + rows]
    rows, at = first + rows[same], at[same]
    column = group.column("sha256").combine_chunks()
    raw = np.frombuffer(column.buffers()[1], np.uint8)[column.offset * 32 :][: len(column) * 32]
    contents[rows] = raw.reshape(-1, 32)[at]
    states[rows] = np.where(group.column("image").to_numpy()[at], IMAGE, OTHER)


def _bisect(paths: pa.LargeBinaryArray, path: bytes, *, after: bool) -> int:
    low, high = 0, len(paths)
    while low < high:
        middle = (low + high) // 2
        here = paths[middle].as_py()
        if here < path or (after and here == path):
            low = middle + 1
        else:
            high = middle
    return low


def save_index(
    file: Path, listing: SourceListing, contents: np.ndarray, states: np.ndarray, trusted: np.ndarray
) -> None:
    """Write the index anew, with the known rows of `trusted`. Raises OSError."""
    known = np.flatnonzero(trusted & (states != UNKNOWN))
    file.parent.mkdir(parents=True, exist_ok=True)
    # Straight to the disk, a group of rows at a time, and without waiting for it: whatever a power cut leaves of an
    # index fails its checksums, and then costs one more reading of the images, no more.
    aside = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with pq.ParquetWriter(
            aside,
            _SCHEMA,
            compression={name: "none" if name == "sha256" else "zstd" for name in _SCHEMA.names},
            use_dictionary=False,
            write_statistics=False,
            write_page_checksum=True,
        ) as writer:
            for start in range(0, len(known), _GROUP):
                rows = known[start : start + _GROUP]
                columns = [
                    plain_paths(listing.paths.take(pa.array(rows))).combine_chunks(),
                    *(pa.array(column[rows]) for column in listing.signatures),
                    fixed_binary(contents[rows]),
                    pa.array(states[rows] == IMAGE),
                ]
                writer.write_table(pa.table(columns, schema=_SCHEMA), row_group_size=_GROUP)
        with contextlib.suppress(FileNotFoundError):
            os.replace(aside, file)
    finally:
        # Those of dead runs too; a living one whose own goes this way has an index no better than this.
        for left in file.parent.glob(f".{file.name}.*.tmp"):
            left.unlink(missing_ok=True)
