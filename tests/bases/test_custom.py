from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottleneck.errors import BaseError, UnknownName, UsageError
from bottleneck.schema import BaseRequest, Cache, Preprocessing
from tests.bases import networks, odd_models

TF = Preprocessing.parse("tf")


def request(base: str = "mine", **options: Any) -> BaseRequest:
    return BaseRequest(base=base, **{"preprocessing": TF, **options})


@pytest.mark.keras
def test_a_keras_file(tmp_path: Path) -> None:
    from bottleneck.bases.load import load_base

    path = tmp_path / "alexnet.keras"
    networks.plain(prefix="x_").save(path)
    base = load_base(request(str(path), cut="x_join", pooling="avg"), Cache(tmp_path))
    assert (base.name, base.cut, base.spec.shape, base.size) == ("alexnet", "x_join", (8,), 16)
    pixels = np.random.default_rng(0).random((2, 16, 16, 3), np.float32) * 255
    expected = np.asarray(base.model(pixels * np.float32(1 / 127.5) - 1)).mean((1, 2))
    np.testing.assert_allclose(np.asarray(base.features_model(pixels)), expected, rtol=1e-4, atol=1e-6)
    assert base.digest_now() == base.spec.recipe.base_digest
    with pytest.raises(UsageError, match=r"needs --preprocessing.*caffe"):
        load_base(BaseRequest(base=str(path)), Cache(tmp_path))
    with pytest.raises(UsageError, match="brings its own weights"):
        load_base(request(str(path), weights="random:0"), Cache(tmp_path))


@pytest.mark.fault(49)
@pytest.mark.keras
def test_code_in_a_keras_file_is_refused(tmp_path: Path) -> None:
    import keras

    from bottleneck.bases.load import load_base

    class Odd(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return x

    image = keras.Input((16, 16, 3))
    keras.Model(image, keras.layers.Lambda(lambda x: x * 2)(image)).save(tmp_path / "lambda.keras")
    keras.Model(image, Odd()(image)).save(tmp_path / "odd.keras")
    (tmp_path / "rubbish.keras").write_bytes(b"no zip")
    for name, match in (
        ("lambda", "Lambda layer, which is code"),
        ("odd", "module:function"),
        ("rubbish", "cannot be read: not a zip"),
        ("gone", "no such file"),
    ):
        with pytest.raises(BaseError, match=match):
            load_base(request(str(tmp_path / f"{name}.keras")), Cache(tmp_path))


@pytest.mark.keras
def test_a_file_is_not_blamed_for_the_folder_of_its_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bottleneck.bases.custom import load_archive

    networks.plain().save(tmp_path / "sound.keras")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(BaseError, match=r"sound\.keras: no room for a copy: .*TMPDIR to another folder$"):
        load_archive(tmp_path / "sound.keras")


@pytest.mark.keras
def test_a_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bottleneck.bases.load import load_base

    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_nets.py").write_text(
        "import keras\nfrom tests.bases.networks import plain\n"
        "def fresh():\n"
        "    i = keras.Input((16, 16, 3))\n"
        "    return keras.Model(i, keras.layers.Conv2D(4, 3)(i))\n"
        "def nothing():\n    return 5\n"
        "def fails():\n    raise RuntimeError('no luck')\n"
    )
    base = load_base(request("my_nets:plain"), Cache(tmp_path))
    assert (base.name, base.spec.shape) == ("my_nets_plain", (5,))
    first, second = (
        load_base(request("my_nets:fresh", weights="random:3"), Cache(tmp_path)) for _ in range(2)
    )
    assert first.spec == second.spec
    assert first.spec.shape == (14, 14, 4)
    for reference, match in (
        ("my_nets:nothing", "returned a int"),
        ("my_nets:fails", "RuntimeError: no luck"),
        ("my_nets:gone", "AttributeError"),
        ("not_there_at_all:f", "No module named"),
    ):
        with pytest.raises(BaseError, match=match):
            load_base(request(reference), Cache(tmp_path))
    with pytest.raises(UnknownName, match="nearest: vgg16"):
        load_base(request("vgg-16"), Cache(tmp_path))


@pytest.mark.keras
def test_a_model_object_and_what_it_must_be() -> None:
    import keras
    from keras import layers

    from bottleneck.bases.load import load_model

    one, two = keras.Input((8, 8, 3), name="one"), keras.Input((8, 8, 3), name="two")
    row, deep, flat = keras.Input((8,)), keras.Input((8, 8, 4)), keras.Input((8, 6, 3))
    whole, lam = keras.Input((8, 8, 3), dtype="uint8"), keras.Input((8, 8, 3))
    cases = [
        (keras.Model([one, two], layers.Add()([one, two])), "2 inputs"),
        (keras.Model(row, layers.Dense(2)(row)), "one image"),
        (keras.Model(deep, layers.Conv2D(2, 1)(deep)), "1 or 3 channels"),
        (keras.Model(flat, layers.Conv2D(2, 1)(flat)), "square"),
        (keras.Model(whole, layers.Rescaling(2.0)(whole)), "uint8"),
        (keras.Model(lam, layers.Lambda(lambda x: x)(lam)), "Lambda"),
        (keras.Sequential([layers.Conv2D(2, 3)]), "--size"),
    ]
    for model, match in cases:
        with pytest.raises(BaseError, match=match):
            load_model(model, [request()])
    with pytest.raises(BaseError, match="leave it out"):
        load_model(networks.plain(), [request(size=20)])
    with pytest.raises(BaseError, match="give --size"):
        load_model(networks.plain(size=None), [request()])
    with pytest.raises(UsageError, match=r"keras\.Model"):
        load_model(5, [request()])
    (sized,) = load_model(networks.plain(size=None), [request(size=20)])
    assert sized.model.input_shape == (None, 20, 20, 3)
    same = load_model(networks.plain(), [request()])[0].spec.recipe.base_digest
    assert sized.spec.recipe.base_digest == same
    (built,) = load_model(keras.Sequential([layers.Conv2D(2, 3), layers.ReLU()]), [request(size=9)])
    assert built.spec.shape == (7, 7, 2)
    grey = keras.Input((8, 8, 1))
    model = keras.Model(grey, layers.Conv2D(2, 3)(grey))
    with pytest.raises(UsageError, match="channels=grey"):
        load_model(model, [request()])
    (base,) = load_model(
        model, [request(preprocessing=Preprocessing.parse("channels=grey,scale=1/255,offset=0"))]
    )
    assert base.features_model.input_shape == (None, 8, 8, 3)


@pytest.mark.keras
def test_a_class_that_says_it_is_keras_own_is_foreign_all_the_same() -> None:
    from bottleneck.bases.custom import foreign

    assert foreign(networks.plain()) == []
    assert foreign(odd_models.build(odd_models.DIFFERENT["class that says it is Keras'"], 0)) == [
        "keras.layers:Own"
    ]


@pytest.mark.keras
def test_a_subclassed_model_is_cut_at_its_output_only() -> None:
    import keras

    from bottleneck.bases.inference_only import freeze_base
    from bottleneck.bases.load import load_model

    class Net(keras.Model):
        def __init__(self, width: int = 4, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.conv = keras.layers.Conv2D(width, 3)
            self.drop = keras.layers.Dropout(0.5)

        def call(self, x: Any, training: bool | None = None) -> Any:
            return self.drop(self.conv(x), training=training)

    net = Net()
    (base,) = load_model(net, [request(size=8)])
    assert base.spec.shape == (6, 6, 4)
    x = np.ones((1, 8, 8, 3), np.float32)
    np.testing.assert_array_equal(
        np.asarray(freeze_base(base.model)(x, training=True)), np.asarray(net(x, training=False))
    )
    with pytest.raises(UnknownName, match="output only"):
        load_model(net, [request(size=8, cut="conv")])
    with pytest.raises(BaseError, match="--size"):
        load_model(Net(), [request()])
