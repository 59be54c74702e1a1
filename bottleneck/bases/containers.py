"""Lists, dictionaries, numbers and texts, plain or of a class derived from them; what an object is pickled as.

Items are told in the order that code meets them in, but those of a dictionary of arguments by name, which has none.
"""

from __future__ import annotations

import copyreg
from abc import abstractmethod
from itertools import islice
from types import MappingProxyType
from typing import Any, TypeGuard

from bottleneck.bases.held import built_in, instance_state, plain_content
from bottleneck.bases.namespaces import Namespaces
from bottleneck.bases.origin import origin_of
from bottleneck.schema import canonical_json

#: In a container of Python's or a package's: one that gives more may give them without end.
_MOST_ITEMS = 1 << 20

#: Stand-ins that Keras and TensorFlow put for a list, a tuple, a dictionary or a set in an attribute.
TRACKED = frozenset(
    {"ListWrapper", "TrackedDict", "TrackedList", "TrackedSet", "_DictWrapper", "_TupleWrapper"}
)


class Containers(Namespaces):
    """The part of `bottleneck.bases.code.CodeReader` that tells what holds other things."""

    @abstractmethod
    def array(self, value: Any) -> list[Any]:
        """Shape, type and a hash of the bytes of an array."""

    @abstractmethod
    def _from(self, value: Any) -> list[str]: ...

    def _container(self, value: Any) -> Any:
        """Items of a plain list, tuple, dictionary or set, in the order that code meets them in."""
        if isinstance(value, (list, tuple)):
            return ["list" if isinstance(value, list) else "tuple", *map(self.told, value)]
        if isinstance(value, (dict, MappingProxyType)):
            return ["dict", *([self.told(key), self.told(item)] for key, item in value.items())]
        return ["set", *sorted(map(self.told, value), key=canonical_json)]

    def _stand_in(self, value: Any) -> Any:
        kind = built_in(value)
        if kind is None:
            return self.told(value.__wrapped__)
        return self._container(kind(value.items() if kind is dict else value))

    def _saved(self, value: Any) -> Any:
        """What an attribute of a layer holds: a tuple in it as a list, for Keras loads it as one."""
        kind, basic = type(value), built_in(value)
        if kind is not basic and not (kind.__name__ in TRACKED and origin_of(kind).kind == "stock"):
            return self.told(value)
        if basic in (list, tuple):
            return self._once((id(value), "saved"), value, lambda: ["list", *map(self._saved, value)])
        if basic is dict:
            pairs = ([self.told(key), self._saved(item)] for key, item in value.items())
            return self._once((id(value), "saved"), value, lambda: ["dict", *pairs])
        return self.told(value) if basic else self._saved(value.__wrapped__)

    def _settled(self, value: Any) -> Any:
        """What a stock object holds: its dictionaries are arguments by name, and a list is as good as a tuple."""
        if origin_of(type(value)).kind == "own":
            return self.told(value)
        if isinstance(value, dict):
            pairs = [[self.told(key), self._settled(item)] for key, item in value.items()]
            return ["dict", *sorted(pairs, key=canonical_json)]
        if isinstance(value, (list, tuple)):
            return ["list", *map(self._settled, value)]
        return self.told(value)

    def _derived(self, value: Any) -> Any:
        """An instance of a class derived from a number, a text or a container."""
        kind = type(value)
        origin = origin_of(kind)
        if origin.kind != "own" and hasattr(kind, "__array__"):
            return ["array", *self.array(value)]  # a number of NumPy's
        content = self.told(plain_content(value))
        parts: list[Any] = []
        # Of the user's above a basic class: state and content are all that there is. A set is pickled in any order.
        if not isinstance(value, (set, frozenset)) and not all(map(_is_seen_through, kind.__mro__)):
            parts = [self._pickled(value)]
        if origin.kind != "own":
            return ["object", *self._from(kind), kind.__qualname__, content, *parts]
        return ["instance", self.told(kind), self._attributes(instance_state(value)), content, *parts]

    def _more(self, value: Any, plain: type) -> list[Any]:
        """Class and attributes of what may be more than `plain` says."""
        more = [] if type(value) is plain else [self.told(type(value))]
        state = instance_state(value)
        return [*more, self._attributes(state)] if state else more

    def _pickled(self, value: Any) -> Any:
        """What an object is pickled as; a word where it is not."""
        try:
            # As pickle does: a regular expression has its way of being pickled in copyreg alone.
            reduce = copyreg.dispatch_table.get(type(value))
            parts: Any = reduce(value) if reduce else value.__reduce_ex__(4)
        except Exception:  # a lock, a stream: what it does cannot be told, and the canary stands for it
            return "opaque"
        if isinstance(parts, str):
            return parts
        items = [list(islice(part, _MOST_ITEMS)) for part in parts[3:5] if part is not None]
        if any(len(part) == _MOST_ITEMS for part in items):
            raise ValueError(f"it gives {_MOST_ITEMS:,} items or more")
        state = parts[2] if len(parts) > 2 else None
        told = self._attributes(state) if _is_names(state) else self.told(state)
        return [*map(self.told, parts[:2]), told, *map(self.told, items)]

    def _attributes(self, values: dict[str, Any]) -> list[Any]:
        return [[name, self.told(values[name])] for name in sorted(values)]


def _is_seen_through(kind: type) -> bool:
    return kind.__module__ == "builtins" or origin_of(kind).kind == "own"


def _is_names(state: Any) -> TypeGuard[dict[str, Any]]:
    return type(state) is dict and all(type(name) is str for name in state)
