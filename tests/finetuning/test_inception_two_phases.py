"""InceptionV3 in one command: a new head until early stopping, then the top two inception blocks with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bottleneck import runs
from bottleneck.bases.load import load_base
from bottleneck.pipeline.session import cache_at
from tests.in_process import caller
from tests.models.tiny_network import worker_here

pytestmark = [pytest.mark.keras, pytest.mark.usefixtures("worker_here")]
__all__ = ["worker_here"]

CLASSES, EACH, SIZE = 200, 2, 75

#: The convolutions above mixed8: of mixed9 (76 to 84) and mixed10 (85 to 93).
TOP_TWO = {f"conv2d_{number}" for number in range(76, 94)}


def write_classes(folder: Path) -> Path:
    """200 classes of two pictures: a pattern of coloured squares, the class's own, under much noise."""
    draw = np.random.default_rng(0)
    for label in range(CLASSES):
        place = folder / f"{label:03d}"
        place.mkdir(parents=True)
        pattern = np.kron(draw.random((5, 5, 3)), np.ones((15, 15, 1)))
        for number in range(EACH):
            noisy = 255 * pattern + draw.normal(0, 60, (SIZE, SIZE, 3))
            Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(place / f"{number}.png")
    return folder


# scikit-learn wonders about two images a class; the labels are words.
@pytest.mark.filterwarnings("ignore:The number of unique classes is greater than 50%:UserWarning")
def test_both_phases_in_one_command(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    import keras

    source, run = write_classes(tmp_path / "in"), tmp_path / "run"
    said = caller(capfdbinary)(
        "train", source, "--base", "inceptionv3", "--weights", "random:0", "--size", SIZE, "--run", run,
        "--split", "exact", "--validation", 0.5, "--head", "dense", "--set", "hidden=1024",
        "--set", "optimizer=rmsprop", "--set", "learning_rate=0.01", "--set", "patience=2",
        "--unfreeze", "top:2", "--tune", "epochs=2", "--json",
    )  # fmt: skip
    assert said.status == 0, said.err
    document = said.json["finetuned"]

    # Phase 1 ended by early stopping.
    head = runs.read_run(run).head()
    assert head.n_iter_ == head.best_epoch_ + 2 < head.epochs
    # Phase 2: the right layers, by name, with the optimizer of the recipe, on the cached rows below them.
    (stage,) = document["tuned"]["stages"]
    assert set(stage["trained"]) == TOP_TWO
    assert stage["prefix"] == "mixed8"
    settings = document["tuned"]["settings"]
    assert (settings["optimizer"], settings["rate"], settings["momentum"]) == ("sgd", 1e-4, 0.9)
    assert document["kept"] == "after"

    before = load_base(runs.read_run(run).run.request, cache_at(None)).model
    kernels = sum(before.get_layer(name).count_params() for name in TOP_TWO)
    assert stage["parameters"] == kernels + (2048 + 1) * 1024 + (1024 + 1) * 200
    after = keras.saving.load_model(runs.read_run(document["run"]).run.request.base)
    moved, statistics = set(), 0
    for one, other in zip(before.weights, after.weights, strict=True):
        assert one.path == other.path
        if one.numpy().tobytes() != other.numpy().tobytes():
            moved.add(one.path.split("/")[-2])
        statistics += one.name in ("moving_mean", "moving_variance")
    assert statistics == 2 * 94
    assert moved == TOP_TWO
