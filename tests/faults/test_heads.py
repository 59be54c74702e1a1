"""Pickles in place of heads, and heads where they were not trained: rows 48 and 80."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bottleneck
from bottleneck.errors import BottleneckError
from tests.fakes import write_images
from tests.faults.reference_stores import FAKE
from tests.in_process import Call


class Bomb:
    """Pickled, it makes a folder when it is read."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.marker,)


# ----------------------------------------------------------------------------------------------------- 48: pickles


@pytest.mark.fault(48)
@pytest.mark.parametrize("name", ["head.pkl", "head.joblib", "head.npy", "head.keras", "run"])
def test_a_pickle_is_never_read(call: Call, tmp_path: Path, name: str) -> None:
    """Given as a run, a model, a base or weights, and lying in a run's folder in place of its own files."""
    source = write_images(tmp_path / "in", {"cat": 6, "dog": 6})
    marker, bomb = tmp_path / "ran", tmp_path / name
    if name == "run":
        assert call("train", source, "--base", FAKE, "--run", bomb).status == 0
        parts = [path for path in sorted(bomb.rglob("*")) if path.suffix in (".npz", ".json")]
        assert len(parts) >= 3
        for part in parts:
            whole = part.read_bytes()
            part.write_bytes(pickle.dumps(Bomb(marker)))
            said = call("evaluate", "--trust", bomb, source)
            assert said.status in (1, 2) and part.name in said.err, said.err
            part.write_bytes(whole)
        assert call("predict", "--trust", bomb, source).status == 0
    elif name.endswith(".npy"):
        np.save(bomb, np.array([Bomb(marker)], dtype=object), allow_pickle=True)
    else:
        bomb.write_bytes(pickle.dumps(Bomb(marker)))
    if name != "run":
        for command in (
            ("predict", bomb, source),
            ("evaluate", bomb),
            ("merge", bomb, "--out", tmp_path / "out.keras"),
            ("extract", source, "--base", bomb, "--preprocessing", "none"),
            ("extract", source, "--base", "squeezenet", "--weights", bomb),
        ):
            said = call(*command)
            assert said.status in (1, 2), (command, said.out)
            assert "Traceback" not in said.err
    assert not marker.exists()
    bomb = tmp_path / "control"
    bomb.write_bytes(pickle.dumps(Bomb(marker)))
    pickle.loads(bomb.read_bytes())
    assert marker.exists(), "the bomb is a real one"


# ----------------------------------------------------------------------------------- 80: grafted where it does not fit


@pytest.fixture(scope="module")
def grafted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run on a base of several cuts of one width, and its cache."""
    import keras

    place = tmp_path_factory.mktemp("grafted")
    source = write_images(place / "in", {"cat": 10, "dog": 10}, size=(16, 16))
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(6, 3, padding="same", activation="relu", name="first")(image)
    x = keras.layers.Conv2D(6, 3, padding="same", activation="relu", name="second")(x)
    keras.Model(image, keras.layers.GlobalAveragePooling2D(name="pool")(x)).save(place / "net.keras")
    bottleneck.train(
        source,
        str(place / "net.keras"),
        run=place / "run",
        cut="second",
        pooling="avg",
        preprocessing="scale=1/255",
        cache=place / "cache",
    )
    bottleneck.merge(place / "run", place / "good.keras")
    return place / "run", place


EDITS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another layer": lambda d: d["request"].update(cut="first"),
    "another pooling": lambda d: d["request"].update(pooling="max"),
    "no pooling": lambda d: d["request"].update(pooling="none"),
    "another resize": lambda d: d["request"].update(resize="crop"),
    "other preprocessing": lambda d: d["request"].update(
        preprocessing={"channels": "bgr", "scale": [1 / 255], "offset": [0.0]}
    ),
    "a layer that is not there": lambda d: d["request"].update(cut="third"),
    "spec of another pooling": lambda d: d["spec"]["recipe"].update(pooling="max"),
    "spec and request of another pooling": lambda d: (
        d["spec"]["recipe"].update(pooling="max"),
        d["request"].update(pooling="max"),
    ),
    "classes in another order": lambda d: d["classes"].reverse(),
    "another class": lambda d: d["classes"].append("owl"),
}


@pytest.mark.keras
@pytest.mark.fault(80)
@pytest.mark.parametrize("name", EDITS)
def test_a_head_is_not_grafted_where_it_was_not_trained(
    grafted: tuple[Path, Path], tmp_path: Path, name: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(grafted[0], run)
    document = json.loads((run / "run.json").read_text())
    EDITS[name](document)
    (run / "run.json").write_text(json.dumps(document))
    with pytest.raises(BottleneckError):
        bottleneck.merge(run, tmp_path / "model.keras")
    assert not (tmp_path / "model.keras").exists()
