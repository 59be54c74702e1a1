"""A shard's commit record, and where things lie below the cache's root."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from bottleneck.schema.base import RowType
from bottleneck.schema.values import Frozen

FORMAT = 1
_HEX64 = r"^[0-9a-f]{64}$"


class RejectedContent(Frozen):
    """A content that has no row because of its bytes, in a shard's record: it is not tried again."""

    content: str = Field(pattern=_HEX64)
    stage: str = Field(max_length=40)
    reason: str = Field(max_length=2000)


class Record(Frozen):
    """A shard's commit: the shard counts when this exists and is sound.

    `blocks_root` is sha256 over the block hashes in order; the hashes themselves lie in ``<id>-<sha16>.blocks``.
    Each block's hash covers the shard's id, the block's position and its bytes.
    """

    format: Literal[1] = 1
    id: str = Field(pattern=r"^[0-9a-f]{16}$")
    recipe: str = Field(pattern=_HEX64)
    rows: int = Field(ge=0, le=1 << 32)
    shape: tuple[int, ...]
    dtype: RowType
    file_sha256: str = Field(pattern=_HEX64)
    file_bytes: int = Field(ge=0)
    features_offset: int = Field(ge=0)
    content_offset: int = Field(ge=0)
    content_sha256: str = Field(pattern=_HEX64)
    block_rows: int = Field(ge=1)
    blocks_root: str = Field(pattern=_HEX64)
    rejected: tuple[RejectedContent, ...] = ()
    environment: Mapping[str, str]
    canary: str = Field(pattern=_HEX64)

    @property
    def shard(self) -> str:
        """Name of the shard's file."""
        return f"{self.id}-{self.file_sha256[:16]}.h5"

    @property
    def blocks(self) -> str:
        """Name of the file of block hashes."""
        return f"{self.id}-{self.file_sha256[:16]}.blocks"


@dataclass(frozen=True)
class Cache:
    """Where things lie below the cache's root."""

    root: Path

    @property
    def scans(self) -> Path:
        """Scan indexes: disposable."""
        return self.root / "scans"

    @property
    def bases(self) -> Path:
        """Digests of weights already known, and weights that were unpacked."""
        return self.root / "bases"

    @property
    def stores(self) -> Path:
        """Feature stores."""
        return self.root / "stores"
