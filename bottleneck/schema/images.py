"""Images as a source, an inventory and a task hold them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple

from bottleneck.schema.values import Frozen
from bottleneck.schema.views import ViewPolicy

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

Split = Literal["train", "validation", "test"]


class Signature(NamedTuple):
    """What changes when a file does: numbers of 64 signed bits.

    In an archive, the times are the archive's and the offset stands for the inode. `volume` is above 0 for a file on
    disk (the number of its file system), below 0 for what is known by more than times (a checksum, a service's tag),
    and 0 where nothing vouches for the content: it is then read at every scan.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    volume: int


class Entry(NamedTuple):
    """One file as a source lists it, before it is read.

    `path` is relative to the source, as bytes (names need not be UTF-8). `signature` changes when the file does.
    `named` makes an entry image-like whatever it holds: a table names it, or it is a folder whose images cannot be
    reached.
    """

    path: bytes
    signature: Signature
    label: str | None = None
    group: str | None = None
    split: Split | None = None
    named: bool = False


class ImageRecord(NamedTuple):
    """One row of an `Inventory`."""

    path: bytes
    content: bytes
    label: str | None
    group: str | None
    split: str | None


class Rejection(Frozen):
    """An image that has no row, and why.

    `content` is 64 hex digits, empty when the file could not be read. `retry`, `circumstances` and `final` are as in
    `RejectedContent`.
    """

    content: str = ""
    path: str = ""
    stage: str
    reason: str
    retry: bool = False
    circumstances: str = ""
    final: bool = False


@dataclass(frozen=True, eq=False)
class Inventory:
    """The images of a source by content, sorted by path.

    Attributes
    ----------
    table : pyarrow.Table
        ``path`` binary, ``content`` fixed_size_binary(32) (sha256 of the file's bytes), ``label``, ``group``,
        ``split``: string or null.
    location : str
        The source, as `bottleneck.sources.open_source` takes it.
    unreadable : tuple of Rejection
        Image-like files that could not be read in this scan.
    ignored : mapping of str to int
        Why other files were passed over, with counts.
    """

    table: pa.Table
    location: str
    unreadable: tuple[Rejection, ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __getitem__(self, row: int) -> ImageRecord:
        return ImageRecord(**self.table.slice(row, 1).to_pylist()[0])

    def __iter__(self) -> Iterator[ImageRecord]:
        for batch in self.table.to_batches():
            for row in batch.to_pylist():
                yield ImageRecord(**row)

    @cached_property
    def keys(self) -> np.ndarray:
        """Give the contents as (n, 32) uint8, in table order."""
        import numpy as np

        if not len(self):
            return np.zeros((0, 32), np.uint8)
        # Views of the column's own bytes: at ten million rows a copy is 300 MB.
        parts = [
            np.frombuffer(c.buffers()[1], np.uint8)[c.offset * 32 : (c.offset + len(c)) * 32].reshape(-1, 32)
            for c in self.table.column("content").chunks
            if len(c)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """List the labels in code-point order, as `image_dataset_from_directory` sorts them."""
        return tuple(sorted(x for x in self.table.column("label").unique().to_pylist() if x is not None))


class Task(NamedTuple):
    """One shard's worth of work.

    `id` is 16 hex digits of sha256 over the keys in order. With `views`, the keys are those of augmented views, made by
    that policy. `cuts` are the numbers of the cuts whose rows are wanted; the plan of the task lies in the first one's
    store. `blamed` holds the circumstances under which its single image was given up before.
    """

    id: str
    keys: np.ndarray
    paths: tuple[bytes, ...]
    views: ViewPolicy | None = None
    cuts: tuple[int, ...] = (0,)
    blamed: frozenset[str] = frozenset()
