"""What fine-tuning refuses, before it computes and under way."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bottleneck
from bottleneck.errors import BaseError, TuningError, UnknownName, UsageError
from bottleneck.finetuning.stage_training import StageProgram
from tests.models.tiny_network import PREPROCESSING

pytestmark = [pytest.mark.keras, pytest.mark.usefixtures("in_this_process")]


def test_a_statistic_that_moves_stops_the_run_and_leaves_the_one_before(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn = StageProgram.learn

    def careless(self: StageProgram, *arguments: Any) -> np.ndarray:
        variable = self.chain.tail.layers["block3_norm"].moving_mean
        variable.assign(variable + 1e-7)
        return learn(self, *arguments)

    monkeypatch.setattr(StageProgram, "learn", careless)
    with pytest.raises(TuningError, match=r"layer 'block3_norm': its frozen weight 'moving_mean' moved by"):
        bottleneck.finetune(place / "dense", "top:1", to=place / "moved", epochs=2)
    assert not (place / "moved" / "run.json").exists()


def test_a_loss_that_is_no_number_stops_the_run_with_advice(place: Path) -> None:
    with pytest.raises(TuningError, match=r"epoch 1: .*(nan|inf).*lower --rate"):
        bottleneck.finetune(place / "dense", "all", to=place / "exploded", rate=1e30, epochs=2)


def test_what_cannot_be_is_refused_before_anything_is_computed(place: Path, tmp_path: Path) -> None:
    run = place / "dense"
    with pytest.raises(UnknownName, match="nearest: block2_conv, "):
        bottleneck.finetune(run, "block2_con", to=tmp_path / "new")
    with pytest.raises(UsageError, match="top:4: the base has 3 layers with weights"):
        bottleneck.finetune(run, "top:4", to=tmp_path / "new")
    with pytest.raises(UsageError, match="is the run that the fine-tuning begins from"):
        bottleneck.finetune(run, "top:1", to=run)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("mine")
    with pytest.raises(UsageError, match=r"holds other things \(chapter.tex\)"):
        bottleneck.finetune(run, "top:1", to=tmp_path / "thesis")
    with pytest.raises(UsageError, match="changes nothing"):
        bottleneck.finetune(run, "top:1", to=tmp_path / "new", augment="seed=1")
    with pytest.raises(UsageError, match="epochs"):
        bottleneck.finetune(run, "top:1", to=tmp_path / "new", epochs=0)
    with pytest.raises(UsageError, match="nothing to unfreeze"):
        bottleneck.finetune(run, [], to=tmp_path / "new")


def test_a_base_that_changed_since_the_run_is_refused(place: Path, tmp_path: Path) -> None:
    import keras

    from tests.bases.networks import fill
    from tests.models.tiny_network import network

    shutil.copytree(place / "dense", tmp_path / "run")
    base = tmp_path / "toy.keras"
    network().save(base)
    document = json.loads((tmp_path / "run" / "run.json").read_text())
    document["request"]["base"] = str(base)
    (tmp_path / "run" / "run.json").write_text(json.dumps(document))
    bottleneck.finetune(tmp_path / "run", "top:1", epochs=1)
    fill(keras.saving.load_model(base), seed=5).save(base)
    with pytest.raises(BaseError, match="is not the one that run dense was trained on"):
        bottleneck.finetune(tmp_path / "run", "top:1", epochs=1)


def test_rows_of_another_network_in_the_cache_are_noticed(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bottleneck.forward import keras_forward

    several = keras_forward.KerasForward.several

    def otherwise(self: Any, pixels: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(rows * np.float32(1.01) for rows in several(self, pixels))

    cache = tmp_path / "cache"
    bottleneck.evaluate(place / "dense", cache=cache)
    with monkeypatch.context() as patch:
        patch.setattr(keras_forward.KerasForward, "several", otherwise)
        bottleneck.extract(
            place / "in", str(place / "toy.keras"), preprocessing=PREPROCESSING, cut="block2_out", pooling="none",
            cache=cache,
        )  # fmt: skip
    with pytest.raises(TuningError, match=r"cached rows of block2_out and those of the base.*--full"):
        bottleneck.finetune(place / "dense", "top:1", to=tmp_path / "new", cache=cache)
