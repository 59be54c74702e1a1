"""Predict hours and gigabytes of a run from a timed sample."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from bottleneck.extraction.forecast.recommend import Machine, Suggestion, suggest
from bottleneck.extraction.profile import explain_profile
from bottleneck.extraction.worker.trial import Trial
from bottleneck.schema import StoreSpec, Task, json_fields
from bottleneck.schema.base import RowType
from bottleneck.store.plan import Plan, task_id

#: Bytes of a content's key beside its row.
_KEY = 32


@dataclass(frozen=True)
class Prediction:
    """What an extraction will take on this machine, told from a sample.

    Attributes
    ----------
    seconds : float
        From the start of the command to its end: the scan, the base, the images, the commits.
    images_per_second : float
        Steady rate, from files to rows.
    bytes : int
        On disk, with keys and records.
    bytes_by_dtype : mapping of str to int
        The same for each storage type.
    sampled : int
        Images that were timed.
    batch : int
        Images a forward pass.
    bottleneck : str
        One line: the stage that bounds it, and what would help.
    suggested : Suggestion
    """

    seconds: float
    images_per_second: float
    bytes: int
    bytes_by_dtype: Mapping[str, int]
    sampled: int
    batch: int
    bottleneck: str
    suggested: Suggestion

    def to_json(self) -> dict[str, Any]:
        """Describe the prediction for a program."""
        return {
            "seconds": round(self.seconds, 1),
            "images_per_second": round(self.images_per_second, 2),
            **json_fields(self, "bytes", "bytes_by_dtype", "sampled", "batch", "bottleneck", "suggested"),
        }


def sample_task(todo: Plan, seed: int = 0) -> Task:
    """Draw a task's worth of images; any beginning is a fair sample."""
    rows = np.random.default_rng(seed).permutation(todo.rows)[: todo.task_rows]
    keys = np.ascontiguousarray(todo.inventory.keys[rows])
    paths = todo.inventory.table.column("path").take(rows).to_pylist()
    return Task(task_id(keys), keys, tuple(paths), todo.views)


def forecast_run(
    plans: Sequence[Plan], spec: StoreSpec, trial: Trial, ready: float, machine: Machine
) -> Prediction:
    """Predict what `plans` take, at the pace of `trial`.

    One of `plans` may be of views: they are counted at the pace of images, though those of one image share its
    decoding. `ready` is the seconds until the images were known, and the base, where it had to be built for that. The
    sample ran on `machine`.
    """
    images, tasks = sum(todo.images for todo in plans), sum(len(todo) for todo in plans)
    each = trial.seconds / trial.images
    values = math.prod(spec.shape)
    by_dtype = {
        dtype: images * (values * np.dtype(dtype).itemsize + _KEY) + tasks * trial.overhead
        for dtype in get_args(RowType)
    }
    seconds = ready + trial.start + images * each + tasks * trial.write
    return Prediction(
        seconds=seconds,
        images_per_second=1 / each,
        bytes=by_dtype[spec.recipe.dtype],
        bytes_by_dtype=by_dtype,
        sampled=trial.images,
        batch=trial.batch,
        bottleneck=explain_profile(trial.clock),
        suggested=suggest(trial.clock, seconds, trial.batch, spec.recipe.precision, machine),
    )
