"""Heads, splits and training runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from bottleneck.schema.base import BaseRequest, StoreSpec
from bottleneck.schema.tuning import Tuned
from bottleneck.schema.values import Frozen
from bottleneck.schema.views import Views


class HeadSpec(Frozen):
    """A head by catalog name with its settings."""

    name: str
    settings: Mapping[str, Any] = Field(default_factory=dict)


class FitFacts(Frozen):
    """How a head was fitted.

    `rows` is "in memory" or "streamed", `why` the reason; `converged` and `gap` (how far the objective may lie above
    its least value, as a part of it) are None for heads without them.
    """

    solver: str | None = None
    rows: str | None = None
    why: str | None = None
    iterations: int | None = None
    passes: int | None = None
    converged: bool | None = None
    gap: float | None = None
    accuracy: float | None = None

    def __str__(self) -> str:
        return ", ".join(text for _, text in self.lines)

    @property
    def lines(self) -> tuple[tuple[str, str], ...]:
        """Give (name, text) pairs for a table, each text readable alone."""
        counts = [
            f"{count:,} {one if count == 1 else several}"
            for count, one, several in (
                (self.iterations, "iteration", "iterations"),
                (self.passes, "pass over the rows", "passes over the rows"),
            )
            if count is not None
        ]
        found = [("head fitted by", ", ".join([self.solver or "unknown solver", *counts]))]
        if self.rows:
            found.append(("on rows", f"{self.rows} ({self.why})"))
        if self.converged is not None:
            found.append(("the fit", "converged" if self.converged else "NOT CONVERGED"))
        if self.converged is False and self.gap is not None and self.accuracy is not None:
            found.append(
                ("above the least", f"objective at most {self.gap:.1g} of its value above the least")
            )
            found.append(("on training rows", f"training accuracy {self.accuracy:.4f}"))
        return tuple(found)


#: What a merged model may say of an image besides its probabilities.
Score = Literal["energy"]


#: Why nothing was held out: the `why` of such a `SplitPolicy`.
NAMED_BY_SOURCE = "the source names the validation images"


class SplitPolicy(Frozen):
    """How images are divided.

    `hash`: by key against a threshold; `exact`: stratified; `auto`: one of these by the size of the classes,
    see `bottleneck.inventory.split.resolve_split`. A run holds what `auto` came to, and `why` says the reason; where
    that is `NAMED_BY_SOURCE`, nothing was held out, whatever was asked for.
    """

    kind: Literal["auto", "hash", "exact"] = "hash"
    validation: float = Field(default=0.2, ge=0.0, lt=1.0)
    seed: int = 0
    why: str = ""


class Run(Frozen):
    """What a training run is made of, for all later commands.

    `tuned` is there for a run that came from another one by fine-tuning. Where its base did not stay as it was, the
    base is a `.keras` file in the run's own folder, which `request` names relative to that. `files` are sha256 of the
    other files of the run, by their path in its folder; a run of format 1 names none.
    """

    format: Literal[1, 2] = 2
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
    tuned: Tuned | None = None
    files: Mapping[str, str] = Field(default_factory=dict)
