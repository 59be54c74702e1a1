"""Describe containers, numbers and texts, also of derived classes.

Items keep the order that code meets them in; a dictionary of arguments has none and is sorted by name.
"""

from __future__ import annotations

import copyreg
from abc import abstractmethod
from itertools import islice
from types import MappingProxyType
from typing import Any, TypeGuard

from bottleneck.bases.code.contents import built_in, instance_state, plain_content
from bottleneck.bases.code.namespaces import Namespaces
from bottleneck.bases.code.origin import origin_of
from bottleneck.schema import canonical_json

#: In a container of Python or a package: one with more items may never end.
_MOST_ITEMS = 1 << 20

#: Classes that Keras and TensorFlow put in place of a list, a tuple, a dictionary or a set in an attribute.
TRACKED = frozenset(
    {"ListWrapper", "TrackedDict", "TrackedList", "TrackedSet", "_DictWrapper", "_TupleWrapper"}
)


class Containers(Namespaces):
    """The part of `CodeReader` that describes containers."""

    @abstractmethod
    def array(self, value: Any) -> list[Any]:
        """Return shape, type and a hash of the bytes of an array."""

    @abstractmethod
    def _from(self, value: Any) -> list[str]: ...

    def _container(self, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return ["list" if isinstance(value, list) else "tuple", *map(self.describe, value)]
        if isinstance(value, (dict, MappingProxyType)):
            return ["dict", *([self.describe(key), self.describe(item)] for key, item in value.items())]
        return ["set", *sorted(map(self.describe, value), key=canonical_json)]

    def _stand_in(self, value: Any) -> Any:
        kind = built_in(value)
        if kind is None:
            return self.describe(value.__wrapped__)
        return self._container(kind(value.items() if kind is dict else value))

    def _saved(self, value: Any) -> Any:
        """Describe an attribute of a layer; Keras loads tuples as lists."""
        kind, basic = type(value), built_in(value)
        if kind is not basic and not (kind.__name__ in TRACKED and origin_of(kind).kind == "keras"):
            return self.describe(value)
        if basic in (list, tuple):
            return self._once((id(value), "saved"), value, lambda: ["list", *map(self._saved, value)])
        if basic is dict:
            pairs = ([self.describe(key), self._saved(item)] for key, item in value.items())
            return self._once((id(value), "saved"), value, lambda: ["dict", *pairs])
        return self.describe(value) if basic else self._saved(value.__wrapped__)

    def _settled(self, value: Any) -> Any:
        """Describe an attribute of a Keras object.

        Its dictionaries are arguments by name, and a list equals a tuple.
        """
        if origin_of(type(value)).kind == "user":
            return self.describe(value)
        if isinstance(value, dict):
            pairs = [[self.describe(key), self._settled(item)] for key, item in value.items()]
            return ["dict", *sorted(pairs, key=canonical_json)]
        if isinstance(value, (list, tuple)):
            return ["list", *map(self._settled, value)]
        return self.describe(value)

    def _derived(self, value: Any) -> Any:
        kind = type(value)
        origin = origin_of(kind)
        if origin.kind != "user" and hasattr(kind, "__array__"):
            return ["array", *self.array(value)]  # a number of NumPy
        content = self.describe(plain_content(value))
        parts: list[Any] = []
        # A user's class above a basic one has state and content only. A set is pickled in any order.
        if not isinstance(value, (set, frozenset)) and not all(map(_is_seen_through, kind.__mro__)):
            parts = [self._pickled(value)]
        if origin.kind != "user":
            return ["object", *self._from(kind), kind.__qualname__, content, *parts]
        return ["instance", self.describe(kind), self._attributes(instance_state(value)), content, *parts]

    def _more(self, value: Any, plain: type) -> list[Any]:
        """Describe class and attributes that `plain` does not have."""
        more = [] if type(value) is plain else [self.describe(type(value))]
        state = instance_state(value)
        return [*more, self._attributes(state)] if state else more

    def _pickled(self, value: Any) -> Any:
        """Describe what an object is pickled as, or give a word."""
        try:
            # As pickle does: a regular expression has its way of being pickled in copyreg alone.
            reduce = copyreg.dispatch_table.get(type(value))
            parts: Any = reduce(value) if reduce else value.__reduce_ex__(4)
        except Exception:  # a lock, a stream: nothing describes what it does; the canary stands for it
            return "opaque"
        if isinstance(parts, str):
            return parts
        items = [list(islice(part, _MOST_ITEMS)) for part in parts[3:5] if part is not None]
        if any(len(part) == _MOST_ITEMS for part in items):
            raise ValueError(f"it gives {_MOST_ITEMS:,} items or more")
        state = parts[2] if len(parts) > 2 else None
        described = self._attributes(state) if _is_names(state) else self.describe(state)
        return [*map(self.describe, parts[:2]), described, *map(self.describe, items)]

    def _attributes(self, values: dict[str, Any]) -> list[Any]:
        return [[name, self.describe(values[name])] for name in sorted(values)]


def _is_seen_through(kind: type) -> bool:
    return kind.__module__ == "builtins" or origin_of(kind).kind == "user"


def _is_names(state: Any) -> TypeGuard[dict[str, Any]]:
    return type(state) is dict and all(type(name) is str for name in state)
