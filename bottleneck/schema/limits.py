"""What one image may cost before the run goes on without it."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from bottleneck.schema.values import Frozen

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,3})?) ?([KMGT]?)(?:i?B)?", re.IGNORECASE)


class Limits(Frozen):
    """Bounds on the worker.

    Attributes
    ----------
    deadline : float
        Seconds without a sign of life while an image is worked on.
    memory : int or None
        Bytes of resident memory of the worker process; None: no bound. Given as a number or as ``"8G"``.

    Examples
    --------
    >>> Limits(memory="1.5G").memory, Limits().deadline
    (1610612736, 60.0)
    """

    deadline: float = Field(default=60.0, gt=0.0, le=1e9)
    memory: int | None = Field(default=None, ge=1)

    @field_validator("memory", mode="before")
    @classmethod
    def _bytes(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            raise ValueError("no size; write 8G, 512M or a number of bytes")
        return int(float(match[1]) * _UNITS[match[2].upper()])
