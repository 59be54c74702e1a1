"""Tiny bases in which something sleeps that a user's call may wake, each with what must become of it.

A network is made by a function of `keras.layers` and the image; `REFUSED` says by which words a base is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

SIZE = 8
Body = Callable[[Any, Any], Any]


def network(body: Body) -> Any:
    """The base whose layers `body` puts on an image, with a map at its end."""
    import keras
    from keras import layers

    image = keras.Input((SIZE, SIZE, 3))
    return keras.Model(image, body(layers, image), name="sleeper")


def augmentation(layers: Any) -> list[Any]:
    return [layers.RandomFlip(), layers.RandomContrast(0.9), layers.RandomBrightness(0.5)]


def conv(layers: Any, x: Any) -> Any:
    return layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(6, 3, name="conv")(x)))


def conv_alone(layers: Any, x: Any) -> Any:
    return conv(layers, x)


def tokens(layers: Any, x: Any) -> Any:
    return layers.Dense(6)(layers.Reshape((SIZE * SIZE, 3))(x))


def frames(layers: Any, x: Any) -> Any:
    return layers.Reshape((4, 4, 4, 3))(x)


def mean(layers: Any, x: Any) -> Any:
    return layers.GlobalAveragePooling1D()(x)


def inside(layers: Any, body: Body, shape: tuple[int, ...]) -> Any:
    """A network of its own, to be called in another one."""
    import keras

    image = keras.Input(shape)
    return keras.Model(image, body(layers, image))


def _attention_in_network(layers: Any, x: Any) -> Any:
    return mean(layers, inside(layers, lambda _, t: layers.MultiHeadAttention(2, 4, dropout=0.3)(t, t), (64, 6))(
        tokens(layers, x)
    ))  # fmt: skip


def _stepwise(layers: Any, x: Any) -> Any:
    """A whole network in a wrapper, with a pipeline in it."""
    import keras

    whole = keras.Sequential(
        [
            keras.Input((4, 4, 3)),
            layers.Pipeline(augmentation(layers)),
            layers.Conv2D(6, 3),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
        ]
    )
    return layers.TimeDistributed(whole)(frames(layers, x))


def _twice(layers: Any, x: Any) -> Any:
    shared = layers.MultiHeadAttention(2, 4, dropout=0.2)
    t = tokens(layers, x)
    return mean(layers, shared(shared(t, t), t, use_causal_mask=True))


def _stochastic_depth(layers: Any, x: Any) -> Any:
    from keras.src.applications.convnext import StochasticDepth

    return StochasticDepth(0.5)(conv(layers, x))


def _custom(layers: Any, x: Any) -> Any:
    import keras

    class Jitter(keras.layers.Layer):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.seeds = keras.random.SeedGenerator(0)

        def call(self, x: Any, training: bool | None = None) -> Any:
            return x + keras.random.normal((), seed=self.seeds) if training else x

    return layers.Pipeline([layers.Conv2D(6, 3), Jitter()])(x)


def _mixed(layers: Any, x: Any) -> Any:
    for _ in range(4):
        x = layers.Conv2D(32, 3, padding="same", activation="gelu", dtype="mixed_bfloat16")(x)
    return layers.Conv2D(6, 3, dtype="float32")(x)


def _deep_attention(layers: Any, x: Any) -> Any:
    return layers.TimeDistributed(
        inside(layers, lambda _, t: layers.MultiHeadAttention(2, 4)(t, t), (16, 3))
    )(layers.Reshape((4, 16, 3))(x))


def _masked_attention(layers: Any, x: Any) -> Any:
    t = tokens(layers, x)
    return layers.MultiHeadAttention(2, 4)(t, t, return_attention_scores=True)[0]


def _two_lengths(layers: Any, x: Any) -> Any:
    long, shared = tokens(layers, x), layers.MultiHeadAttention(2, 4)
    short = layers.MaxPooling1D(4)(long)
    return layers.Concatenate()(
        [mean(layers, shared(a, b)) for a, b in ((long, short), (short, long), (short, short))]
    )


#: Bases that are certified, and steady in every way to call them.
STEADY: dict[str, Body] = {
    "augmentation": lambda k, x: conv(k, k.RandomContrast(0.9)(k.RandomFlip()(x))),
    "augmentation in a pipeline": lambda k, x: conv(k, k.Pipeline(augmentation(k))(x)),
    "augmentation in a network": lambda k, x: conv(
        k, inside(k, lambda _, y: k.Pipeline(augmentation(k))(y), (SIZE, SIZE, 3))(x)
    ),
    "a pipeline in a pipeline": lambda k, x: k.Pipeline([k.Conv2D(6, 3), k.Pipeline(augmentation(k))])(x),
    "solarization": lambda k, x: conv(k, k.Solarization(0.5, 0.5, value_range=(-1, 1))(x)),
    "a network in a wrapper": _stepwise,
    "dropout in a wrapper": lambda k, x: k.TimeDistributed(k.Dropout(0.6))(
        k.TimeDistributed(k.Conv2D(6, 3))(frames(k, x))
    ),
    "noise": lambda k, x: k.GaussianNoise(0.5)(k.SpatialDropout2D(0.5)(k.AlphaDropout(0.3)(conv(k, x)))),
    "stochastic depth": _stochastic_depth,
    "dropout in training mode": lambda k, x: k.BatchNormalization()(
        k.Dropout(0.5)(conv(k, x), training=True), training=True
    ),
    "attention of one head": lambda k, x: mean(
        k, k.Attention(use_scale=True, dropout=0.5)([tokens(k, x), k.Dense(6)(tokens(k, x))])
    ),
    "attention": lambda k, x: mean(
        k, k.MultiHeadAttention(2, 4, dropout=0.5)(tokens(k, x), k.Dense(5)(tokens(k, x)))
    ),
    "gated attention": lambda k, x: mean(k, k.MultiHeadAttention(2, 4, use_gate=True)(*[tokens(k, x)] * 2)),
    "grouped attention": lambda k, x: mean(
        k, k.GroupQueryAttention(4, 4, 2, dropout=0.5)(*[tokens(k, x)] * 2)
    ),
    "attention in a network": _attention_in_network,
    "attention that is shared": _twice,
    "attention whose values are narrower": lambda k, x: mean(
        k, k.MultiHeadAttention(2, 5, value_dim=3)(tokens(k, x), k.Dense(5)(tokens(k, x)))
    ),
    "attention whose values are wider": lambda k, x: mean(
        k, k.MultiHeadAttention(2, 3, value_dim=5, use_gate=True)(*[tokens(k, x)] * 2)
    ),
    "attention over two numbers of tokens": _two_lengths,
    "statistics that are weights": lambda k, x: conv(k, k.Normalization()(x)),
    "spectral norm": lambda k, x: k.SpectralNormalization(k.Conv2D(6, 3))(x),
    "recurrent dropout": lambda k, x: k.LSTM(6, dropout=0.3, recurrent_dropout=0.3)(
        k.Reshape((SIZE, SIZE * 3))(x)
    ),
    "dropout in two directions": lambda k, x: k.Bidirectional(k.GRU(4, dropout=0.5))(
        k.Reshape((SIZE, SIZE * 3))(x)
    ),
}

#: Of these: nothing in them acts at random.
NOTHING_RANDOM = (
    "gated attention",
    "attention whose values are narrower",
    "attention whose values are wider",
    "attention over two numbers of tokens",
    "statistics that are weights",
    "spectral norm",
)

#: Bases that are refused, and the words that say which layer and what.
REFUSED: dict[str, tuple[Body, str]] = {
    "a random crop": (lambda k, x: conv(k, k.RandomCrop(6, 6)(x)), "RandomCrop"),
    "a random crop in a pipeline": (
        lambda k, x: conv(k, k.Pipeline([k.RandomCrop(6, 6)])(x)),
        "RandomCrop",
    ),
    "convolutional LSTM": (lambda k, x: k.ConvLSTM2D(4, 3)(frames(k, x)), r"conv_lstm2d.*\(ConvLSTM2D\)"),
    "attention in a wrapper": (_deep_attention, "MultiHeadAttention"),
    "attention with scores": (_masked_attention, "attention scores as an output"),
    "spectral norm in a wrapper": (
        lambda k, x: k.TimeDistributed(k.SpectralNormalization(k.Conv2D(4, 3)))(frames(k, x)),
        "SpectralNormalization",
    ),
    "a layer of one's own in a pipeline": (_custom, "Jitter"),
    "mixed precision": (_mixed, "mixed_bfloat16"),
}
