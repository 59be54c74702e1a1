"""Weights of runs on the toy network, and what changed in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bottleneck import runs
from bottleneck.bases.load import load_base
from bottleneck.pipeline.finetune import FineTuned
from bottleneck.pipeline.session import cache_at

#: Enough to move weights, little enough to stay sane.
RATE = 3e-3


def weights_of(done: FineTuned | Path) -> dict[str, np.ndarray]:
    """All weights of a run's base, layer by layer, and its head's, by name."""
    import keras

    folder = runs.read_run(done) if isinstance(done, Path) else done.folder
    if folder.run.request.base.endswith(".keras"):
        model = keras.saving.load_model(folder.run.request.base)
    else:
        model = load_base(folder.run.request, cache_at(None)).model
    found = {weight.path: weight.numpy() for weight in model.weights}
    return found | {f"head/{name}": array for name, array in folder.head().arrays_.items()}


def changed(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> set[str]:
    return {name for name in before if before[name].tobytes() != after[name].tobytes()}
