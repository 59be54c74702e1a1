from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottleneck.errors import BaseError
from tests.bases import networks, odd_models, odd_names

pytestmark = pytest.mark.keras

DIFFERENT = odd_models.DIFFERENT | odd_names.DIFFERENT
EQUAL = odd_models.EQUAL | odd_names.EQUAL


def digest(model: Any) -> str:
    from bottleneck.bases.digest import digest

    return digest(model)


@pytest.fixture(autouse=True)
def no_module_of_a_pair_stays() -> Iterator[None]:
    yield
    sys.modules.pop("odd_names_held", None)


@pytest.fixture(scope="module")
def reference() -> str:
    return digest(networks.plain())


@pytest.mark.parametrize(
    "change",
    [
        {"prefix": "other_"},
        {"rate": 0.9},
        {"rate": 0.0},
        {"dropout": False},
        {"regularized": True},
        {"size": None},
        {"size": 32},
    ],
    ids=str,
)
def test_what_cannot_change_inference_is_not_in_it(reference: str, change: dict[str, Any]) -> None:
    assert digest(networks.plain(**change)) == reference


@pytest.mark.parametrize("change", [{"strides": 1}, {"activation": "tanh"}, {"swapped": True}], ids=str)
def test_what_changes_features_is_in_it(reference: str, change: dict[str, Any]) -> None:
    assert digest(networks.plain(**change)) != reference


def test_trainable_is_not_in_it_and_neither_is_what_was_built_before(reference: str) -> None:
    import keras

    for _ in range(5):
        keras.layers.Conv2D(3, 3)
    model = networks.plain()
    model.trainable = False
    assert digest(model) == reference


@pytest.mark.fault(52)
def test_one_unit_in_the_last_place_of_any_weight_is_in_it(reference: str) -> None:
    model = networks.plain()
    for weight in model.weights:
        kept = np.asarray(weight).copy()
        moved = kept.copy()
        moved.flat[-1] = np.nextafter(moved.flat[-1], np.float32(9))
        weight.assign(moved)
        assert digest(model) != reference, weight.path
        weight.assign(kept)
    assert digest(model) == reference


def test_dtype_policy_is_in_it() -> None:
    import keras

    def conv(dtype: str) -> Any:
        image = keras.Input((8, 8, 3))
        return networks.fill(keras.Model(image, keras.layers.Conv2D(2, 3, dtype=dtype)(image)))

    assert digest(conv("float32")) != digest(conv("mixed_bfloat16"))


def test_nested_equals_inlined_equals_sequential_inside() -> None:
    import keras

    inlined = networks.inlined()
    assert digest(networks.nested()) == digest(inlined)
    image = keras.Input((16, 16, 3))
    layers = keras.layers
    middle = keras.Sequential(
        [layers.Conv2D(4, 3, padding="same"), layers.ReLU(), layers.Conv2D(6, 3, padding="same")]
    )
    x = layers.GlobalMaxPooling2D()(middle(layers.Rescaling(0.5)(image)))
    model = keras.Model(image, x)
    model.set_weights(inlined.get_weights())
    assert digest(model) == digest(inlined)


def test_above_the_cut_is_not_in_it() -> None:
    from bottleneck.bases.cut import cut_at

    first, second = networks.plain(prefix="x_"), networks.plain(prefix="x_")
    second.get_layer("x_head").kernel.assign(second.get_layer("x_head").kernel.value + 1)
    assert digest(first) != digest(second)
    assert digest(cut_at(first, "x_join")[0]) == digest(cut_at(second, "x_join")[0])
    assert digest(cut_at(first, "x_join")[0]) != digest(cut_at(first, "x_left")[0])


def test_keywords_and_positions_are_one_call() -> None:
    import keras

    def model(keyword: bool) -> Any:
        image = keras.Input((8, 8, 3))
        flip = keras.ops.flip(image, axis=-1) if keyword else keras.ops.flip(image, -1)
        dense = keras.layers.Conv2D(2, 1)
        return networks.fill(keras.Model(image, dense(inputs=flip) if keyword else dense(flip)))

    assert digest(model(True)) == digest(model(False))


def test_arguments_of_bare_operations_are_in_it() -> None:
    import keras

    def model(axis: int, value: float) -> Any:
        image = keras.Input((8, 8, 3))
        return keras.Model(image, keras.ops.flip(image, axis=axis)[:, 1:, ..., :2] * value)

    assert len({digest(model(1, 2.0)), digest(model(2, 2.0)), digest(model(1, 3.0))}) == 3


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_a_configuration_hides_is_in_it(name: str) -> None:
    first, other, again = (digest(odd_models.build(DIFFERENT[name], side)) for side in (0, 1, 0))
    assert first == again != other


@pytest.mark.parametrize("name", EQUAL)
def test_what_only_a_reader_of_the_code_sees_is_not_in_it(name: str) -> None:
    first, other = (digest(odd_models.build(EQUAL[name], side)) for side in (0, 1))
    assert first == other


@pytest.mark.parametrize("name", list(DIFFERENT)[::7])
def test_running_a_base_does_not_change_it(name: str) -> None:
    model = odd_models.build(DIFFERENT[name], 0)
    before = digest(model)
    model.predict(np.ones((1, 8, 8, 3), np.float32), verbose=0)
    assert digest(model) == before


def test_a_name_of_keras_on_a_function_has_no_address_in_it() -> None:
    def digests() -> str:
        return digest(odd_models.build(odd_models.DIFFERENT["decorator under a name of Keras'"], 0))

    import keras

    before = digests()
    vars(keras.activations.relu)["_api_export_symbol_id"] += 1  # as in another process
    try:
        assert digests() == before
    finally:
        vars(keras.activations.relu)["_api_export_symbol_id"] -= 1


def test_odd_models_are_as_they_say() -> None:
    pixels = np.random.default_rng(0).normal(0.2, 1, (2, 8, 8, 3)).astype(np.float32)
    for cases, differ in ((DIFFERENT, True), (EQUAL, False)):
        for name in list(cases)[::4]:
            # One after the other: they may leave modules of one name.
            first, other = (
                np.asarray(odd_models.build(cases[name], side)(pixels, training=False)) for side in (0, 1)
            )
            assert np.array_equal(first, other) is not differ, name


def test_a_layer_with_containers_is_the_same_when_saved_and_loaded(tmp_path: Path) -> None:
    import keras

    class Own(keras.layers.Layer):
        def __init__(self, parts: Any, **more: Any) -> None:
            super().__init__(**more)
            self.parts = parts

        def call(self, x: Any) -> Any:
            return x * self.parts["n"][0]

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), "parts": self.parts}

    image = keras.Input((8, 8, 3))
    model = keras.Model(image, Own({"n": [2.0, 3.0], "m": (1, {"z": 1, "a": None})})(image))
    before = digest(model)
    model.save(tmp_path / "own.keras")
    assert digest(keras.models.load_model(tmp_path / "own.keras", custom_objects={"Own": Own})) == before


def test_a_layer_that_runs_a_file_is_what_the_file_holds(tmp_path: Path) -> None:
    import keras

    def saved(factor: float, folder: str) -> Any:
        image = keras.Input((8, 8, 3))
        keras.Model(image, image * factor).export(tmp_path / folder, verbose=False)
        return loaded(folder)

    def loaded(folder: str) -> Any:
        image = keras.Input((8, 8, 3))
        return keras.Model(image, keras.layers.TFSMLayer(tmp_path / folder)(image))

    first = digest(saved(2.0, "a"))
    (tmp_path / "a").rename(tmp_path / "b")
    assert digest(loaded("b")) == first
    model = saved(3.0, "a")
    assert digest(model) != first
    (tmp_path / "a").rename(tmp_path / "c")
    with pytest.raises(BaseError, match="is gone"):
        digest(model)


def test_a_weight_is_read_once_however_deep_its_layer_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    from bottleneck.bases import digest as digests
    from bottleneck.bases.code import contents, reader

    read: list[str] = []

    def noted(weight: Any) -> list[Any]:
        read.append(weight.path)
        return contents.array_of(weight)

    for module in (reader, digests):
        monkeypatch.setattr(module, "array_of", noted)
    image = keras.Input((8, 8, 3))
    tokens = keras.layers.TimeDistributed(keras.layers.Dense(4))(image)
    tokens = keras.layers.Reshape((64, 4))(tokens)
    model = keras.Model(image, keras.layers.MultiHeadAttention(2, 4)(tokens, tokens))
    digest(model)
    assert sorted(read) == sorted(weight.path for weight in model.weights)


def test_deep_networks_need_no_deep_stack() -> None:
    import keras

    image = x = keras.Input((4, 4, 3))
    for _ in range(150):
        x = keras.layers.ReLU()(x)
    model = keras.Model(image, x)
    depth, limit = len(__import__("inspect").stack()), sys.getrecursionlimit()
    sys.setrecursionlimit(depth + 120)
    try:
        assert len(digest(model)) == 64
    finally:
        sys.setrecursionlimit(limit)


# Another value here means that every store in the world is computed anew: raise DIGEST_VERSION and say why.
GOLDEN = {
    "plain": "fcc325ade3cc7d8ba4234ac8a5d8052b5ae1fbdcfab4798292d7645ecd8a0e17",
    "nested": "e9f91e6775d1797ad9d9e1459e6b242321c51bacdc68c67de299a8221bed8505",
    "stock": "f1e49d3e85e51743844c9fdceb64bc0b8946196c89c6f11cf67cc02bff4fac43",
}


def test_golden() -> None:
    made = {"plain": networks.plain(), "nested": networks.nested(), "stock": networks.stock()}
    assert {name: digest(model) for name, model in made.items()} == GOLDEN
