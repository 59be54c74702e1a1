"""More bases that are code, in pairs as in `tests.bases.odd_models`: derived classes, order, names made at run time."""

# ruff: noqa: E501 - modules as texts: a break in one is a line of it
from __future__ import annotations

_LAYER = """
class Own(layers.Layer):
    {inside}
    def call(self, x):
        return x * {factor}
def base():
    own = Own()
    {after}
    return on(own)
"""

_K = "{{2.0|3.0}}"


def _own(factor: str, before: str = "", inside: str = "pass", after: str = "pass") -> str:
    return before + _LAYER.format(factor=factor, inside=inside, after=after)


def _derived(base: str, made: str) -> str:
    """A class derived from `base` with a method that differs."""
    return _own("T.f()", f"class D({base}):\n    def f(self):\n        return {_K}\nT = D({made})")


_MODULE = "M = types.ModuleType('mine')\nM.K = {{2.0|3.0}}\n"
_INNER = "P, I = types.ModuleType('mine'), types.ModuleType('mine.inner')\nP.inner, I.K = I, {{2.0|3.0}}\n"
_IMPORTED = "import sys\nM = types.ModuleType('odd_names_held')\nM.K = {{2.0|3.0}}\nsys.modules['odd_names_held'] = M\n"

DIFFERENT = {
    **{
        f"method of a class derived from {base}": _derived(base, made)
        for base, made in {
            "int": "1",
            "float": "1.0",
            "complex": "1j",
            "str": "'a'",
            "bytes": "b'a'",
            "list": "[1]",
            "tuple": "(1,)",
            "dict": "{'a': 1}",
            "set": "[1]",
            "frozenset": "[1]",
        }.items()
    },
    "attribute of a number": _own("T.k", f"class D(int):\n    pass\nT = D(1)\nT.k = {_K}"),
    "attribute of a list": _own("T.k", f"class D(list):\n    pass\nT = D([1])\nT.k = {_K}"),
    "slot of a list": _own("T.k", f"class D(list):\n    __slots__ = ('k',)\nT = D()\nT.k = {_K}"),
    "content of a derived list": _own("T[0]", f"class D(list):\n    pass\nT = D([{_K}])"),
    "content of a derived number": _own("T", f"class D(float):\n    pass\nT = D({_K})"),
    "what is missing in a dictionary": _own(
        "T['z']", f"class D(dict):\n    def __missing__(self, key):\n        return {_K}\nT = D(a=1)"
    ),
    "dictionary whose attributes are its keys": _own(
        "T.a",
        f"class D(dict):\n    def __getattr__(self, key):\n        return self[key] * {_K}\nT = D(a=1.0)",
    ),
    "default of a dictionary": _own(
        "T['z']", f"import collections\nT = collections.defaultdict(lambda: {_K}, a=1)"
    ),
    "method of a named tuple": _own(
        "T.f()",
        f"import typing\nclass D(typing.NamedTuple):\n    a: float = 1.0\n    def f(self):\n        return {_K}\nT = D()",
    ),
    "fields of a named tuple": _own(
        "T.a", "import collections\nT = collections.namedtuple('T', {{'a b'|'b a'}})(2.0, 3.0)"
    ),
    "method of an enumeration of numbers": _own(
        "T.f()",
        f"import enum\nclass E(enum.IntEnum):\n    A = 1\n    def f(self):\n        return {_K}\nT = E.A",
    ),
    "method of an enumeration of texts": _own(
        "T.f()",
        f"import enum\nclass E(enum.StrEnum):\n    A = 'a'\n    def f(self):\n        return {_K}\nT = E.A",
    ),
    "method of an array's class": _own(
        "T.f()",
        f"class D(np.ndarray):\n    def f(self):\n        return {_K}\nT = np.ones(2).view(D)",
    ),
    "object that says it is a traced function": _own(
        "T.f()", f"class D:\n    python_function = None\n    def f(self):\n        return {_K}\nT = D()"
    ),
    "order of a dictionary": _own("list(T.values())[0]", "T = { {{'m': 2.0, 'n': 3.0|'n': 3.0, 'm': 2.0}} }"),
    "order of a dictionary in an attribute": _own(
        "list(self.t.values())[0]", after="own.t = { {{'m': 2.0, 'n': 3.0|'n': 3.0, 'm': 2.0}} }"
    ),
    "order of an ordered dictionary": _own(
        "list(T.values())[0]",
        "import collections\nT = collections.OrderedDict(m=2.0, n=3.0)\nT.move_to_end({{'n'|'m'}})",
    ),
    "tuple or list": _own("(2.0 if isinstance(T, tuple) else 3.0)", "T = {{(1, 2)|[1, 2]}}"),
    "module given to a function": _own("h(M)", _MODULE + "def h(m):\n    return m.K"),
    "module inside one, given to a function": _own("h(P.inner)", _INNER + "def h(m):\n    return m.K"),
    "module asked by an attrgetter": _own("h(M)", _MODULE + "import operator\nh = operator.attrgetter('K')"),
    "module asked by getattr": _own("getattr(M, 'K')", _MODULE),
    "vars of a module": _own("vars(M)['K']", _MODULE),
    "dictionary of a module": _own("M.__dict__['K']", _MODULE),
    "dunder of a module": _own("M.__k__", f"M = types.ModuleType('mine')\nM.__k__ = {_K}"),
    "what a module makes when asked": _own(
        "M.K", f"M = types.ModuleType('mine')\nM.t = {_K}\nM.__getattr__ = lambda name: M.t"
    ),
    "module under a local name, given away": _own(
        "f()", _IMPORTED + "def f():\n    import odd_names_held as m\n    return getattr(m, 'K')"
    ),
    "module imported by a function of importlib": _own(
        "importlib.import_module('odd_names_held').K", "import importlib\n" + _IMPORTED
    ),
    "module imported by __import__": _own("__import__('odd_names_held').K", _IMPORTED),
    "module from sys.modules": _own("sys.modules['odd_names_held'].K", _IMPORTED),
    "name of an argument in a call": _own("f({{a|b}}=2.0)", "def f(a=1.0, b=3.0):\n    return a * b * b"),
    "globals": _own("globals()['K']", f"K = {_K}"),
    "eval": _own("eval('K')", f"K = {_K}"),
    "private attribute of a function": _own("f._k", f"def f():\n    pass\nf._k = {_K}"),
    "dunder attribute of a class": _own("self.__k__", inside=f"__k__ = {_K}"),
    "metaclass": _own("T.k", f"class Of(type):\n    k = {_K}\nclass T(metaclass=Of):\n    pass"),
    "constraint of the user's": _own(
        "self.k_constraint(1.0)", after=f"own.k_constraint = lambda w: w * {_K}"
    ),
    "number called an initializer": _own("self.k_initializer", after=f"own.k_initializer = {_K}"),
    "regular expression": _own("float(T.pattern)", "import re\nT = re.compile('{{2|3}}')"),
    "function in a vectorize": _own("float(T(1.0))", f"T = np.vectorize(lambda x: x * {_K})"),
    "mask of an array": _own("float(T.sum())", "T = np.ma.array([2.0, 3.0], mask=[{{0, 1|1, 0}}])"),
    "fields of an array": _own(
        "float(T['a'][0])", "T = np.array([(2.0, 3.0)], [(k, 'f8') for k in {{'ab'|'ba'}}])"
    ),
    "class derived from property": _own(
        "T().k",
        f"class P(property):\n    def __get__(self, *_):\n        return {_K}\nclass T:\n    k = P()",
    ),
    "attribute of a partial": _own("T.k", f"T = functools.partial(float)\nT.k = {_K}"),
    "class derived from partial": _own(
        "T.f()", f"class P(functools.partial):\n    def f(self):\n        return {_K}\nT = P(float)"
    ),
}

EQUAL = {
    "name of a derived class": _own(
        "T.f()", "class {{D|E}}(list):\n    def f(self):\n        return 2.0\nT = {{D|E}}([1])"
    ),
    "unused name of a module that is asked": _own("M.K", "M = types.ModuleType('mine')\nM.K, M.J = 2.0, {{4.0|5.0}}"),
    "unused name of a module imported inside": _own(
        "f()",
        _IMPORTED.replace("{{2.0|3.0}}", "2.0") + "M.J = {{4.0|5.0}}\ndef f():\n    import odd_names_held as m\n    return m.K",
    ),
    "order of attributes": _own("self.a * self.b", after="own.{{a, own.b = 2.0, 3.0|b, own.a = 3.0, 2.0}}"),
    "order of a stock layer's arguments": (
        "def f(x, a, b):\n    return x * a + b\n"
        "def base():\n    return on(layers.Lambda(f, arguments={ {{'a': 2.0, 'b': 3.0|'b': 3.0, 'a': 2.0}} }))"
    ),
    "stock initializer under a layer of the user's": _own(
        "2.0", after="own.k_initializer = keras.initializers.{{Zeros|Ones}}()"
    ),
    "what pickling leaves in a class": _own(
        "T.k", "class D:\n    k = 2.0\nT = D()\n{{pass|T.__reduce_ex__(4)}}"
    ),
    "docstring beside a module's name": _own(
        "f()", "import sys\ndef f():\n    {{'A.'|'Another.'}}\n    return 2.0 * ('os' in sys.modules)"
    ),
}  # fmt: skip
