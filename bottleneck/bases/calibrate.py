"""Draw random weights from a seed and scale features to unit spread.

Plain initializers give networks whose outputs hardly depend on the image (a swap of red and blue moved MobileNetV2's
probabilities by 0.0), so no test could use them. Layer by layer, each kernel is scaled so that its output has unit
standard deviation on fixed probe pictures (layer-sequential unit variance, Mishkin and Matas 2016), and each BatchNorm
takes the statistics of that batch.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bottleneck.bases.graph import inference, run_graph, walk
from bottleneck.schema import Preprocessing

#: Part of the digest of random weights, whose calibrated bits differ between machines.
CALIBRATION_VERSION = 1

#: BatchNorms give a mean of this many standard deviations instead of zero. Deep random networks around zero are
#: chaotic: each normalised ReLU layer magnifies rounding (Yang et al., 2019, "A mean field theory of batch
#: normalization"). A difference of 1e-7 in the pixels became 5e-4 of the features' spread in InceptionV3; with the
#: shift, 3e-5. Trained networks are not like that, and a proof of parity needs networks in which rounding stays small.
_SHIFT = 1.0

#: Probe pictures that calibrate: far from the first ones, which test, or a BatchNorm in training mode would
#: meet the very batch its statistics come from and look right.
FIRST = 64


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw initial weights from `seed`, then restore the global generators.

    Keras takes an initializer's seed from Python's `random`, and draws from it without state of its own, so
    TensorFlow's global seed is not touched.

    Examples
    --------
    >>> import random
    >>> with seeded(1):
    ...     first = random.random()
    >>> with seeded(1):
    ...     print(first == random.random())
    True
    """
    import numpy as np

    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - for builders that draw from the global generator
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def count(size: int) -> int:
    """Count the probes that calibrate at `size`.

    Small images have few pixels at the top, so they need more probes.

    Examples
    --------
    >>> count(32), count(224), count(600)
    (64, 8, 8)
    """
    return max(8, min(64, round(32 * (96 / size) ** 2)))


def calibrate(model: Any, preprocessing: Preprocessing, size: int, done: set[int] | None = None) -> None:
    """Scale kernels and set BatchNorms of `model` in place, on probes.

    Kernels under a softmax are left alone; layers that are used more than once are set at their first use.

    Parameters
    ----------
    model : keras.Model
        Functional or Sequential with one input, (size, size, channels) preprocessed.
    preprocessing : Preprocessing
    size : int
    done : set of int, optional
        Layers, by id, that another cut of the same network has calibrated already; grows.
    """
    import keras

    from bottleneck.bases import preprocess
    from bottleneck.pixels.probes import probes

    pixels = keras.ops.convert_to_tensor(probes(FIRST + count(size), size, size)[FIRST:])
    network = walk(model)
    image = keras.ops.cast(preprocess.apply(pixels, preprocessing), network.image.dtype)
    done = set() if done is None else done

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(operation, keras.layers.Layer) and id(operation) not in done:
            done.add(id(operation))
            if isinstance(operation, keras.layers.BatchNormalization):
                _set_statistics(operation, args[0] if args else kwargs["inputs"])
            else:
                _scale(operation, args, kwargs)
        return inference(operation, *args, **kwargs)

    run_graph(network, image, call)


def _scale(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    import keras
    import numpy as np

    weights = {weight.name: weight for weight in layer.weights}
    kernel = weights.get("pointwise_kernel", weights.get("kernel"))
    activation = getattr(layer, "activation", None)
    if kernel is None or activation is keras.activations.softmax:
        return
    if not _has_kernel(layer):
        return
    layer.activation = None
    try:
        spread = float(np.std(keras.ops.convert_to_numpy(layer(*args, **kwargs)).astype(np.float64)))
    finally:
        layer.activation = activation
    if not np.isfinite(spread) or spread < 1e-12:
        return  # a dead input stays dead; scaling cannot help
    kernel.assign(kernel.value / spread)
    if "bias" in weights:
        weights["bias"].assign(weights["bias"].value / spread)


def _has_kernel(layer: Any) -> bool:
    import keras

    names = (
        "Dense",
        "EinsumDense",
        "Conv1D",
        "Conv2D",
        "Conv2DTranspose",
        "DepthwiseConv2D",
        "SeparableConv2D",
    )
    return isinstance(layer, tuple(getattr(keras.layers, name) for name in names))


def _set_statistics(layer: Any, x: Any) -> None:
    import keras
    import numpy as np

    values = keras.ops.convert_to_numpy(x).astype(np.float64)
    axis = layer.axis % values.ndim
    others = tuple(i for i in range(values.ndim) if i != axis)
    variance = values.var(axis=others)
    # A channel that these pictures leave constant must not be blown up by the first one that does not.
    variance = np.maximum(variance, 1e-2 * max(float(variance.mean()), 1e-12))
    mean = values.mean(axis=others) - _SHIFT * np.sqrt(variance)
    layer.moving_mean.assign(mean.astype("float32"))
    layer.moving_variance.assign(variance.astype("float32"))
