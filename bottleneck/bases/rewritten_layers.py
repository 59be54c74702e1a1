"""Replace layers that do not stay frozen by stock layers that do.

`MultiHeadAttention` and `GroupedQueryAttention` make their projections while they are built and do not pass on
`trainable`: frozen in memory, they train again in an outer `fit` once the model was saved and loaded. Written as
`EinsumDense` layers around one dot product they stay frozen. `SpectralNormalization` rescales its kernel at each call
in training mode; in inference it is the layer that it wraps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bottleneck.errors import BaseError


class LayerRewriter:
    """Copies the layers of a network while Keras clones it.

    Parameters
    ----------
    copy_layer : callable
        Returns a copy of a layer without weights.
    """

    def __init__(self, copy_layer: Callable[[Any], Any]) -> None:
        self._copy_layer = copy_layer
        self._pairs: list[tuple[Any, Any]] = []
        self._attention: dict[Any, Any] = {}
        self._networks: dict[tuple[Any, ...], Any] = {}

    def copy(self, layer: Any) -> Any:
        """Copy `layer` or what it wraps (a `clone_function` of Keras)."""
        import keras

        source = layer
        if type(layer) is keras.layers.SpectralNormalization:
            source = layer.layer
        copy = self._copy_layer(source)
        if source is not layer:
            copy.name = layer.name
        if is_attention(layer):
            self._attention[copy] = layer
        elif isinstance(source, keras.layers.Layer):
            self._pairs.append((source, copy))
        return copy

    def call(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        """Call `layer` or its replacement (a `call_function` of Keras)."""
        original = self._attention.get(layer)
        if original is None:
            return layer(*args, **kwargs)
        query, key, value, causal = _inputs(original, *args, **kwargs)
        place = (layer, causal, *(tuple(x.shape)[1:] for x in (query, key, value)))
        if place not in self._networks:
            # A layer that is called in several ways stands as often in the network, with weights of its own.
            others = sum(known[0] is layer for known in self._networks)
            name = f"{layer.name}_{others + 1}" if others else str(layer.name)
            self._networks[place] = self._network(original, query, key, value, causal, name)
        return self._networks[place]([query, key, value])

    def set_weights(self) -> None:
        """Give each copy the weights of its original."""
        for original, copy in self._pairs:
            if original.weights:
                copy.set_weights(original.get_weights())
            if hasattr(copy, "finalize_state"):
                copy.finalize_state()  # Normalization computes with numbers that it derives from its weights

    def _network(self, layer: Any, query: Any, key: Any, value: Any, causal: bool, name: str) -> Any:
        import keras
        from keras import ops

        inputs = [keras.Input(tuple(x.shape)[1:], dtype=x.dtype) for x in (query, key, value)]
        q, k, v = (
            self._projected(part, x)
            for part, x in zip(
                (layer._query_dense, layer._key_dense, layer._value_dense), inputs, strict=True
            )
        )
        grouped = isinstance(layer, keras.layers.GroupQueryAttention)
        if grouped and layer.num_repeats > 1:
            k, v = (ops.repeat(x, layer.num_repeats, axis=2) for x in (k, v))
        scale = layer._inverse_sqrt_head_dim if grouped else layer._inverse_sqrt_key_dim
        narrow = v.shape[-1] - q.shape[-1]
        if narrow:
            # The dot product takes values as wide as queries. Zeros add nothing to a score, and none to an output.
            padded = [[0, 0], [0, 0], [0, 0], [0, abs(narrow)]]
            q, k, v = (
                (q, k, ops.pad(v, padded)) if narrow < 0 else (ops.pad(q, padded), ops.pad(k, padded), v)
            )
        attended = ops.dot_product_attention(q, k, v, scale=scale, is_causal=causal)
        if narrow < 0:
            attended = attended[..., :narrow]
        if getattr(layer, "use_gate", getattr(layer, "_use_gate", False)):
            attended = ops.multiply(attended, self._projected(layer._gate_dense, inputs[0]))
        return keras.Model(inputs, self._projected(layer._output_dense, attended), name=name)

    def _projected(self, dense: Any, value: Any) -> Any:
        config = dense.get_config()
        # Keras leaves the number of tokens open, and sets the shape of the whole layer's output instead.
        config["output_shape"] = (value.shape[1], *tuple(config["output_shape"])[1:])
        copy = type(dense).from_config(config)
        self._pairs.append((dense, copy))
        return copy(value)


def is_attention(layer: Any) -> bool:
    """Whether `layer` is multi-head attention of Keras."""
    import keras

    return type(layer) in (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)


def _inputs(
    layer: Any,
    query: Any,
    value: Any,
    key: Any = None,
    query_mask: Any = None,
    value_mask: Any = None,
    key_mask: Any = None,
    attention_mask: Any = None,
    return_attention_scores: bool = False,
    training: bool | None = None,
    use_causal_mask: bool = False,
) -> tuple[Any, Any, Any, bool]:
    """Return query, key, value and the causal flag of a call.

    Raises
    ------
    BaseError
        The call asks for what a dot product alone does not give.
    """
    key = value if key is None else key
    masks = (query_mask, value_mask, key_mask, attention_mask)
    hidden = (getattr(x, "_keras_mask", None) for x in (query, key, value))
    asked = {
        "a mask": any(mask is not None for mask in (*masks, *hidden)),
        "attention scores as an output": return_attention_scores,
        "a sliding window": getattr(layer, "sliding_window", getattr(layer, "_sliding_window", None)),
        "more than one axis of tokens": any(len(x.shape) != 3 for x in (query, key, value)),
    }
    extras = [name for name, is_asked in asked.items() if is_asked]
    if extras:
        raise BaseError(
            f"layer {layer.name!r} ({type(layer).__name__}) has {', '.join(extras)}: Keras loads such attention awake "
            "from a file, and it cannot be written as projections around a dot product. Use attention on (batch, "
            "tokens, channels) without masks or scores, or keep using the run with `predict`"
        )
    return query, key, value, bool(use_causal_mask)
