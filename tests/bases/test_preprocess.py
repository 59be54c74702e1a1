from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bottleneck.bases.preprocess import check_channels
from bottleneck.errors import UsageError
from bottleneck.schema import PREPROCESSINGS, Preprocessing


@pytest.mark.keras
@pytest.mark.parametrize(("name", "tolerance"), [("caffe", 0.0), ("tf", 2e-7), ("torch", 2e-6)])
def test_equals_keras_own(name: str, tolerance: float) -> None:
    from keras.applications.imagenet_utils import preprocess_input

    from bottleneck.bases.preprocess import apply

    x = np.random.default_rng(0).integers(0, 256, (4, 9, 7, 3)).astype("float32")
    ours = np.asarray(apply(x, Preprocessing.parse(name)))
    assert np.abs(ours - preprocess_input(x.copy(), mode=name)).max() <= tolerance


@pytest.mark.keras
@pytest.mark.parametrize(
    "name", [*PREPROCESSINGS, "channels=grey,scale=1/255,offset=-0.5", "scale=1:2:3,offset=0"]
)
def test_survives_saving_in_safe_mode(name: str, tmp_path: Path) -> None:
    import keras

    from bottleneck.bases.preprocess import apply

    image = keras.Input((8, 8, 3))
    out = apply(image, Preprocessing.parse(name))
    if name == "none":
        assert out is image
        return
    model = keras.Model(image, out)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras", safe_mode=True)
    x = np.random.default_rng(0).random((2, 8, 8, 3), np.float32) * 255
    np.testing.assert_array_equal(np.asarray(again(x)), np.asarray(model(x)))


@pytest.mark.keras
def test_grey_is_one_channel() -> None:
    from bottleneck.bases.preprocess import apply

    x = np.full((1, 2, 2, 3), 200, np.float32)
    out = np.asarray(apply(x, Preprocessing.parse("channels=grey,scale=1/2,offset=1")))
    assert out.shape == (1, 2, 2, 1)
    np.testing.assert_allclose(out, 101, atol=0.02)


def test_channels_must_fit_the_base() -> None:
    check_channels(Preprocessing.parse("channels=grey"), 1, "mine")
    with pytest.raises(UsageError, match="channels=grey"):
        check_channels(Preprocessing.parse("tf"), 1, "mine")
    with pytest.raises(UsageError, match="takes 3"):
        check_channels(Preprocessing.parse("channels=grey"), 3, "mine")
