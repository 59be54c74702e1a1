"""Rebuild a base so that training mode cannot change it.

In Keras 3 `base(x, training=False)` does not survive an outer `fit`: the outer call's `training` replaces the one that
was recorded. Augmentation is awake even when a model is called without `training`. So the network is rebuilt: dropout
and noise at rate 0, random augmentation as `Identity`, at any depth; `trainable` off (which keeps BatchNorm on its
moving statistics); the same weights. Layers that Keras loads awake from a file are written as other stock layers.
"""

from __future__ import annotations

from typing import Any

from bottleneck.bases.rewritten_layers import LayerRewriter, is_attention
from bottleneck.bases.training_only import NOISE, SILENCED, rates_of
from bottleneck.errors import BaseError

#: Like attention they do not pass `trainable` to inner layers: a file brings them back awake.
_WAKES = frozenset({"ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"})


def freeze_base(model: Any) -> Any:
    """Rebuild `model` so that training mode computes what inference computes.

    Bit for bit, but for attention with dropout, for which Keras takes other kernels: it differs by rounding.

    Parameters
    ----------
    model : keras.Model
        Functional or Sequential. It is left as it is: nothing is shared with the copy.

    Returns
    -------
    keras.Model
        Same layer names and weights; ``trainable`` False, also after it was saved and loaded. Do not set ``trainable``
        True on a network around it: that reaches every layer inside, and BatchNorm would move again.

    Raises
    ------
    BaseError
        A layer cannot be rebuilt, acts at random in a way that cannot be taken out, or would train again after the
        model was saved and loaded.
    """
    import keras

    rewriter = LayerRewriter(copy_without_randomness)
    # Keras calls no function of ours for the layers of a Sequential, which have one input and so hold no attention.
    calls = {} if isinstance(model, keras.Sequential) else {"call_function": rewriter.call}
    try:
        copy = keras.models.clone_model(model, clone_function=rewriter.copy, recursive=True, **calls)
        rewriter.set_weights()
    except (TypeError, ValueError, NotImplementedError) as error:
        raise BaseError(
            f"base {model.name!r} cannot be rebuilt without its dropout: {error}; "
            "give its custom layers get_config and from_config"
        ) from error
    copy.trainable = False
    for layer in copy._flatten_layers(include_self=False, recursive=True):
        _check_still(layer, model.name)
    return copy


def copy_without_randomness(layer: Any) -> Any:
    """Copy `layer` without randomness or weights; return bare operations."""
    import keras

    if not isinstance(layer, keras.layers.Layer):
        return layer
    kind = type(layer).__name__
    if kind in SILENCED:
        # By name: Keras cannot write a layer that was given a policy's object.
        return keras.layers.Identity(name=layer.name, dtype=layer.dtype_policy.name)
    _refuse_crop(kind, layer.name)
    copy = type(layer).from_config(_without_rates(layer.get_config(), kind))
    for inner in copy._flatten_layers(include_self=True):
        # Subclassed layers may hold dropout that their config does not show.
        if type(inner).__name__ in NOISE | SILENCED:
            for name in ("rate", "stddev"):
                if getattr(inner, name, 0):
                    setattr(inner, name, 0.0)
    return copy


def _without_rates(config: Any, kind: str) -> Any:
    # At any depth: the configuration of a wrapper holds whole layers.
    if isinstance(config, (list, tuple)):
        return [_without_rates(item, kind) for item in config]
    if not isinstance(config, dict):
        return config
    inside = str(config.get("class_name", kind))
    in_keras = str(config.get("module") or "").split(".")[0] == "keras"
    if in_keras and isinstance(config.get("config"), dict):  # a layer as Keras writes it
        _refuse_crop(inside, str(config["config"].get("name")))
        if inside in SILENCED:
            inner = {key: value for key, value in config["config"].items() if key in ("name", "dtype")}
            same = {
                "module": "keras.layers",
                "class_name": "Identity",
                "registered_name": None,
                "config": inner,
            }
            return {**config, **same}
    without = {}
    for key, value in config.items():
        if key in rates_of(kind) and isinstance(value, (int, float)):
            without[key] = 0.0
        else:
            without[key] = _without_rates(value, inside)
    return without


def _refuse_crop(kind: str, name: str) -> None:
    if kind == "RandomCrop":
        raise ValueError(
            f"layer {name!r} (RandomCrop) crops at random in training and in the middle in inference"
        )


def _check_still(layer: Any, base: str) -> None:
    """Refuse a layer that is awake or wakes when loaded."""
    kind, where = type(layer).__name__, f"base {base!r}: layer {layer.name!r} ({type(layer).__name__})"
    if kind in SILENCED:
        raise BaseError(
            f"{where} acts at random when the model is called, and lies inside a layer that cannot be rebuilt without "
            "it; take augmentation out of the base (`extract --views` augments), or build it from stock layers"
        )
    if kind in _WAKES or is_attention(layer):
        raise BaseError(
            f"{where} forgets that it is frozen when Keras loads it from a file: a fit around the merged model would "
            "train it. Use attention on a (batch, tokens, channels) tensor directly in the network, without masks or "
            "scores, and Conv2D in place of ConvLSTM; or keep using the run with `predict`"
        )
    if kind == "SpectralNormalization":
        raise BaseError(
            f"{where} changes its kernel when it is called in training mode, and lies inside another layer; put it "
            "directly into the network, where it can be replaced by the layer that it wraps"
        )
