"""Turn RGB pixels in 0..255 into what a base was trained on.

Any Keras loads these stock layers in safe mode. The same layers run at extraction, in the merged model and in the
exported signature, so nothing can drift apart.
"""

from __future__ import annotations

from typing import Any

from bottleneck.errors import UsageError
from bottleneck.schema import PREPROCESSINGS, Preprocessing


def channels_of(preprocessing: Preprocessing) -> int:
    """Count the channels of a preprocessed image.

    Examples
    --------
    >>> channels_of(Preprocessing.parse("caffe"))
    3
    """
    return 1 if preprocessing.channels == "grey" else 3


def apply(x: Any, preprocessing: Preprocessing) -> Any:
    """Preprocess images `x` in 0..255; the identity adds nothing.

    Parameters
    ----------
    x : tensor or KerasTensor
        RGB pixels (n, height, width, 3), float32.
    preprocessing : Preprocessing

    Returns
    -------
    tensor or KerasTensor
        (n, height, width, 1) for grey, else (n, height, width, 3).

    Notes
    -----
    ``caffe`` equals `keras.applications`' own bit for bit; ``tf`` and ``torch`` multiply where Keras divides, so they
    differ from it by rounding (1e-6 of a unit). Grey is Rec. 601 luma, as `keras.ops.image.rgb_to_grayscale` has it.
    """
    import keras

    if preprocessing.channels == "bgr":
        x = keras.ops.flip(x, axis=-1)
    elif preprocessing.channels == "grey":
        x = keras.ops.image.rgb_to_grayscale(x, data_format="channels_last")
    scale, offset = _plain(preprocessing.scale), _plain(preprocessing.offset)
    if scale == 1.0 and offset == 0.0:
        return x
    return keras.layers.Rescaling(scale, offset)(x)


def _plain(values: tuple[float, ...]) -> float | list[float]:
    # One number where all agree; else a list: arrays do not serialise in safe mode.
    return values[0] if len(set(values)) == 1 else list(values)


def check_channels(preprocessing: Preprocessing, channels: int, base: str) -> None:
    """Raise `UsageError` unless `preprocessing` gives the channels of the base.

    Examples
    --------
    >>> check_channels(Preprocessing.parse("tf"), 3, "vgg16")
    """
    given = channels_of(preprocessing)
    if given == channels:
        return
    advice = (
        "write --preprocessing channels=grey,scale=1/255,offset=0 (with the base's own scale and offset)"
        if channels == 1
        else f"use one of {', '.join(PREPROCESSINGS)}, or channels=rgb or bgr"
    )
    raise UsageError(f"base {base!r} takes {channels} channel(s), its preprocessing makes {given}; {advice}")
