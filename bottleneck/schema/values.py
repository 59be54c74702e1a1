"""Frozen values, equal by value, parsed from JSON and written to it."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from bottleneck.errors import UsageError

M = TypeVar("M", bound=BaseModel)

_SAFE = re.compile(r"[^A-Za-z0-9_.]+")


class Frozen(BaseModel):
    """A value: frozen, closed to unknown fields, with one canonical JSON form."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def canonical(self) -> bytes:
        """Give the one JSON form that is hashed."""
        return canonical_json(self.model_dump(mode="json"))


def canonical_json(value: Any) -> bytes:
    """Write JSON so that equal values give equal bytes.

    Keys are sorted, without spaces, in ASCII, without NaN.

    Examples
    --------
    >>> canonical_json({"b": 1, "a": [1.5, "é"]})
    b'{"a":[1.5,"\\\\u00e9"],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def json_value(value: Any) -> Any:
    """Turn a result into values that `json.dumps` takes.

    What has a `to_json` decides for itself; other dataclasses and named tuples give all of their fields.
    """
    if hasattr(value, "to_json"):
        return value.to_json()
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value):
        return json_fields(value, *(field.name for field in dataclasses.fields(value)))
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {key: json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_value(item) for item in value]
    return str(value) if isinstance(value, PurePath) else value


def json_fields(result: Any, *names: str) -> dict[str, Any]:
    """Give these attributes of a result as JSON values, in this order."""
    return {name: json_value(getattr(result, name)) for name in names}


def parse(model: type[M], value: Any, where: str) -> M:
    """Validate `value` as `model`. Raises `UsageError` naming `where` and fields."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise UsageError(f"{where}: {explain_errors(error)}") from error


def explain_errors(error: ValidationError) -> str:
    """Put pydantic's errors in one line, field by field."""
    return "; ".join(
        (".".join(str(part) for part in item["loc"]) or "value")
        + f": {item['msg']} (got {item['input']!r:.80})"
        for item in error.errors(include_url=False)
    )


def safe_name(text: str, *, longest: int = 40) -> str:
    """Make a safe part of a file name from free text.

    ASCII letters, digits, ``_`` and ``.``; never empty, never a dot file.

    Examples
    --------
    >>> safe_name("vgg16/block5 pool"), safe_name("..")
    ('vgg16_block5_pool', 'x')
    """
    return _SAFE.sub("_", text).strip("._")[:longest] or "x"
