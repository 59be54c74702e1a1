from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bottleneck.bases import specs
from bottleneck.errors import BaseError, UnknownName
from bottleneck.schema import BaseRequest, Cache


@pytest.mark.keras
@pytest.mark.parametrize(
    "name",
    [
        "vgg16",
        "resnet50",
        "resnet50v2",
        "inceptionv3",
        "mobilenetv2",
        "mobilenetv3small",
        "efficientnetb0",
        "convnexttiny",
    ],
)
def test_the_table_tells_the_truth(name: str) -> None:
    from scripts.check_bases import check

    assert check(specs()[name], with_top=False) == []


@pytest.mark.keras
def test_every_builder_of_keras_is_there() -> None:
    import keras

    builders = {n.lower() for n in dir(keras.applications) if n[0].isupper()}
    assert builders == set(specs()) - {"squeezenet", "vggface_vgg16", "inception_v4"}


@pytest.mark.keras
def test_blocks_from_the_top() -> None:
    from bottleneck.bases import family_of
    from bottleneck.bases.layer_names import blocks_of

    def blocks(name: str) -> list[str]:
        spec = specs()[name]
        model = family_of(name).build(spec, top=False, size=96)
        found = blocks_of(model, spec.blocks)
        layers = [layer for _, members in found for layer in members]
        assert layers == [operation.name for operation in model.operations]
        return [block for block, _ in found]

    assert blocks("vgg16") == [f"block{i}" for i in range(1, 6)]
    assert blocks("inceptionv3")[-2:] == ["mixed9", "mixed10"]
    assert blocks("resnet50")[-1] == "conv5_block3"
    assert blocks("mobilenetv2")[-2:] == ["block_16", "Conv_1"]
    assert blocks("squeezenet")[-2:] == ["fire8", "fire9"]


@pytest.mark.keras
def test_names_do_not_depend_on_what_was_built_before(tmp_path: Path) -> None:
    from bottleneck.bases.load import load_base

    request = BaseRequest(base="mobilenetv3small", weights="random:0", size=32)
    first, second = load_base(request, Cache(tmp_path)), load_base(request, Cache(tmp_path))
    assert first.cut == second.cut == "activation_17"
    assert first.spec == second.spec
    # The default cut is the average that Keras' own classifier sees.
    x = np.random.default_rng(0).random((2, 32, 32, 3), np.float32) * 255
    maps = np.asarray(first.model(x))
    np.testing.assert_allclose(np.asarray(first.features_model(x)), maps.mean((1, 2)), rtol=1e-4, atol=1e-5)


@pytest.mark.keras
def test_cuts_in_the_top(tmp_path: Path) -> None:
    from bottleneck.bases.load import load_base

    cache = Cache(tmp_path)
    with pytest.raises(BaseError, match=r"--size 96.*vgg16, which exists at 224 only.*pool5"):
        load_base(BaseRequest(base="vgg16", cut="fc6", size=96, weights="random:0"), cache)
    with pytest.raises(BaseError, match="32 or more"):
        load_base(BaseRequest(base="vgg16", size=16, weights="random:0"), cache)
    by_name = load_base(
        BaseRequest(base="MobileNetV2", cut="global_average_pooling2d", weights="random:0"), cache
    )
    assert (by_name.name, by_name.spec.shape) == ("mobilenetv2", (1280,))
    with pytest.raises(UnknownName, match=r"nearest: .*out_relu \(7, 7, 1280\)"):
        load_base(BaseRequest(base="mobilenetv2", cut="out_rel", weights="random:0"), cache)


@pytest.mark.keras
def test_the_penultimate_row_of_convnext_is_its_own(tmp_path: Path) -> None:
    """Without the top the builder pools, then normalises: the same numbers as below the classifier."""
    import keras

    from bottleneck.bases.load import load_base

    base = load_base(BaseRequest(base="convnexttiny", weights="random:0", size=32), Cache(tmp_path))
    whole = keras.applications.ConvNeXtTiny(weights=None, input_shape=(32, 32, 3))
    for layer, value in zip(whole.weights[:-2], base.model.weights, strict=True):
        layer.assign(value)
    x = np.random.default_rng(0).random((2, 32, 32, 3), np.float32) * 255
    expected = keras.Model(whole.input, whole.layers[-2].output)(x)
    np.testing.assert_allclose(np.asarray(base.features_model(x)), np.asarray(expected), rtol=1e-4, atol=1e-5)
