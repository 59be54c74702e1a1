"""A CSV or Parquet table ``path,label[,group,split]`` that names images.

Paths are relative to the table's folder. Absolute ones and ones that lead up by ``..`` are taken as well: a
table beside its images (``labels/train.csv``) is common, and since a table may name any file of its owner,
refusing ``..`` would protect nobody. Labels are text exactly as written: ``01`` stays ``01``.
"""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bottleneck.errors import Rejected
from bottleneck.schema import Entry, Split
from bottleneck.sources.reading import UNSEEN, read_regular, signature
from bottleneck.sources.volumes import Volumes

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH = 1 << 14


@dataclass(frozen=True)
class TableSource:
    """The images that a table names, with label, group and split.

    A path that is not there, or is no regular file, costs that image and not the run. Everything else that is
    wrong with a table (a missing column, an empty label, two labels for one path, an unknown split) is an
    error that names rows or paths, because guessing would train on something the user did not say.

    Parameters
    ----------
    location : str
        Absolute path of the table.
    """

    location: str
    _passed: Counter[str] = field(default_factory=Counter, init=False, repr=False, compare=False)

    @classmethod
    def claims(cls, location: str) -> bool:
        """Take files called ``.csv`` or ``.parquet``, in any case."""
        return location.lower().endswith((".csv", ".parquet")) and os.path.isfile(location)

    @classmethod
    def open(cls, location: str) -> TableSource:
        """Open the table at `location`. Raises `SourceError` for other columns.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> table = pathlib.Path(tempfile.mkdtemp()) / "images.csv"
        >>> _ = table.write_text("path,label\\ncats/1.png,01\\n")
        >>> [(entry.path, entry.label) for entry in TableSource.open(str(table)).entries()]
        [(b'cats/1.png', '01')]
        """
        from bottleneck.sources.columns import columns_of

        columns_of(os.path.abspath(location))
        return cls(os.path.abspath(location))

    def entries(self) -> Iterator[Entry]:
        """List the table's paths in order. Raises `SourceError` naming bad rows."""
        from bottleneck.sources.columns import read_columns

        self._passed.clear()
        table, repeated = read_columns(self.location)
        if repeated:
            self._passed["row listed twice"] = repeated
        folder, volumes = self._folder(), Volumes()
        for batch in table.to_batches(max_chunksize=_BATCH):
            for path, label, group, split in rows_of(batch):
                try:
                    file = posixpath.join(folder, path)
                    status = os.stat(file)
                    seen = signature(status, volumes.number_of(file, status.st_dev))
                except (OSError, ValueError):
                    seen = UNSEEN  # reading it says why
                yield Entry(path, seen, label, group, split, named=True)

    def read(self, path: bytes) -> bytes:
        """Read one file. Raises OSError, or `Rejected` where there is none."""
        try:
            return read_regular(posixpath.join(self._folder(), path))
        except (FileNotFoundError, NotADirectoryError):
            why = "the table names this file, but there is none"
            if b"://" in path:
                why = "the table names a URL; a table on this machine names files by their paths"
            raise Rejected("read", why, retry=True) from None
        except ValueError:  # a NUL character
            raise Rejected("read", "the table names this file, but no file can be called so") from None

    def passed_over(self) -> Mapping[str, int]:
        """Count what the last `entries()` left out, by reason."""
        return dict(self._passed)

    def _folder(self) -> bytes:
        return os.path.dirname(os.fsencode(self.location))


def rows_of(batch: pa.RecordBatch) -> Iterator[tuple[bytes, str, str | None, Split | None]]:
    """Give path, label, group and split of each row."""
    return zip(*(batch.column(name).to_pylist() for name in ("path", "label", "group", "split")), strict=True)
