"""Collect and commit the rows of a task at one cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bottleneck.errors import Rejected
from bottleneck.extraction.worker.messages import Care
from bottleneck.forward.drift import measure_rounding
from bottleneck.schema import RejectedContent, Rejection, Rounding, StoreSpec, Task
from bottleneck.store.commit import commit


@dataclass(frozen=True)
class RowTarget:
    """Where rows of a cut go; `pace` is seconds a pass."""

    shards: Path
    spec: StoreSpec
    environment: Mapping[str, str]
    canary: str
    pace: float = 0.0
    cut: int = 0


class RowWriter:
    """Keeps the finite rows of one cut, in task order."""

    def __init__(self, task: Task, target: RowTarget, care: Care) -> None:
        self.target, self._spec = target, target.spec
        self._stored = np.dtype(target.spec.recipe.dtype)
        shape = (len(task.keys), *target.spec.shape)
        self.features = np.empty(shape, self._stored)
        # What rounding costs is measured against the rows before it.
        self._full = np.empty(shape, np.float32) if self._stored != np.float32 else None
        self.kept: list[int] = []
        self.rejections: list[Rejection] = [care.refused[index] for index in sorted(care.refused)]

    def add(self, index: int, full: np.ndarray) -> Rejected | None:
        """Keep the row of an image, or say why not."""
        with np.errstate(over="ignore"):
            row = full.astype(self._stored, copy=False)
        if not np.isfinite(row).all():
            return _not_finite(full, self._spec)
        self.features[len(self.kept)] = row
        if self._full is not None:
            self._full[len(self.kept)] = full
        self.kept.append(index)
        return None

    def commit(self, task: Task) -> None:
        """Write one shard and its record, where there is any content."""
        bad = [RejectedContent(**r.model_dump(exclude={"path"})) for r in self.rejections if r.content]
        if not self.kept and not bad:
            return
        commit(
            self.target.shards,
            task.id,
            self._spec,
            np.ascontiguousarray(task.keys[self.kept]),
            self.features[: len(self.kept)],
            rejected=bad,
            environment=self.target.environment,
            canary=self.target.canary,
            rounding=self._rounding(),
        )

    def _rounding(self) -> Rounding | None:
        if self._full is None or not self.kept:
            return None
        return measure_rounding(self._full[: len(self.kept)], self.features[: len(self.kept)])


def _not_finite(row: np.ndarray, spec: StoreSpec) -> Rejected:
    if np.isfinite(row).all():
        largest = float(np.abs(row).max())
        return Rejected(
            "forward", f"a feature of {largest:g} does not fit float16 (65504); use --dtype float32"
        )
    return Rejected("forward", f"the base {spec.base} gave NaN or infinity for this image")
