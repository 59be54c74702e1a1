"""Images of an inventory that are the same, and their contradictions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bottleneck.schema import Inventory


@dataclass(frozen=True)
class Copies:
    """One content under several names that disagree.

    Attributes
    ----------
    content : bytes
        sha256 of the files' bytes.
    values : tuple of str
        The labels (or groups, or splits) it carries, sorted.
    paths : tuple of bytes
        Where it lies, sorted; at most ten.
    """

    content: bytes
    values: tuple[str, ...]
    paths: tuple[bytes, ...]


@dataclass(frozen=True)
class Duplicates:
    """The copies of an inventory and their contradictions.

    Attributes
    ----------
    unique : int
        Different contents.
    copies : int
        Images beyond the first of each content: `unique` + `copies` images in all.
    two_labels : tuple of Copies
        Contents with more than one label, by first path.
    two_groups : tuple of Copies
        Contents in more than one group, by first path: these groups count as one.
    straddling : tuple of Copies
        Contents that given splits put on several sides (an image without one counts as ``train``), by first
        path.
    """

    unique: int
    copies: int
    two_labels: tuple[Copies, ...]
    two_groups: tuple[Copies, ...]
    straddling: tuple[Copies, ...]


def duplicates(inventory: Inventory) -> Duplicates:
    """Count copies, and find contents with contradicting labels, groups or splits.

    Examples
    --------
    >>> import pyarrow as pa
    >>> table = pa.table({
    ...     "path": pa.array([b"cat/1", b"dog/1", b"dog/2"]),
    ...     "content": pa.array([b"a" * 32, b"a" * 32, b"b" * 32], pa.binary(32)),
    ...     "label": ["cat", "dog", "dog"],
    ...     "group": pa.nulls(3, pa.string()), "split": pa.nulls(3, pa.string()),
    ... })
    >>> found = duplicates(Inventory(table, "/images"))
    >>> found.unique, found.copies, found.two_labels[0].values
    (2, 1, ('cat', 'dog'))
    """
    if not len(inventory):
        return Duplicates(0, 0, (), (), ())
    codes, unique = content_codes(inventory)
    return Duplicates(
        unique,
        len(inventory) - unique,
        _disagreeing(inventory, codes, unique, "label"),
        _disagreeing(inventory, codes, unique, "group"),
        _disagreeing(inventory, codes, unique, "split"),
    )


def content_codes(inventory: Inventory) -> tuple[np.ndarray, int]:
    """Number the contents (n,) by first appearance, and count them.

    Examples
    --------
    >>> table = pa.table({"content": pa.array([b"b" * 32, b"a" * 32, b"b" * 32], pa.binary(32))})
    >>> content_codes(Inventory(table, "/images"))[0].tolist()
    [0, 1, 0]
    """
    coded = pa.chunked_array([inventory.table.column("content").combine_chunks()]).combine_chunks()
    encoded = coded.dictionary_encode()
    return encoded.indices.to_numpy(zero_copy_only=False), len(encoded.dictionary)


def _disagreeing(inventory: Inventory, codes: np.ndarray, unique: int, name: str) -> tuple[Copies, ...]:
    """Find contents with several values in column `name`."""
    column = inventory.table.column(name)
    if name == "split":
        column = pc.fill_null(column, "train")
    encoded = pa.chunked_array([column.combine_chunks()]).combine_chunks().dictionary_encode()
    values = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
    present = values >= 0
    lowest = np.full(unique, np.iinfo(np.int32).max, np.int32)
    highest = np.full(unique, -1, np.int32)
    np.minimum.at(lowest, codes[present], values[present])
    np.maximum.at(highest, codes[present], values[present])
    found = np.flatnonzero((highest >= 0) & (lowest < highest))
    if not len(found):
        return ()
    rows = np.flatnonzero(np.isin(codes, found))
    gathered: dict[int, tuple[bytes, set[str], list[bytes]]] = {}
    picked = inventory.table.select(["path", "content"]).take(pa.array(rows)).to_pylist()
    for row, record, value in zip(
        rows.tolist(), picked, column.take(pa.array(rows)).to_pylist(), strict=True
    ):
        _, kinds, paths = gathered.setdefault(int(codes[row]), (record["content"], set(), []))
        if value is not None:
            kinds.add(value)
        paths.append(record["path"])
    return tuple(
        Copies(content, tuple(sorted(kinds)), tuple(paths[:10]))
        for content, kinds, paths in gathered.values()
    )
