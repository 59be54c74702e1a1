"""The instructions of Python functions, as plain data.

Left out, since they change nothing: comments, blank lines, docstrings, line numbers, file names, names of local
variables. Kept: instructions, constants, names of parameters (a call may use them) and of attributes. Another minor
version of Python compiles the same source to other instructions.
"""

from __future__ import annotations

import dis
import hashlib
import inspect
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any, NamedTuple

_IDLE = frozenset({"EXTENDED_ARG", "NOP", "RESUME", "PRECALL"})

#: What a class body stores of itself for people and debuggers.
_FOR_READERS = frozenset(
    {"__doc__", "__firstlineno__", "__module__", "__qualname__", "__static_attributes__"}
)

_KIND = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS | inspect.CO_GENERATOR
_KIND |= inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
_ATTRIBUTE = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
_GLOBAL = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})


def instructions_of(
    code: CodeType, constant: Callable[[Any], Any], outside: Callable[[str], Any]
) -> list[Any]:
    """List the instructions of `code` as texts and numbers.

    Parameters
    ----------
    code : types.CodeType
    constant : callable
        Returns a constant as plain data.
    outside : callable
        Returns what stands for a global name.

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
    >>> instructions_of(f.__code__, repr, str) == instructions_of(g.__code__, repr, str)
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
    after = _jump_targets(code, kept)
    lines: list[Any] = [
        [code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & _KIND],
        list(parameters),
        len(free),
    ]
    for instruction in kept:
        opcode, name = instruction.opcode, instruction.opname
        argument: Any = instruction.arg
        if opcode in dis.hasconst:
            # Names of a call's keywords: `dis` of Python 3.11 does not know that they are a constant.
            argument = constant(
                code.co_consts[instruction.arg or 0] if name == "KW_NAMES" else instruction.argval
            )
        elif opcode in dis.haslocal or opcode in dis.hasfree:
            argument = local(instruction.argval)
        elif opcode in dis.hasname:
            argument = outside(instruction.argval) if name in _GLOBAL else instruction.argval
        elif opcode in dis.hasjrel or opcode in dis.hasjabs:
            argument = after.get(instruction.argval, "end")
        lines.append([name, argument])
    lines.append(hashlib.sha256(code.co_exceptiontable).hexdigest()[:16])
    return lines


class Asked(NamedTuple):
    """Names of attributes that code loads."""

    names: frozenset[str]
    #: Those whose value is not asked for another attribute.
    ends: frozenset[str]


def asked(code: CodeType) -> Asked:
    """List what `code` or its functions may ask of a module."""
    kept = _kept(code)
    names, ends, loose = set(code.co_names), set(), passed_on(code)
    for place, instruction in enumerate(kept):
        if instruction.opname in _ATTRIBUTE and not _asks(kept, place + 1):
            ends.add(instruction.argval)
        if instruction.opname == "IMPORT_FROM" and not _is_kept_to_itself(kept, place + 1, loose):
            ends.add(instruction.argval)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            more = asked(inner)
            names |= more.names
            ends |= more.ends
    return Asked(frozenset(names), frozenset(ends))


def passed_on(code: CodeType) -> set[str]:
    """Name the variables that `code` uses for more than plain attributes."""
    kept = _kept(code)
    variables: set[str] = set()
    for place, instruction in enumerate(kept):
        if not (instruction.opname in _GLOBAL or _is_local_load(instruction)):
            continue
        names = instruction.argval if isinstance(instruction.argval, tuple) else (instruction.argval,)
        variables.update(names[:-1] if _asks(kept, place + 1) else names)
    return variables


def imports(code: CodeType) -> Iterator[tuple[str, int, bool]]:
    """Yield each import in `code`: name, level, whether passed on."""
    kept = _kept(code)
    loose, ends = passed_on(code), asked(code).ends
    for place, instruction in enumerate(kept):
        if instruction.opname != "IMPORT_NAME":
            continue
        name, level = instruction.argval, kept[place - 2].argval if place > 1 else 0
        whole = False
        if not kept[place - 1].argval:  # `import a.b`, not `from a import b`
            stored = place + 1
            while stored < len(kept) and not kept[stored].opname.startswith("STORE_"):
                stored += 1
            whole = not _is_kept_to_itself(kept, stored, loose)
            if "." in name and stored == place + 1:
                yield name.partition(".")[0], 0, whole
                whole = whole or name.rpartition(".")[2] in ends
        yield name, level if isinstance(level, int) else 0, whole


def _asks(kept: list[dis.Instruction], place: int) -> bool:
    if place >= len(kept) or kept[place].opname not in _ATTRIBUTE:
        return False
    return not str(kept[place].argval).startswith("__")


def _is_local_load(instruction: dis.Instruction) -> bool:
    return "LOAD_" in instruction.opname and (
        instruction.opcode in dis.haslocal or instruction.opcode in dis.hasfree
    )


def _is_kept_to_itself(kept: list[dis.Instruction], place: int, loose: set[str]) -> bool:
    """Whether the variable stored at `place` is only asked for attributes."""
    if place >= len(kept) or kept[place].opname not in ("STORE_FAST", "STORE_NAME"):
        return False
    return kept[place].argval not in loose


def _kept(code: CodeType) -> list[dis.Instruction]:
    kept: list[dis.Instruction] = []
    for instruction in dis.get_instructions(code):
        if instruction.opname in _IDLE:
            continue
        if instruction.opname == "STORE_NAME" and instruction.argval in _FOR_READERS and kept:
            kept.pop()  # what it would have stored
            continue
        kept.append(instruction)
    return kept


def _jump_targets(code: CodeType, kept: list[dis.Instruction]) -> dict[int, int]:
    # From every offset to the next instruction that is kept: a jump may lead to one that is not.
    places = {instruction.offset: place for place, instruction in enumerate(kept)}
    targets: dict[int, int] = {}
    following = len(kept)
    for instruction in reversed(list(dis.get_instructions(code))):
        following = places.get(instruction.offset, following)
        targets[instruction.offset] = following
    return targets
