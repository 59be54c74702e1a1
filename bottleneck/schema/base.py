"""Requests for a base, its facts, and the recipe of rows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from pydantic import Field

from bottleneck.schema.pixels import Pixels, Preprocessing, Resize
from bottleneck.schema.values import Frozen, json_fields, safe_name
from bottleneck.schema.views import ViewPolicy

Pooling = Literal["none", "avg", "max"]
Precision = Literal["float32", "bfloat16", "float16"]
AskedPrecision = Literal["float32", "bfloat16", "float16", "auto"]
RowType = Literal["float32", "float16"]

TASK_ROWS = 1024
TASK_BYTES = 128 << 20


class BaseRequest(Frozen):
    """What the user asks of a base: the BASE options, parsed.

    None means the base's own default.
    """

    base: str
    weights: str | None = None
    cut: str | None = None
    pooling: Pooling | None = None
    size: int | None = Field(default=None, ge=1, le=8192)
    resize: Resize = "stretch"
    preprocessing: Preprocessing | None = None
    precision: AskedPrecision = "float32"
    dtype: RowType = "float32"
    batch: int | None = Field(default=None, ge=1, le=65536)

    def computed_in(self, precision: Precision) -> BaseRequest:
        """Fix the precision that `auto` resolved to, for any machine."""
        return self.model_copy(update={"precision": precision})


class Recipe(Frozen):
    """Everything that changes the numbers of a feature row, and nothing else.

    The layer at the cut is the last node that `base_digest` covers, so its name is no part of the identity.
    """

    base_digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    pooling: Pooling
    pixels: Pixels
    preprocessing: Preprocessing
    precision: Precision
    dtype: RowType

    @cached_property
    def fingerprint(self) -> str:
        """Hash the canonical form: 64 hex digits of sha256."""
        return hashlib.sha256(b"bottleneck recipe 1\n" + self.canonical()).hexdigest()


class StoreSpec(Frozen):
    """A recipe with its names and the shape of its rows.

    With `views`, the store holds augmented views of the images instead, made by that policy.
    """

    base: str
    cut: str
    shape: tuple[int, ...]
    recipe: Recipe
    views: ViewPolicy | None = None

    @property
    def folder(self) -> str:
        """Name the store's folder."""
        return f"{safe_name(self.base)}-{safe_name(self.cut)}{self.ending}"

    @property
    def ending(self) -> str:
        """Give the part of the folder's name that tells recipes apart."""
        views = f"-views-{self.views.fingerprint[:8]}" if self.views else ""
        return f"-{self.recipe.fingerprint[:12]}{views}"

    @property
    def identity(self) -> str:
        """Name what a shard's record is bound to: recipe and view policy."""
        if self.views is None:
            return self.recipe.fingerprint
        both = self.recipe.fingerprint + self.views.fingerprint
        return hashlib.sha256(b"bottleneck views of a recipe 1\n" + both.encode("ascii")).hexdigest()

    @property
    def row_bytes(self) -> int:
        """Count the bytes of one stored row."""
        count = 1
        for extent in self.shape:
            count *= extent
        return count * (2 if self.recipe.dtype == "float16" else 4)

    @property
    def task_rows(self) -> int:
        """Count the rows of one task: 1,024, fewer above 128 MiB."""
        return max(1, min(TASK_ROWS, TASK_BYTES // max(1, self.row_bytes)))

    def summary(self) -> dict[str, Any]:
        """Name base, cut, shape and recipe for a program."""
        names = json_fields(self, "base", "cut", "shape")
        return {**names, "recipe": self.recipe.fingerprint}


@dataclass(frozen=True)
class CutPoint:
    """The layer, pooling and need of the top behind an alias."""

    layer: str
    pooling: Pooling = "none"
    top: bool = False


@dataclass(frozen=True)
class BaseSpec:
    """The facts about a base that are known without building it.

    Parameters
    ----------
    name : str
        Catalog name.
    builder : str
        ``module:function`` that builds it.
    size : int
        Default height and width in pixels.
    preprocessing : str
        Named preprocessing it was trained with.
    cut : str
        Default cut: an alias or a layer's name.
    cuts : mapping of str to CutPoint
        Aliases such as ``pool5``, ``fc6``, ``penultimate``.
    blocks : str
        Regular expression with one group over layer names; the last layer of each value of the group ends a block.
    parameters : int
        Parameters without the top.
    feature : tuple of int
        Shape of one row at the default cut and size.
    weights : str
        Where weights come from, for a person.
    smallest : int
        Smallest height and width without the top.
    """

    name: str
    builder: str
    size: int
    preprocessing: str
    cut: str
    cuts: Mapping[str, CutPoint]
    blocks: str
    parameters: int
    feature: tuple[int, ...]
    weights: str = "imagenet (download), PATH, random:SEED"
    smallest: int = 32

    def to_json(self) -> dict[str, Any]:
        """Give the facts for a program, without the builder."""
        first = ("name", "size", "smallest", "preprocessing", "cut", "cuts")
        return json_fields(self, *first, "feature", "parameters", "blocks", "weights")
