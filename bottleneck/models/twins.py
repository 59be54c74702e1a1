"""Break a model in known ways that a comparison must notice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bottleneck.bases.cut import pool
from bottleneck.bases.load import LoadedBase
from bottleneck.bases.preprocess import apply
from bottleneck.bases.rewritten_layers import is_attention
from bottleneck.bases.training_only import SILENCED, rates_of
from bottleneck.contracts import Head
from bottleneck.models.comparison import Outputs
from bottleneck.schema import Preprocessing

#: One step of Adam moves each weight by its rate: this is what ten steps at Keras' default do.
_STEP = 1e-2

#: Images that the step of the attention is taken on.
_FEW = 4


def twins(base: LoadedBase, head: Head, pixels: np.ndarray, batch: int) -> dict[str, Outputs]:
    """Run every broken twin that applies to this base.

    Parameters
    ----------
    base : LoadedBase
    head : Head
    pixels : numpy.ndarray
        (n, height, width, 3) float32 in 0..255; coloured, or a swap of channels cannot show.
    batch : int

    Returns
    -------
    dict of str to Outputs
        By name.
    """
    import keras

    right = base.spec.recipe.preprocessing
    layers = base.model._flatten_layers(include_self=False, recursive=True)
    norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    broken: dict[str, Callable[[np.ndarray], Any]] = {}
    if right.channels != "grey":
        broken["channels reversed"] = lambda x: _run(base, x[..., ::-1], right, training=False)
    if right.is_identity:
        broken["pixels divided by 255"] = lambda x: _run(base, x / np.float32(255), right, training=False)
    else:
        bare = Preprocessing(channels="grey" if right.channels == "grey" else "rgb")
        broken["preprocessing left out"] = lambda x: _run(base, x, bare, training=False)
    if norms:
        broken["BatchNorm in training mode"] = lambda x: _run(base, x, right, training=True)
    if any(acts_at_random(layer) for layer in layers):
        broken["awake randomness"] = lambda x: _awake(base, norms, x, right)
    attention = [weight for layer in layers if is_attention(layer) for weight in layer.weights]
    if attention:
        moved = _stepped(base, attention, pixels[:_FEW], right)
        broken["unfrozen attention"] = lambda x: _run(base, x, right, training=False, values=moved)
    outputs = {}
    for name, function in broken.items():
        rows = np.concatenate(list(in_batches(function, pixels, batch)))
        outputs[name] = Outputs(rows, head.logits(rows), head.predict_proba(rows))
    return outputs


def acts_at_random(layer: Any) -> bool:
    """Whether `layer` itself draws random numbers in training mode.

    Examples
    --------
    >>> import keras
    >>> [acts_at_random(layer) for layer in (keras.layers.Dropout(0.0), keras.layers.RandomFlip())]
    [False, True]
    """
    kind = type(layer).__name__
    if kind in SILENCED and kind != "StochasticDepth":
        return True
    rates = (getattr(layer, name, 0.0) for name in rates_of(kind))
    return any(isinstance(rate, (int, float)) and rate > 0 for rate in rates)


def _awake(base: LoadedBase, norms: list[Any], x: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Run the base in training mode, except for BatchNorm."""
    before = [layer.trainable for layer in norms]
    try:
        for layer in norms:
            layer.trainable = False
        return _run(base, x, preprocessing, training=True)
    finally:
        for layer, value in zip(norms, before, strict=True):
            layer.trainable = value


def _stepped(
    base: LoadedBase, weights: list[Any], pixels: np.ndarray, preprocessing: Preprocessing
) -> dict[int, Any]:
    """Compute what one training step makes of `weights`, by id."""
    import tensorflow as tf

    values = [weight.value for weight in weights]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(values)
        rows = pool(base.model(apply(pixels, preprocessing), training=False), base.spec.recipe.pooling)
        loss = tf.reduce_mean(tf.square(tf.cast(rows, tf.float32)))
    gradients = tape.gradient(loss, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return {
        id(weight): tf.convert_to_tensor(value) - _STEP * tf.sign(gradient)
        for weight, value, gradient in zip(weights, values, gradients, strict=True)
    }


def _run(
    base: LoadedBase,
    x: np.ndarray,
    preprocessing: Preprocessing,
    *,
    training: bool,
    values: dict[int, Any] | None = None,
) -> np.ndarray:
    """Compute rows of `x`; updates of training mode are dropped."""
    import tensorflow as tf

    prepared, model = apply(x, preprocessing), base.model
    # States of random generators are replaced, so that a twin is the same at every call.
    layers = model._flatten_layers(include_self=True, recursive=True)
    seeds = [generator.state for layer in layers for generator in layer._seed_generators]
    draws = {id(state): n for n, state in enumerate(seeds)}

    def value(variable: Any) -> Any:
        if id(variable) in draws:
            return tf.constant([0, draws[id(variable)]], variable.value.dtype)
        return (values or {}).get(id(variable), variable.value)

    trainable = [value(variable) for variable in model.trainable_variables]
    others = [value(variable) for variable in model.non_trainable_variables]
    y, _ = model.stateless_call(trainable, others, prepared, training=training)
    return np.asarray(pool(y, base.spec.recipe.pooling), np.float32)


def in_batches(function: Callable[[np.ndarray], Any], pixels: np.ndarray, batch: int) -> Iterator[np.ndarray]:
    """Compute the rows of `pixels` in batches of one size."""
    for start in range(0, len(pixels), batch):
        part = pixels[start : start + batch]
        padded = np.zeros((batch, *pixels.shape[1:]), np.float32)
        padded[: len(part)] = part
        # Padding by repetition, not by black: in training mode a BatchNorm sees the whole batch.
        padded[len(part) :] = part[np.arange(batch - len(part)) % len(part)]
        yield np.asarray(function(padded), np.float32)[: len(part)]
