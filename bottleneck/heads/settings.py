"""Read a head's settings by the annotations of its constructor."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
from pydantic import TypeAdapter, ValidationError

from bottleneck.errors import UnknownName, UsageError
from bottleneck.schema import explain_errors


def known(head: type) -> dict[str, Any]:
    """Find a head's settings and annotations, in the constructor's order.

    Examples
    --------
    >>> from bottleneck.heads.logistic import LogisticHead
    >>> list(known(LogisticHead))[:2]
    ['C', 'standardize']
    """
    constructor: Any = vars(head)["__init__"]
    hints = get_type_hints(constructor, include_extras=True)
    return {name: hints[name] for name in inspect.signature(constructor).parameters if name != "self"}


def parse_settings(name: str, head: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Parse settings from values or the text of ``--set key=value``.

    Text is read by the annotation: ``hidden=4096,512`` is a tuple, ``batch_norm=true`` a bool,
    ``patience=none`` None. NumPy scalars, as a parameter grid holds them, count as numbers.

    Parameters
    ----------
    name : str
        The head's name, for messages.
    head : type
        Its class.
    given : mapping of str to Any

    Returns
    -------
    dict
        As many entries as `given`, typed.

    Raises
    ------
    UnknownName
        A setting the head does not have; lists the known and the nearest.
    UsageError
        A value of the wrong type or out of bounds.

    Examples
    --------
    >>> from bottleneck.heads.dense import DenseHead
    >>> parse_settings("dense", DenseHead, {"hidden": "4096,512", "batch_norm": "true", "patience": "none"})
    {'hidden': (4096, 512), 'batch_norm': True, 'patience': None}
    """
    hints = known(head)
    parsed: dict[str, Any] = {}
    for key, value in given.items():
        if key not in hints:
            raise UnknownName(f"setting of the head {name!r}", str(key), hints)
        try:
            parsed[key] = TypeAdapter(hints[key]).validate_python(_read(value, hints[key]))
        except ValidationError as error:
            raise UsageError(
                f"head {name!r}: setting {key}={value!r} does not fit: {explain_errors(error)}; "
                f"it takes {describe(hints[key])}"
            ) from error
    return parsed


def _read(value: Any, hint: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return _read(value.item() if value.ndim == 0 else value.tolist(), hint)
    if type(value) is int and any(get_origin(part) is tuple for part in _parts(hint)):
        return (value,)
    if isinstance(value, list | tuple):
        return tuple(_read(item, None) for item in value)
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.lower() == "none" and type(None) in _parts(hint):
        return None
    if any(get_origin(part) is tuple for part in _parts(hint)):
        return tuple(item.strip() for item in text.strip("()[]").split(",") if item.strip())
    return text


def _parts(hint: Any) -> list[Any]:
    """Split a union, or an ``Annotated``, into its types."""
    if hasattr(hint, "__metadata__"):
        return _parts(hint.__origin__)
    origin = get_origin(hint)
    if origin is not None and origin.__name__ in ("Union", "UnionType"):
        return [part for member in get_args(hint) for part in _parts(member)]
    return [hint]


def describe(hint: Any) -> str:
    """Describe an annotation in words: ``number > 0, or none``.

    Examples
    --------
    >>> describe(tuple[int, ...] | None)
    'whole numbers separated by commas, or none'
    """
    words = []
    metadata = getattr(hint, "__metadata__", ())
    for part in _parts(hint):
        origin = get_origin(part)
        if part is type(None):
            words.append("none")
        elif origin is tuple:
            words.append("whole numbers separated by commas")
        elif part is bool:
            words.append("true or false")
        elif origin is not None and origin.__name__ == "Literal":
            words.append(" | ".join(str(choice) for choice in get_args(part)))
        elif part in (int, float):
            words.append("a whole number" if part is int else "a number")
        else:
            words.append("a mapping of label to weight (in Python)")
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    bounds = [
        f"{sign} {getattr(rule, attribute)}"
        for field in metadata
        for rule in (field, *getattr(field, "metadata", ()))
        for attribute, sign in signs.items()
        if getattr(rule, attribute, None) is not None
    ]
    return ", or ".join(words) + (" (" + " and ".join(bounds) + ")" if bounds else "")


def check_settings(head: Any) -> dict[str, Any]:
    """Parse and check the settings of a head object, at `fit`.

    Raises
    ------
    UsageError
    """
    return parse_settings(type(head).__name__, type(head), head.get_params(deep=False))
