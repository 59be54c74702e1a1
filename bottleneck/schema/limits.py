"""Bounds on one image's cost, and the circumstances of giving up."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import re

from pydantic import Field, field_validator

from bottleneck.schema.values import Frozen

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(
    r"(\+?(?:[0-9][0-9_]{0,18}\.?[0-9]*|\.[0-9]+)(?:e[0-9]{1,2})?) *([KMGT]?)(?:i?B)?", re.IGNORECASE
)


def parse_size(text: str) -> int:
    """Turn a number with or without a unit into bytes. Raises ValueError.

    Examples
    --------
    >>> parse_size("1.5G"), parse_size("512 MiB"), parse_size("1_000")
    (1610612736, 536870912, 1000)
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError("no size; write 8G, 512M or a number of bytes")
    return int(float(match[1].replace("_", "")) * _UNITS[match[2].upper()])


def format_size(count: float) -> str:
    """Format a number of bytes.

    Examples
    --------
    >>> format_size(532), format_size(5_300_000)
    ('532 B', '5.3 MB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


class Limits(Frozen):
    """Bounds on the worker.

    Attributes
    ----------
    deadline : float
        Seconds without a sign of life while an image is worked on.
    memory : int or None
        Bytes of resident memory of the worker process; None: no bound. Given as a number or as ``"8G"``.
    retry : bool
        Whether images that were given up twice under these very limits are tried once more all the same.

    Examples
    --------
    >>> Limits(memory="1.5G").memory, Limits().deadline
    (1610612736, 60.0)
    """

    deadline: float = Field(default=60.0, gt=0.0, le=1e9)
    memory: int | None = Field(default=None, ge=1)
    retry: bool = False

    @property
    def circumstances(self) -> str:
        """Describe the limits and versions under which an image is given up.

        Another text is reason to try the image again.

        Examples
        --------
        >>> Limits(deadline=5, memory="2G").circumstances.split(", ")[:2]
        ['deadline 5 s', 'memory limit 2147483648']
        """
        bound = "no memory limit" if self.memory is None else f"memory limit {self.memory}"
        return f"deadline {self.deadline:g} s, {bound}, {_versions()}"

    @field_validator("memory", mode="before")
    @classmethod
    def _bytes(cls, value: object) -> object:
        return parse_size(value) if isinstance(value, str) else value


@functools.cache
def _versions() -> str:
    """Name the versions of what decodes and computes."""
    found = [f"Python {platform.python_version()}"]
    for name in ("bottleneck-features", "tensorflow", "keras", "numpy", "numba"):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue  # numba need not be there
    return ", ".join(found)
