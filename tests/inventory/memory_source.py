"""A source in memory that counts what is read."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping

from bottleneck.schema import Entry, Inventory

OLD = 10**18  # a time long ago, in ns


class Memory:
    """A source of files in memory that counts what is read."""

    location = "/memory"

    def __init__(self, files: Mapping[bytes, bytes], modified: int = OLD, changed: int = OLD) -> None:
        self.files = dict(files)
        self.read_paths: list[bytes] = []
        self.modified, self.changed = modified, changed
        self.failing: dict[bytes, Exception] = {}
        self.sizes: dict[bytes, int] = {}
        self.named: set[bytes] = set()
        self.origin = 1

    def entries(self) -> Iterator[Entry]:
        for path, data in reversed(self.files.items()):
            size = self.sizes.get(path, len(data))
            # A kernel gives one change time after the other.
            changed = self.changed if self.changed != OLD else OLD + zlib.crc32(path)
            yield Entry(
                path, (size, self.modified, changed, 7, self.origin), "label", named=path in self.named
            )

    def read(self, path: bytes) -> bytes:
        self.read_paths.append(path)
        if path in self.failing:
            raise self.failing[path]
        return self.files[path]

    def passed_over(self) -> Mapping[str, int]:
        return {"FIFO, socket or device": 1}


def contents(inventory: Inventory) -> dict[bytes, bytes]:
    return {record.path: record.content for record in inventory}
