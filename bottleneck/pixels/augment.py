"""Draw augmented views of an image: a warp, then colour.

Each parameter has a slot in the draws from the view's seed, so a view depends on neither order, batch, engine nor other
parts of the policy. Keras' random layers cannot do this: they take no seed per image. Conventions (centres, signs, fill
by reflection, bilinear interpolation) are theirs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from bottleneck.schema import ViewPolicy

Tensor = Any

#: One draw for each, always in this order; the spare ones are for later parameters.
# fmt: off
_SLOTS = (
    "flip_x", "flip_y", "rotation", "zoom_y", "zoom_x", "translation_y", "translation_x", "crop_y", "crop_x",
    "contrast", "brightness",
)
# fmt: on
_DRAWS = 16

#: Pixels are counted in these parts when a mean is taken.
_PARTS = 256.0


def augmenter(height: int, width: int, policy: ViewPolicy) -> tf.types.experimental.GenericFunction:
    """Build the function from pixels and a seed to one view.

    Parameters
    ----------
    height, width : int
        Of the image, and of the view.
    policy : ViewPolicy

    Returns
    -------
    tf.function
        From (height, width, 3) float32 in 0..255 and a seed (2,) int64 (`ViewPolicy.draw_seed`) to
        (height, width, 3) float32 in 0..255. Parts of the policy that are off change no bit. Many threads may call it.

    Examples
    --------
    >>> view = augmenter(2, 2, ViewPolicy(brightness=(0.2, 0.2)))
    >>> view(tf.zeros((2, 2, 3)), tf.constant([1, 2], tf.int64))[0, 0].numpy().tolist()
    [51.0, 51.0, 51.0]
    """

    def view(pixels: Tensor, seed: Tensor) -> Tensor:
        # GPU kernels round otherwise, and images are decoded on the processor anyway.
        with tf.device("/CPU:0"):
            drawn = parameters(policy, seed)
            matrix = warp_matrix(height, width, policy, drawn)
            if matrix is not None:
                pixels = _warp(pixels, matrix)
            return _colour(pixels, policy, drawn)

    signature = [tf.TensorSpec((height, width, 3), tf.float32), tf.TensorSpec((2,), tf.int64)]
    return tf.function(view, input_signature=signature, autograph=False)


def parameters(policy: ViewPolicy, seed: Tensor) -> Mapping[str, Tensor]:
    """Draw the float64 parameters of one view, uniform in their ranges.

    ``flip_x`` and ``flip_y`` are 1 or -1, ``crop_y`` and ``crop_x`` the position of the window between 0 and 1,
    ``contrast`` and the zooms are factors around 1.
    """
    uniform = tf.random.stateless_uniform([_DRAWS], seed, alg="philox")
    draw = dict(zip(_SLOTS, tf.unstack(tf.cast(uniform, tf.float64)), strict=False))
    height_zoom = policy.zoom
    wide = {
        "rotation": policy.rotation,
        "zoom_y": _around_one(height_zoom),
        "zoom_x": _around_one(policy.zoom_width or height_zoom),
        "translation_y": policy.translation,
        "translation_x": policy.translation_width or policy.translation,
        "crop_y": (0.0, 1.0),
        "crop_x": (0.0, 1.0),
        "contrast": _around_one(policy.contrast),
        "brightness": policy.brightness,
    }
    drawn = {name: lower + (upper - lower) * draw[name] for name, (lower, upper) in wide.items()}
    if policy.zoom_width is None:
        drawn["zoom_x"] = drawn["zoom_y"]
    for name, axis in (("flip_x", "horizontal"), ("flip_y", "vertical")):
        turned = tf.where(draw[name] < 0.5, tf.constant(-1.0, tf.float64), tf.constant(1.0, tf.float64))
        drawn[name] = turned if axis in policy.flip else tf.ones((), tf.float64)
    return drawn


def _around_one(factor: tuple[float, float]) -> tuple[float, float]:
    return 1.0 + factor[0], 1.0 + factor[1]


def warp_matrix(height: int, width: int, policy: ViewPolicy, drawn: Mapping[str, Tensor]) -> Tensor | None:
    """Build the matrix from view to image pixels; None if nothing moves.

    It is (3, 3) float64 and takes (x, y, 1). A later layer reads the result of the one before: its matrix stands right.
    """
    across, down = (width - 1) / 2, (height - 1) / 2
    steps = []
    if policy.flip != "none":
        steps.append(_centred(across, down, drawn["flip_x"], 0.0, 0.0, drawn["flip_y"]))
    if any(policy.rotation):
        angle = 2 * math.pi * drawn["rotation"]
        cos, sin = tf.cos(angle), tf.sin(angle)
        steps.append(_centred(across, down, cos, -sin, sin, cos))
    if any(policy.zoom) or any(policy.zoom_width or ()):
        steps.append(_centred(across, down, drawn["zoom_x"], 0.0, 0.0, drawn["zoom_y"]))
    if any(policy.translation) or any(policy.translation_width or ()):
        x, y = -width * drawn["translation_x"], -height * drawn["translation_y"]
        steps.append(_matrix(1.0, 0.0, x, 0.0, 1.0, y))
    if policy.crop != 1.0:
        # From half-pixel centres of the window to those of the image, as resizing does.
        share = policy.crop
        x = (1 - share) * width * drawn["crop_x"] + (share - 1) / 2
        y = (1 - share) * height * drawn["crop_y"] + (share - 1) / 2
        steps.append(_matrix(share, 0.0, x, 0.0, share, y))
    if not steps:
        return None
    matrix = steps[0]
    for step in steps[1:]:
        matrix = tf.linalg.matmul(matrix, step)
    return matrix


def _centred(across: float, down: float, a: Any, b: Any, c: Any, d: Any) -> Tensor:
    return _matrix(a, b, across - a * across - b * down, c, d, down - c * across - d * down)


def _matrix(*values: Any) -> Tensor:
    rows = [tf.cast(value, tf.float64) for value in (*values, 0.0, 0.0, 1.0)]
    return tf.reshape(tf.stack(rows), (3, 3))


def _warp(pixels: Tensor, matrix: Tensor) -> Tensor:
    transform = tf.cast(tf.reshape(matrix, (1, 9))[:, :8], tf.float32)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=pixels[None],
        transforms=transform,
        output_shape=tf.shape(pixels)[:2],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="REFLECT",
    )[0]


def _colour(pixels: Tensor, policy: ViewPolicy, drawn: Mapping[str, Tensor]) -> Tensor:
    # Contrast, then brightness, each clipped to 0..255 as the layers do.
    if any(policy.contrast):
        # Summed as whole numbers: the order in which threads add floats would show in the last bits.
        counts = tf.cast(tf.round(pixels * _PARTS), tf.int64)
        total = tf.cast(tf.reduce_sum(counts, (0, 1)), tf.float64)
        mean = tf.cast(total / (_PARTS * pixels.shape[0] * pixels.shape[1]), tf.float32)
        pixels = _clipped((pixels - mean) * tf.cast(drawn["contrast"], tf.float32) + mean)
    if any(policy.brightness):
        pixels = _clipped(pixels + 255.0 * tf.cast(drawn["brightness"], tf.float32))
    # Weights of an interpolation add up to one only as far as rounding goes.
    return _clipped(pixels)


def _clipped(pixels: Tensor) -> Tensor:
    return tf.clip_by_value(pixels, 0.0, 255.0)
