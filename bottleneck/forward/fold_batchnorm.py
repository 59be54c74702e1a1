"""Fold BatchNormalization and padding into convolutions.

In inference BatchNormalization is a factor and a summand for each channel. The factor goes into the kernel, in float64,
and the summand becomes a bias, which TensorFlow fuses with the convolution, a sum and the activation. TensorFlow folds
some of it by itself: not into depthwise convolutions, nor into those that have a bias; and in reduced precision only
after kernel and factor were rounded, each by itself.

After: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
CVPR 2018, section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bottleneck.bases.graph import IMAGE, Network, Step, above, inference

#: The variable of a convolution whose last axes are its channels, and how many axes these are.
_KERNELS = {
    "Conv2D": ("kernel", 1),
    "DepthwiseConv2D": ("kernel", 2),
    "SeparableConv2D": ("pointwise_kernel", 1),
}

#: In the place of what a layer is trained with, by the last word of its name: a copy has its weights given.
_UNUSED = {"initializer": "zeros", "regularizer": None, "constraint": None}


@dataclass(frozen=True, eq=False)
class Normalized:
    """A convolution and its BatchNormalization, as one operation.

    Attributes
    ----------
    convolution : keras.layers.Layer
    folded_weights : tuple of (keras.Variable, ndarray)
        What the convolution's variables have to be.
    bias : ndarray or None
        Added to what it gives; None where its own bias has taken it.
    """

    convolution: Any
    folded_weights: tuple[tuple[Any, np.ndarray], ...]
    bias: np.ndarray | None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the two give, of what the convolution is called on."""
        import keras
        import tensorflow as tf

        with keras.StatelessScope(state_mapping=self.folded_weights):
            rows = inference(self.convolution, *args, **kwargs)
        return rows if self.bias is None else tf.nn.bias_add(rows, self.bias)


def folded(network: Network) -> Network:
    """Fold what `network` allows; its outputs stay the same.

    A convolution takes the BatchNormalization that reads it, and the zeros that it reads where those are what its own
    ``padding="same"`` adds. A step that something else reads too stays as well, so that what one output gives never
    depends on which others there are.

    Parameters
    ----------
    network : Network
        In inference mode. What is not float32, or not laid out with its channels last, stays as it is.

    Returns
    -------
    Network
        Rows differ from those of `network` by rounding.

    Examples
    --------
    >>> network = folded(walk(model))  # doctest: +SKIP
    >>> (rows,) = run(network, pixels, inference)  # doctest: +SKIP
    """
    return _joined(_joined(network, _is_padded, _same), _is_normalized, _normalized)


def _joined(
    network: Network, fits: Callable[[Step, Step], bool], join: Callable[[Step, Step], Step]
) -> Network:
    """Join each step that `fits` the only one it reads."""

    def joined(step: Step) -> Step:
        if len(step.refs) != 1 or step.refs[0].step == IMAGE:
            return step
        before = network.steps[step.refs[0].step]
        return join(before, step) if fits(before, step) else step

    return above(replace(network, steps=tuple(map(joined, network.steps))))


def _is_padded(before: Step, step: Step) -> bool:
    import keras

    zeros, layer = before.operation, step.operation
    return (
        type(zeros) is keras.layers.ZeroPadding2D
        and zeros.data_format == "channels_last"
        and _is_convolution(layer)
        and layer.padding == "valid"
        and all(
            extent is not None and added == _same_padding(extent - sum(added), *setting)
            for added, extent, *setting in zip(
                zeros.padding,
                before.outputs[0].shape[1:3],
                layer.kernel_size,
                layer.strides,
                layer.dilation_rate,
                strict=True,
            )
        )
    )


def _same_padding(extent: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Count the zeros around `extent` pixels, by TensorFlow's rule for SAME."""
    outputs = -(-extent // stride)
    total = max((outputs - 1) * stride + (kernel - 1) * dilation + 1 - extent, 0)
    return total // 2, total - total // 2


def _same(padding: Step, step: Step) -> Step:
    config = {
        key: _UNUSED.get(key.rpartition("_")[2], value) for key, value in step.operation.get_config().items()
    }
    layer = type(step.operation).from_config({**config, "padding": "same"})
    layer.build(padding.outputs[0].shape)
    layer.set_weights(step.operation.get_weights())
    return replace(step, operation=layer, arguments=padding.arguments, refs=padding.refs)


def _is_normalized(before: Step, step: Step) -> bool:
    import keras

    norm = step.operation
    return (
        type(norm) is keras.layers.BatchNormalization
        and norm.axis in (-1, len(step.outputs[0].shape) - 1)
        and _is_float32(norm)
        and _is_convolution(before.operation)
    )


def _is_convolution(layer: Any) -> bool:
    import keras

    return (
        type(layer) in (getattr(keras.layers, name) for name in _KERNELS)
        and layer.data_format == "channels_last"
        and layer.activation in (None, keras.activations.linear)
        # A kernel that is made of several variables (LoRA, quantization) is none of the weights itself.
        and any(_kernel(layer)[0] is weight for weight in layer.weights)
        and _is_float32(layer)
    )


def _is_float32(layer: Any) -> bool:
    return bool(
        layer.compute_dtype == "float32" and all(weight.dtype == "float32" for weight in layer.weights)
    )


def _kernel(convolution: Any) -> tuple[Any, tuple[int, ...]]:
    name, axes = _KERNELS[type(convolution).__name__]
    kernel = getattr(convolution, name)
    return kernel, tuple(kernel.shape[-axes:])


def _normalized(convolution: Step, norm: Step) -> Step:
    layer = convolution.operation
    factor, summand = _affine(norm.operation)
    kernel, channels = _kernel(layer)
    values = {id(weight): weight.numpy() for weight in layer.weights}
    values[id(kernel)] = (_exact(kernel) * factor.reshape(channels)).astype(np.float32)
    bias: np.ndarray | None = summand.astype(np.float32)
    if layer.use_bias:
        values[id(layer.bias)] = (_exact(layer.bias) * factor + summand).astype(np.float32)
        bias = None
    weights = tuple((weight, values[id(weight)]) for weight in layer.weights)
    return replace(
        convolution, operation=Normalized(layer, weights, bias), dtype=norm.dtype, outputs=norm.outputs
    )


def _affine(norm: Any) -> tuple[np.ndarray, np.ndarray]:
    factor = 1 / np.sqrt(_exact(norm.moving_variance) + norm.epsilon)
    if norm.scale:
        factor = factor * _exact(norm.gamma)
    summand = -_exact(norm.moving_mean) * factor
    return factor, summand + _exact(norm.beta) if norm.center else summand


def _exact(variable: Any) -> np.ndarray:
    return np.asarray(variable.numpy(), np.float64)
