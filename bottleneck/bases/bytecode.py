"""What a Python function does, as plain data: its instructions without what only a reader of the source sees.

Left out: comments, blank lines, docstrings, line numbers, file names, names of local variables. Kept: instructions,
constants, names of parameters (a call may use them) and of attributes. Another minor version of Python compiles the
same source to other instructions.
"""

from __future__ import annotations

import dis
import hashlib
import inspect
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

_IDLE = frozenset({"EXTENDED_ARG", "NOP", "RESUME", "PRECALL"})

#: What a class body stores of itself for people and debuggers.
_FOR_READERS = frozenset(
    {"__doc__", "__firstlineno__", "__module__", "__qualname__", "__static_attributes__"}
)

_KIND = (
    inspect.CO_VARARGS
    | inspect.CO_VARKEYWORDS
    | inspect.CO_GENERATOR
    | inspect.CO_COROUTINE
    | inspect.CO_ASYNC_GENERATOR
)

_GLOBAL = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})


def plain(code: CodeType, constant: Callable[[Any], Any], outside: Callable[[str], Any]) -> list[Any]:
    """The instructions of `code` as lists of texts and numbers.

    Parameters
    ----------
    code : types.CodeType
    constant : callable
        Gives a constant as plain data.
    outside : callable
        Gives what stands for a global name.

    Examples
    --------
    >>> def f(x):
    ...     "Twice."
    ...     y = 2 * x
    ...     return y
    >>> def g(x):
    ...     # another name, no docstring
    ...     twice = 2 * x
    ...     return twice
    >>> plain(f.__code__, repr, str) == plain(g.__code__, repr, str)
    True
    """
    arguments = code.co_argcount + code.co_kwonlyargcount
    arguments += bool(code.co_flags & inspect.CO_VARARGS) + bool(code.co_flags & inspect.CO_VARKEYWORDS)
    parameters = code.co_varnames[:arguments]
    numbers: dict[str, int] = {name: number for number, name in enumerate(parameters)}
    free = {name: number for number, name in enumerate(code.co_freevars)}

    def local(name: Any) -> Any:
        if isinstance(name, tuple):  # two at once, from Python 3.13 on
            return [local(one) for one in name]
        return ["free", free[name]] if name in free else numbers.setdefault(str(name), len(numbers))

    kept = _kept(code)
    places = {}
    for place, instruction in enumerate(kept):
        places[instruction.offset] = place
    after = _places(code, places, len(kept))
    lines: list[Any] = [
        [code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & _KIND],
        list(parameters),
        len(free),
    ]
    for instruction in kept:
        opcode, name = instruction.opcode, instruction.opname
        told: Any = instruction.arg
        if opcode in dis.hasconst:
            told = constant(instruction.argval)
        elif opcode in dis.haslocal or opcode in dis.hasfree:
            told = local(instruction.argval)
        elif opcode in dis.hasname:
            told = outside(instruction.argval) if name in _GLOBAL else instruction.argval
        elif opcode in dis.hasjrel or opcode in dis.hasjabs:
            told = after.get(instruction.argval, "end")
        lines.append([name, told])
    lines.append(hashlib.sha256(code.co_exceptiontable).hexdigest()[:16])
    return lines


def attributes(code: CodeType) -> set[str]:
    """Names that `code`, or a function inside it, may ask a module for."""
    names = set(code.co_names)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            names |= attributes(inner)
    return names


def imports(code: CodeType) -> Iterator[tuple[str, int]]:
    """Names of the modules that `code` imports while it runs, with how many packages up each is looked for."""
    before: list[dis.Instruction] = []
    for instruction in dis.get_instructions(code):
        if instruction.opname == "IMPORT_NAME":
            level = before[-2].argval if len(before) > 1 else 0
            yield instruction.argval, level if isinstance(level, int) else 0
        if instruction.opname not in _IDLE:
            before.append(instruction)


def _kept(code: CodeType) -> list[dis.Instruction]:
    held: list[dis.Instruction] = []
    for instruction in dis.get_instructions(code):
        if instruction.opname in _IDLE:
            continue
        if instruction.opname == "STORE_NAME" and instruction.argval in _FOR_READERS and held:
            held.pop()  # what it would have stored
            continue
        held.append(instruction)
    return held


def _places(code: CodeType, places: dict[int, int], end: int) -> dict[int, int]:
    """Offset of every instruction to the place of the next one that is kept: jumps may lead to one that is not."""
    found: dict[int, int] = {}
    following = end
    for instruction in reversed(list(dis.get_instructions(code))):
        following = places.get(instruction.offset, following)
        found[instruction.offset] = following
    return found
