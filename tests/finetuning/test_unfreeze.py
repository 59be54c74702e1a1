"""From what a person writes to the layers that train."""

from __future__ import annotations

from typing import Any

import pytest

from bottleneck.errors import BaseError, UnknownName, UsageError
from bottleneck.finetuning.unfreeze import Choices, Unit, choices, leaves, unfreeze
from bottleneck.schema import TuneSettings, TuneStage, parse_rates, parse_tune

UNITS = tuple(Unit(name, (f"{name}_a", f"{name}_b")) for name in ("one", "two", "three"))
KNOWN = Choices(UNITS, True, frozenset({"two_norm", "pool"}))


def chosen(text: str) -> set[str]:
    return set(KNOWN.chosen(TuneStage.parse(text)))


def test_names_mean_blocks_layers_and_numbers_from_the_top() -> None:
    every = {path for unit in UNITS for path in unit.layers}
    assert chosen("top:1") == {"three_a", "three_b"}
    assert chosen("top:3") == chosen("all") == chosen("one,two, three") == every
    assert chosen("two") == {"two_a", "two_b"}
    assert chosen("two_b,top:1") == {"two_b", "three_a", "three_b"}


def test_what_is_not_there_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"nearest: three.*or top:N, or all"):
        chosen("thre")
    with pytest.raises(UsageError, match=r"top:4: the base has 3 blocks.*one, two, three"):
        chosen("top:4")
    with pytest.raises(
        UsageError, match=r"two_norm: this layer has no weights.*BatchNormalization stays frozen"
    ):
        chosen("two_norm")
    for text in ("top:0", "top:x", "", ",", "top:"):
        with pytest.raises(UsageError, match="--unfreeze"):
            TuneStage.parse(text)


def test_rates_decay_by_blocks_that_train_and_names_have_their_own() -> None:
    free = KNOWN.chosen(TuneStage.parse("one,three"))
    rates, head = KNOWN.rates(free, TuneSettings(rate=1.0, block_decay=0.5))
    assert (rates, head) == ({"three_a": 0.5, "three_b": 0.5, "one_a": 0.25, "one_b": 0.25}, 1.0)
    own = TuneSettings(rate=1.0, rates={"one_b": 3.0, "head": 2.0, "three": 4.0})
    rates, head = KNOWN.rates(free, own)
    assert (rates, head) == ({"three_a": 4.0, "three_b": 4.0, "one_a": 1.0, "one_b": 3.0}, 2.0)
    with pytest.raises(UsageError, match="two is not unfrozen; add it to --unfreeze"):
        KNOWN.check_rates(free, TuneSettings(rates={"two": 1.0}))
    with pytest.raises(UnknownName, match="twoo"):
        KNOWN.check_rates(free, TuneSettings(rates={"twoo": 1.0}))


def test_options_of_the_command_line_are_read_and_wrong_ones_named() -> None:
    assert parse_rates(["1e-3", "head=0.1"]) == {"rate": 1e-3, "rates": {"head": 0.1}}
    assert parse_rates([]) == {}
    with pytest.raises(UsageError, match="--rate 'fast'"):
        parse_rates(["fast"])
    assert parse_tune(["patience=none", "views=3"]) == {"patience": None, "views": "3"}
    with pytest.raises(UnknownName, match="epochs"):
        parse_tune(["epoch=3"])
    with pytest.raises(UsageError, match="expected KEY=VALUE"):
        parse_tune(["epochs"])


# ------------------------------------------------------------------------------------------------- real networks

keras_only = pytest.mark.keras


def nested() -> Any:
    import keras
    from keras import layers

    inside = keras.Input((8, 8, 3))
    y = layers.Conv2D(2, 3, name="conv")(inside)
    y = layers.BatchNormalization(name="norm")(y)
    inner = keras.Model(inside, y, name="inner")
    image = keras.Input((8, 8, 3))
    x = inner(image)
    x = layers.TimeDistributed(layers.BatchNormalization(), name="wrapped_norm")(x)
    x = layers.TimeDistributed(layers.Dense(3), name="wrapped")(x)
    return keras.Model(image, layers.LayerNormalization(name="last")(x))


@keras_only
def test_blocks_come_from_the_pattern_and_layers_where_there_is_none() -> None:
    from tests.models.tiny_network import network

    known = choices(network(), r"(block\d)_.*")
    assert known.blocks
    assert [(unit.name, unit.layers) for unit in known.units] == [
        (f"block{n}", (f"block{n}_conv",)) for n in (1, 2, 3)
    ]
    assert "block1_norm" in known.frozen and "block2_drop" in known.frozen
    layers = choices(nested(), "")
    assert not layers.blocks
    assert [unit.name for unit in layers.units] == ["inner/conv", "wrapped", "last"]
    assert layers.chosen(TuneStage.parse("inner")) == {"inner/conv"}
    with pytest.raises(UsageError, match="the base has 3 layers"):
        layers.chosen(TuneStage.parse("top:4"))


@keras_only
def test_a_base_without_weights_has_nothing_to_unfreeze() -> None:
    import keras

    image = keras.Input((8, 8, 3))
    with pytest.raises(BaseError, match="no weights that could train"):
        choices(keras.Model(image, keras.layers.BatchNormalization()(image)), "")


@keras_only
def test_batch_norm_stays_frozen_wherever_it_hides_and_parents_have_no_say() -> None:
    import keras

    model = nested()
    model.trainable = False  # as a frozen copy comes
    found = dict(leaves(model))
    trained = unfreeze(found, frozenset({"inner/conv", "wrapped", "wrapped_norm"}))
    assert [path for path, _ in trained] == ["inner/conv", "inner/conv", "wrapped", "wrapped"]
    norms = [x for x in model._flatten_layers() if isinstance(x, keras.layers.BatchNormalization)]
    assert len(norms) == 2 and not any(norm.trainable for norm in norms)
    again = unfreeze(found, frozenset({"last"}))
    assert [path for path, _ in again] == ["last", "last"]
    assert not found["inner/conv"].trainable_variables


@keras_only
@pytest.mark.parametrize(
    ("base", "top", "first"),
    [
        ("vgg16", 1, ["block5_conv1", "block5_conv2", "block5_conv3"]),
        ("mobilenetv2", 1, ["Conv_1"]),
        ("resnet50", 1, ["conv5_block3_1_conv", "conv5_block3_2_conv", "conv5_block3_3_conv"]),
        ("squeezenet", 1, ["fire9_squeeze1x1", "fire9_expand1x1", "fire9_expand3x3"]),
    ],
)
def test_the_top_block_of_bases_that_people_know(base: str, top: int, first: list[str]) -> None:
    import pathlib

    from bottleneck.bases.load import load_base
    from bottleneck.schema import BaseRequest, Cache

    loaded = load_base(BaseRequest(base=base, weights="random:0", size=32), Cache(pathlib.Path("nowhere")))
    known = choices(loaded.model, loaded.blocks)
    assert sorted(known.chosen(TuneStage.parse(f"top:{top}"))) == sorted(first)
