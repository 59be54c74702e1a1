"""Heads, splits, training runs, and the certificate of a merged model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from bottleneck.schema.base import BaseRequest, StoreSpec
from bottleneck.schema.values import Frozen
from bottleneck.schema.views import Views


class HeadSpec(Frozen):
    """A head by catalog name with its settings."""

    name: str
    settings: Mapping[str, Any] = Field(default_factory=dict)


class SplitPolicy(Frozen):
    """How images are divided. `hash`: by key against a threshold; `exact`: stratified, frozen in the run."""

    kind: Literal["hash", "exact"] = "hash"
    validation: float = Field(default=0.2, ge=0.0, lt=1.0)
    seed: int = 0


class Run(Frozen):
    """What a training run was made of; later commands take everything from here."""

    format: Literal[1] = 1
    name: str
    source: str
    cache: str
    request: BaseRequest
    spec: StoreSpec
    head: HeadSpec
    split: SplitPolicy
    classes: tuple[str, ...]
    views: Views | None = None
    created: str
    versions: Mapping[str, str]


class Difference(Frozen):
    """How far one form lies from the reference in one quantity, relative to its spread between images."""

    quantity: Literal["features", "logits", "probabilities"]
    largest: float
    mean: float
    spread: float


class Comparison(Frozen):
    """One form (or broken twin) against the cached head on one set of images."""

    form: str
    images: str
    count: int
    differences: tuple[Difference, ...]
    top1: float = Field(ge=0.0, le=1.0)
    passed: bool


class Certificate(Frozen):
    """The verdict on a merged model: `certified`, `different` or `no power`.

    `drift` is there for stores of reduced dtype: the head on the stored rows, against the reference, which is then
    the head on float32 features; it passes by top-1 agreement.
    """

    format: Literal[1] = 1
    verdict: Literal["certified", "different", "no power"]
    tolerance: float
    recipe: str
    head: str
    forms: tuple[Comparison, ...]
    twins: tuple[Comparison, ...]
    drift: tuple[Comparison, ...] = ()
