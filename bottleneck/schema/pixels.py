"""How the bytes of a file become a base's input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from bottleneck.errors import UnknownName, UsageError
from bottleneck.schema.values import Frozen, parse

Resize = Literal["stretch", "crop", "pad"]
Channels = Literal["rgb", "bgr", "grey"]


_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Preprocessing(Frozen):
    """One affine form a channel, ``y = x * scale + offset``.

    Parameters
    ----------
    channels : {"rgb", "bgr", "grey"}
        Order of the channels that the base was trained on; `scale` and `offset` follow it.
    scale, offset : tuple of float
        One value a channel, or one for all; pixels come in as 0..255.

    Examples
    --------
    >>> Preprocessing.parse("caffe").offset
    (-103.939, -116.779, -123.68)
    >>> Preprocessing.parse("scale=1/127.5,offset=-1") == Preprocessing.parse("tf")
    True
    """

    channels: Channels = "rgb"
    scale: tuple[float, ...] = (1.0,)
    offset: tuple[float, ...] = (0.0,)

    @field_validator("scale", "offset")
    @classmethod
    def _one_zero(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        # -0.0 equals 0.0 but is written otherwise: equal values must have one canonical form.
        return tuple(value + 0.0 for value in values)

    @model_validator(mode="after")
    def _check(self) -> Self:
        width = 1 if self.channels == "grey" else 3
        for name, values in (("scale", self.scale), ("offset", self.offset)):
            if len(values) not in (1, width):
                raise ValueError(
                    f"{name} has {len(values)} values; channels={self.channels} takes 1 or {width}"
                )
        return self

    @property
    def is_identity(self) -> bool:
        """Test whether pixels pass unchanged."""
        return self.channels == "rgb" and set(self.scale) == {1.0} and set(self.offset) == {0.0}

    @classmethod
    def parse(cls, text: str) -> Preprocessing:
        """Parse a named value, or ``scale=…,offset=…,channels=…``.

        Fractions are written with ``/``, channels are separated by ``:``.
        """
        named = PREPROCESSINGS.get(text)
        if named is not None:
            return named
        if "=" not in text:
            raise UnknownName(
                "preprocessing", text, PREPROCESSINGS, "or write scale=1/255,offset=0,channels=rgb"
            )
        parts: dict[str, Any] = {}
        for item in text.split(","):
            key, _, value = item.partition("=")
            key = key.strip()
            if key not in ("scale", "offset", "channels"):
                raise UnknownName("preprocessing part", key, ("scale", "offset", "channels"))
            try:
                parts[key] = (
                    value.strip() if key == "channels" else tuple(_fraction(v) for v in value.split(":"))
                )
            except (ValueError, ZeroDivisionError) as error:
                raise UsageError(
                    f"--preprocessing {text!r}: {key}={value!r} is no number; write 0.5, 1/127.5 or 1:2:3"
                ) from error
        return parse(cls, parts, f"--preprocessing {text!r}")


def _fraction(text: str) -> float:
    top, _, bottom = text.partition("/")
    return float(top) / float(bottom or 1)


PREPROCESSINGS: Mapping[str, Preprocessing] = {
    "none": Preprocessing(),
    "caffe": Preprocessing(channels="bgr", offset=(-103.939, -116.779, -123.68)),
    "tf": Preprocessing(scale=(1 / 127.5,), offset=(-1.0,)),
    "torch": Preprocessing(
        scale=tuple(1 / (255 * s) for s in _STD),
        offset=tuple(-m / s for m, s in zip(_MEAN, _STD, strict=True)),
    ),
    "vggface1": Preprocessing(channels="bgr", offset=(-93.5940, -104.7624, -129.1863)),
    "vggface2": Preprocessing(channels="bgr", offset=(-91.4953, -103.8827, -131.0912)),
}


class Pixels(Frozen):
    """The pixel contract: bytes of a file to values in 0..255."""

    contract: Literal[1] = 1
    height: int = Field(ge=1, le=8192)
    width: int = Field(ge=1, le=8192)
    resize: Resize = "stretch"
    orientation: Literal["exif"] = "exif"
    alpha: Literal["white"] = "white"
