"""A shard's commit record, and where things lie below the cache's root."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_serializer, model_validator
from pydantic_core.core_schema import SerializerFunctionWrapHandler

from bottleneck.schema.base import RowType
from bottleneck.schema.values import Frozen

#: Of stores and shards; a record that names circumstances of giving up has `RECORD_FORMAT`.
FORMAT = 1
RECORD_FORMAT = 2
_HEX64 = r"^[0-9a-f]{64}$"


class RejectedContent(Frozen):
    """A content that has no row, in a shard's record.

    Without `retry` its bytes are to blame, and it is not tried again. With `retry` circumstances are to blame (a
    deadline, memory, a worker that died): a run tries it again, last and by itself. `final` means that it failed twice
    under the same `circumstances` (limits and versions), and is tried again only under others.
    """

    content: str = Field(pattern=_HEX64)
    stage: str = Field(max_length=40)
    reason: str = Field(max_length=2000)
    retry: bool = False
    circumstances: str = Field(default="", max_length=500)
    final: bool = False

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        # Records of format 1 know no circumstances, and keep the bytes that they had.
        document: dict[str, object] = handler(self)
        return document if self.circumstances else {k: v for k, v in document.items() if k not in _SINCE_2}


_SINCE_2 = ("circumstances", "final")


class Rounding(Frozen):
    """What storing rows in fewer bits costs, measured on one task.

    Attributes
    ----------
    relative : float
        Largest ``|stored - x| / |x|`` of a row (Euclidean norms).
    cosine : float
        Smallest cosine of a row with its stored form, the task's mean row taken out of both: raw cosines hide what
        a large common part hides. 1.0 where no row differs from the mean.
    """

    relative: float = Field(ge=0.0)
    cosine: float = Field(ge=-1.0, le=1.0)


class Drift(Frozen):
    """What reduced precision costs against float32, measured on a few images.

    Attributes
    ----------
    images : int
    relative : float
        Largest ``|reduced - x| / |x|`` of a row (Euclidean norms).
    cosine, mean_cosine : float
        Smallest and mean cosine of a row with its float32 one, the mean row taken out of both: raw cosines hide what
        a large common part hides.
    """

    format: Literal[1] = 1
    images: int = Field(ge=1)
    relative: float = Field(ge=0.0)
    cosine: float = Field(ge=-1.0, le=1.0)
    mean_cosine: float = Field(ge=-1.0, le=1.0)


class Record(Frozen):
    """A shard's commit: the shard counts when this exists and is sound.

    `blocks_root` is sha256 over the block hashes in order; the hashes themselves lie in ``<id>-<sha16>.blocks``.
    Each block's hash covers the shard's id, the block's position and its bytes. `supersedes` names the files of records
    that this one replaces; `rounding` is there for stored types of fewer bits than the computed ones.
    """

    format: Literal[1, 2] = 1
    id: str = Field(pattern=r"^[0-9a-f]{16}$")
    recipe: str = Field(pattern=_HEX64)
    rows: int = Field(ge=0, le=1 << 32)
    shape: tuple[int, ...]
    dtype: RowType
    file_sha256: str = Field(pattern=_HEX64)
    file_bytes: int = Field(ge=0, le=1 << 62)
    features_offset: int = Field(ge=0, le=1 << 62)
    content_offset: int = Field(ge=0, le=1 << 62)
    content_sha256: str = Field(pattern=_HEX64)
    block_rows: int = Field(ge=1, le=1 << 32)
    blocks_root: str = Field(pattern=_HEX64)
    rejected: tuple[RejectedContent, ...] = ()
    supersedes: tuple[str, ...] = ()
    rounding: Rounding | None = None
    environment: Mapping[str, str]
    canary: str = Field(pattern=_HEX64)

    @model_validator(mode="after")
    def _says_its_format(self) -> Self:
        if self.format < RECORD_FORMAT and any(why.circumstances for why in self.rejected):
            raise ValueError("format 1 has no circumstances")
        return self

    @property
    def shard(self) -> str:
        """Name the shard's file."""
        return f"{self.id}-{self.file_sha256[:16]}.h5"

    @property
    def blocks(self) -> str:
        """Name the file of block hashes."""
        return f"{self.id}-{self.file_sha256[:16]}.blocks"


@dataclass(frozen=True)
class Cache:
    """Where things lie below the cache's root, and its fallback URL."""

    root: Path
    remote: str | None = field(default=None, repr=False)  # may hold a password

    @classmethod
    def at(cls, given: str | os.PathLike[str] | None, remote: str | None = None) -> Cache:
        """Open the cache at `given`, ``$BOTTLENECK_CACHE`` or the user's cache folder."""
        chosen = given or os.environ.get("BOTTLENECK_CACHE")
        if not chosen:
            import platformdirs

            chosen = platformdirs.user_cache_dir("bottleneck-features", appauthor=False)
        return cls(Path(chosen).expanduser().absolute(), remote and remote.rstrip("/"))

    @property
    def scans(self) -> Path:
        """Locate the scan indexes, which are disposable."""
        return self.root / "scans"

    @property
    def bases(self) -> Path:
        """Locate digests of known weights, and unpacked weights."""
        return self.root / "bases"

    @property
    def stores(self) -> Path:
        """Locate the feature stores."""
        return self.root / "stores"

    @property
    def fetched(self) -> Path:
        """Locate fetched tables, archives and shards, which are disposable."""
        return self.root / "remote"
