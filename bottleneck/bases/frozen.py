"""A base that cannot wake up.

In Keras 3 `base(x, training=False)` does not survive an outer `fit`: the outer call's `training` replaces the one that
was recorded. So the network is rebuilt: dropout and noise at rate 0, random augmentation as `Identity`, `trainable`
off (which keeps BatchNorm on its moving statistics), with the same weights.
"""

from __future__ import annotations

from typing import Any

from bottleneck.bases.training_only import AUGMENTATION, NOISE
from bottleneck.errors import BaseError

_RATES = ("rate", "stddev", "dropout", "recurrent_dropout", "drop_path_rate")


def freeze(model: Any) -> Any:
    """`model` rebuilt so that training mode computes what inference computes, bit for bit.

    One exception: attention layers with dropout change kernels when it goes, and differ by rounding.

    Parameters
    ----------
    model : keras.Model
        Functional or Sequential. It is left as it is: nothing is shared with the copy.

    Returns
    -------
    keras.Model
        Same graph, layer names and weights; ``trainable`` False. Do not set ``trainable`` True on a network around
        it: that reaches every layer inside, and BatchNorm would move again.

    Raises
    ------
    BaseError
        A layer cannot be rebuilt, or acts at random in training in a way that inference does not undo.
    """
    import keras

    try:
        copy = keras.models.clone_model(model, clone_function=quiet, recursive=True)
        copy.set_weights(model.get_weights())
    except (TypeError, ValueError, NotImplementedError) as error:
        raise BaseError(
            f"base {model.name!r} cannot be rebuilt without its dropout: {error}; "
            "give its custom layers get_config and from_config"
        ) from error
    copy.trainable = False
    return copy


def quiet(layer: Any) -> Any:
    """A copy of `layer` without its randomness and its weights; a bare operation is given back as it is."""
    import keras

    if not isinstance(layer, keras.layers.Layer):
        return layer  # a bare operation has neither weights nor moods
    kind = type(layer).__name__
    if kind in AUGMENTATION:
        return keras.layers.Identity(name=layer.name, dtype=layer.dtype_policy)
    if kind == "RandomCrop":
        raise ValueError(
            f"layer {layer.name!r} (RandomCrop) crops at random in training and in the middle in inference"
        )
    copy = type(layer).from_config(_without_rates(layer.get_config(), kind))
    for inner in copy._flatten_layers(include_self=True):
        # Subclassed layers may hold dropout that their config does not show.
        if type(inner).__name__ in NOISE:
            for name in ("rate", "stddev"):
                if getattr(inner, name, 0):
                    setattr(inner, name, 0.0)
    return copy


def _without_rates(config: Any, kind: str) -> Any:
    """`config` with every rate of randomness at 0, at any depth (wrappers hold whole layers in theirs)."""
    if isinstance(config, list):
        return [_without_rates(item, kind) for item in config]
    if not isinstance(config, dict):
        return config
    quiet = {}
    for key, value in config.items():
        random_here = key in _RATES and (kind in NOISE or key not in ("rate", "stddev"))
        if random_here and isinstance(value, (int, float)):
            quiet[key] = 0.0
        else:
            quiet[key] = _without_rates(value, str(config.get("class_name", kind)))
    return quiet
