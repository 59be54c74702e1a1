"""Augmented views: drawn by the names and ranges of Keras' layers."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from bottleneck.errors import UnknownName, UsageError
from bottleneck.schema.values import Frozen, parse

Flip = Literal["none", "horizontal", "vertical", "horizontal_and_vertical"]

#: Views are numbered by two bytes of their key; number 0 is the image itself.
MOST_VIEWS = 1 << 16


def _range(value: Any) -> Any:
    """Read one number as a range around zero, as Keras does."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return (-abs(value), abs(value))
    return value


Factor = Annotated[tuple[float, float], BeforeValidator(_range)]


class ViewPolicy(Frozen):
    """What is drawn for each view, in the order of application.

    A factor is a range ``(lower, upper)``, or one number for ``(-number, number)``, and is drawn uniformly. Where
    Keras' layers differ from their own documentation (a single `RandomContrast` factor only raises contrast there,
    and both flips of `RandomFlip` happen together), this keeps to the documentation.

    Parameters
    ----------
    flip : {"none", "horizontal", "vertical", "horizontal_and_vertical"}
        `RandomFlip(mode)`: each with probability one half, on its own.
    rotation : range
        `RandomRotation(factor)`: in whole turns.
    zoom : range
        `RandomZoom(height_factor)`: 0.2 shows 20 % more of the image, -0.2 less.
    zoom_width : range, optional
        `RandomZoom(width_factor)`; None draws one factor for both axes, which keeps the aspect ratio.
    translation, translation_width : range
        `RandomTranslation(height_factor, width_factor)`: in parts of the extent. None for the width means the
        same range, drawn on its own.
    crop : float
        `RandomCrop` by share: a window of this part of height and width, anywhere, brought back to the full size.
    contrast : range
        `RandomContrast(factor)`: the distance from each channel's mean, times 1 + factor.
    brightness : range
        `RandomBrightness(factor)`: 255 times this is added.
    seed : int
        Another seed draws other views.

    Examples
    --------
    >>> policy = ViewPolicy.parse("flip=horizontal,rotation=0.1,zoom=-0.3:0")
    >>> policy.rotation, policy.zoom
    ((-0.1, 0.1), (-0.3, 0.0))
    >>> str(policy)
    'flip=horizontal,rotation=0.1,zoom=-0.3:0,seed=0'
    """

    #: How views are made from these numbers; raised when the same policy would give other pixels.
    contract: Literal[1] = 1
    flip: Flip = "none"
    rotation: Factor = (0.0, 0.0)
    zoom: Factor = (0.0, 0.0)
    zoom_width: Factor | None = None
    translation: Factor = (0.0, 0.0)
    translation_width: Factor | None = Field(default=None, validate_default=True)
    crop: float = Field(default=1.0, gt=0.0, le=1.0)
    contrast: Factor = (0.0, 0.0)
    brightness: Factor = (0.0, 0.0)
    seed: int = Field(default=0, ge=0, lt=1 << 63)

    @field_validator(
        "rotation", "zoom", "zoom_width", "translation", "translation_width", "contrast", "brightness"
    )
    @classmethod
    def _check(cls, value: tuple[float, float] | None, info: Any) -> tuple[float, float] | None:
        if value is None:
            # Written out, so that equal policies have one canonical form.
            return info.data.get("translation") if info.field_name == "translation_width" else None
        lower, upper = value
        if not lower <= upper:
            raise ValueError(f"the range goes from {lower:g} to {upper:g}: put the lower number first")
        if not (lower >= -1 and upper <= 1) or (info.field_name.startswith("zoom") and lower == -1):
            raise ValueError(
                "factors lie between -1 and 1, as in Keras (a zoom above -1: there is an image to see)"
            )
        return lower + 0.0, upper + 0.0  # -0.0 equals 0.0 but is written otherwise

    @property
    def is_identity(self) -> bool:
        """Test whether every view is the image itself."""
        return self == ViewPolicy(seed=self.seed)

    @property
    def fingerprint(self) -> str:
        """Hash the canonical form: 64 hex digits of sha256."""
        return hashlib.sha256(b"bottleneck views 1\n" + self.canonical()).hexdigest()

    def draw_seed(self, key: bytes) -> tuple[int, int]:
        """Derive two signed 64-bit seeds from a view's key."""
        digest = hashlib.sha256(b"bottleneck view 1\n%d\n" % self.seed + key).digest()
        return int.from_bytes(digest[:8], "big", signed=True), int.from_bytes(
            digest[8:16], "big", signed=True
        )

    def __str__(self) -> str:
        parts = []
        for name in (*_FACTORS, "crop"):
            value, off = getattr(self, name), ViewPolicy.model_fields[name].default
            if name == "translation_width":
                off = self.translation
            if value != off:
                parts.append(f"{name}={_written(value)}")
        flip = [] if self.flip == "none" else [f"flip={self.flip}"]
        return ",".join([*flip, *parts, f"seed={self.seed}"])

    @classmethod
    def parse(cls, text: str) -> ViewPolicy:
        """Parse ``flip=horizontal,rotation=0.1,zoom=-0.2:0.1,…``; the rest is off.

        A first word ``default`` starts from the default policy instead: ``default,rotation=0,seed=1``.

        Raises
        ------
        UsageError
            A part that is unknown, no number, or out of its range.
        """
        where = f"--augment {text!r}"
        first, *rest = text.split(",")
        given: dict[str, Any] = {}
        if first.strip() == "default":
            given = DEFAULT_VIEWS.model_dump(exclude={"translation_width"})
        else:
            rest = [first, *rest]
        for item in rest:
            name, equals, value = (part.strip() for part in item.partition("="))
            if name not in _PARTS:
                raise UnknownName("part of --augment", name, _PARTS, "or `default` as the first word")
            if not equals:
                raise UsageError(f"{where}: {name} needs a value, for instance {name}={_EXAMPLES[name]}")
            given[name] = _read(name, value, where)
        return parse(cls, given, where)


_FACTORS = ("rotation", "zoom", "zoom_width", "translation", "translation_width", "contrast", "brightness")
_PARTS = ("flip", *_FACTORS, "crop", "seed")
_EXAMPLES = dict.fromkeys(_FACTORS, "0.1") | {"flip": "horizontal", "crop": "0.8", "seed": "0"}


def _written(value: Any) -> str:
    if not isinstance(value, tuple):
        return f"{value:g}"
    lower, upper = value
    return f"{upper:g}" if lower == -upper else f"{lower:g}:{upper:g}"


def _read(name: str, value: str, where: str) -> Any:
    if name == "flip":
        return value
    try:
        if name == "seed":
            return int(value)
        if name == "crop":
            return float(value)
        lower, colon, upper = value.partition(":")
        return (float(lower), float(upper)) if colon else float(lower)
    except ValueError as error:
        kind = "a whole number" if name == "seed" else "a number" if name == "crop" else "0.1 or -0.1:0.2"
        raise UsageError(f"{where}: {name}={value!r}: expected {kind}") from error


#: For photographs that may be mirrored; for digits, text or left hands give a policy without flips.
DEFAULT_VIEWS = ViewPolicy(
    flip="horizontal",
    rotation=(-0.05, 0.05),
    zoom=(-0.2, 0.1),
    translation=(-0.1, 0.1),
    contrast=(-0.2, 0.2),
    brightness=(-0.1, 0.1),
)


class Views(Frozen):
    """The number of views in training, with the image, and their policy."""

    count: int = Field(ge=2, le=MOST_VIEWS)
    policy: ViewPolicy
