"""Bases that are code, in pairs: `DIFFERENT` compute other functions where no configuration says so, `EQUAL` the same.

Each is the text of a module with a function `base`; ``{{this|that}}`` is where the two of a pair differ.
"""

# ruff: noqa: E501 - modules as texts: a break in one is a line of it
from __future__ import annotations

import itertools
import re
import sys
import types
from typing import Any

_BEFORE = """
import dataclasses, functools, keras, numpy as np, tensorflow as tf, types
from keras import layers, ops
def on(*parts):
    x = image = keras.Input((8, 8, 3))
    for part in parts:
        x = part(x)
    return keras.Model(image, x)
"""

_LAYER = """
class Own(layers.Layer):
    def call(self, x):
        return {body}
def base():
    return on(Own())
"""


def _own(body: str, before: str = "") -> str:
    return before + _LAYER.format(body=body)


def _function(body: str, before: str = "") -> str:
    return f"{before}\ndef f(x):\n    return {body}\ndef base():\n    return on(layers.Activation(f))\n"


_MODULE = "M = types.ModuleType('mine')\nM.K = {{2.0|3.0}}\n"

_HOLDS = """
class Own(layers.Layer):
    def __init__(self, held):
        super().__init__()
        self.held = held
    def call(self, x):
        return x * {factor}
def base():
    return on(Own({held}))
"""

_SHAPED = "\n    def compute_output_shape(self, shape):\n        return shape\n"

DIFFERENT = {
    "function as activation": _function("ops.{{relu|tanh}}(x)"),
    "activation of a convolution": (
        "def f(x):\n    return ops.{{relu|tanh}}(x)\ndef base():\n    return on(layers.Conv2D(2, 3, activation=f))"
    ),
    "lambda": "def base():\n    return on(layers.Activation(lambda x: x * {{2.0|3.0}}))",
    "closure": (
        "def times(k):\n    def f(x):\n        return x * k\n    return f\n"
        "def base():\n    return on(layers.Activation(times({{2.0|3.0}})))"
    ),
    "callable object": (
        "class Times:\n    def __init__(self, k):\n        self.k = k\n    def __call__(self, x):\n        return x * self.k\n"
        "def base():\n    return on(layers.Activation(Times({{2.0|3.0}})))"
    ),
    "object with slots": (
        "class Times:\n    __slots__ = ('k',)\n    def __call__(self, x):\n        return x * self.k\n"
        "def base():\n    t = Times()\n    t.k = {{2.0|3.0}}\n    return on(layers.Activation(t))"
    ),
    "object with private slots": (
        "class Times:\n    __slots__ = ('__k',)\n    def __init__(self, k):\n        self.__k = k\n"
        "    def __call__(self, x):\n        return x * self.__k\n"
        "def base():\n    return on(layers.Activation(Times({{2.0|3.0}})))"
    ),
    "call that is a partial method": (
        "def run(self, x, k):\n    return x * k\n"
        "class Times:\n    __call__ = functools.partialmethod(run, k={{2.0|3.0}})\n"
        "def base():\n    return on(layers.Activation(Times()))"
    ),
    "module in a closure": (
        _MODULE + "def base():\n    mine = M\n    return on(layers.Activation(lambda x: x * mine.K))"
    ),
    "module in an attribute": _MODULE + _HOLDS.format(held="M", factor="self.held.K"),
    "module in a list": _MODULE + _HOLDS.format(held="[M]", factor="self.held[0].K"),
    "module asked for another name while it is open": _own(
        "M.f(x)", _MODULE + "exec('def f(x):\\n    return x * me.K', vars(M))\nM.me = M"
    ),
    "module in a module, asked twice": _own(
        "f(x) * M.inner.K",
        "M, I = types.ModuleType('mine'), types.ModuleType('mine.inner')\nM.inner, I.J, I.K = I, 5.0, {{2.0|3.0}}\n"
        "def f(x):\n    return x * M.inner.J",
    ),
    "items of an object of Python's": _own(
        "x * D[0]", "import collections\nD = collections.deque([{{2.0|3.0}}])"
    ),
    "read-only dictionary": _own("x * T['k']", "T = types.MappingProxyType({'k': {{2.0|3.0}} })"),
    "partial": (
        "def f(x, k):\n    return x * k\n"
        "def base():\n    return on(layers.Activation(functools.partial(f, k={{2.0|3.0}})))"
    ),
    "bound method": (
        "class Times:\n    def __init__(self, k):\n        self.k = k\n    def run(self, x):\n        return x * self.k\n"
        "def base():\n    return on(layers.Activation(Times({{2.0|3.0}}).run))"
    ),
    "mapped lambda": "def base():\n    return on(lambda x: ops.map(lambda r: r * {{2.0|3.0}}, x))",
    "mapped function": (
        "def f(r):\n    return ops.{{relu|tanh}}(r)\ndef base():\n    return on(lambda x: ops.vectorized_map(f, x))"
    ),
    "module global": _own("x * FACTOR", "FACTOR = {{2.0|3.0}}"),
    "module global, two calls away": _own(
        "f(x)", "FACTOR = {{2.0|3.0}}\ndef g(x):\n    return x * FACTOR\ndef f(x):\n    return g(x)"
    ),
    "default argument": _own("f(x)", "def f(x, k={{2.0|3.0}}):\n    return x * k"),
    "keyword default": _own("f(x)", "def f(x, *, k={{2.0|3.0}}):\n    return x * k"),
    "attribute of a function": _own("x * f.k", "def f():\n    pass\nf.k = {{2.0|3.0}}"),
    "class attribute": _own("x * T.k", "class T:\n    k = {{2.0|3.0}}"),
    "static method": _own(
        "T.f(x)", "class T:\n    @staticmethod\n    def f(x):\n        return x * {{2.0|3.0}}"
    ),
    "property": _own("x * T().k", "class T:\n    @property\n    def k(self):\n        return {{2.0|3.0}}"),
    "inherited method": (
        "class Above(layers.Layer):\n    def call(self, x):\n        return x * {{2.0|3.0}}\n"
        "class Own(Above):\n    pass\ndef base():\n    return on(Own())"
    ),
    "decorator": (
        "def times(k):\n    def wrap(f):\n        @functools.wraps(f)\n        def g(x):\n            return k * f(x)\n"
        "        return g\n    return wrap\n@times({{2.0|3.0}})\ndef f(x):\n    return ops.relu(x)\n"
        "def base():\n    return on(layers.Activation(f))"
    ),
    "decorator under a name of Keras'": (
        "@functools.wraps(keras.activations.relu)\ndef f(x):\n    return x * {{2.0|3.0}}\n"
        "def base():\n    return on(layers.Activation(f))"
    ),
    "traced function": (
        "@tf.function\ndef f(x):\n    return x * {{2.0|3.0}}\n"
        "class Own(layers.Layer):\n    def call(self, x):\n        return f(x)\n"
        + _SHAPED
        + "def base():\n    return on(Own())"
    ),
    "attribute outside get_config": (
        "class Own(layers.Layer):\n    k = 1.0\n    def call(self, x):\n        return x * self.k\n"
        "    def get_config(self):\n        return {}\n"
        "def base():\n    own = Own()\n    own.k = {{2.0|3.0}}\n    return on(own)"
    ),
    "array": (
        "class Own(layers.Layer):\n    def __init__(self):\n        super().__init__()\n"
        "        self.k = np.array([1.0, 2.0, {{3.0|4.0}}], 'float32')\n    def call(self, x):\n        return x * self.k\n"
        "def base():\n    return on(Own())"
    ),
    "seed that decides numbers": (
        "class Own(layers.Layer):\n    def __init__(self, seed, **more):\n        super().__init__(**more)\n"
        "        self.seed = seed\n    def call(self, x):\n        return x * self.seed\n"
        "    def get_config(self):\n        return {**super().get_config(), 'seed': self.seed}\n"
        "def base():\n    return on(Own({{2|3}}))"
    ),
    "Identity of the user's, wrapped": (
        "class Identity(layers.Layer):\n    def __init__(self, k, **more):\n        super().__init__(**more)\n"
        "        self.k = k\n    def call(self, x):\n        return x * self.k\n"
        + _SHAPED
        + "    def get_config(self):\n        return {**super().get_config(), 'k': self.k}\n"
        "def base():\n    return on(layers.TimeDistributed(Identity({{2.0|3.0}})))"
    ),
    "class inside a subclassed model": (
        "class Inner(layers.Layer):\n    def call(self, x):\n        return ops.{{relu|tanh}}(x)\n"
        "class Net(keras.Model):\n    def __init__(self):\n        super().__init__()\n        self.inner = Inner()\n"
        "    def call(self, x):\n        return self.inner(x)\ndef base():\n    return on(Net())"
    ),
    "order of layers in a list": (
        "class Own(layers.Layer):\n    def __init__(self, parts):\n        super().__init__()\n        self.parts = parts\n"
        "    def call(self, x):\n        for part in self.parts:\n            x = part(x)\n        return x\n"
        "def base():\n    a, b = layers.ReLU(), layers.Rescaling(-1.0)\n    return on(Own([{{a, b|b, a}}]))"
    ),
    "which weight is which": (
        "class Own(layers.Layer):\n    def build(self, shape):\n        first = self.add_weight(shape=(3,))\n"
        "        other = self.add_weight(shape=(3,))\n        self.a, self.b = pair(first, other)\n"
        "    def call(self, x):\n        return x * self.a + self.b\n"
        "class Pairs:\n    turned = {{False|True}}\n"
        "def pair(first, other):\n    return (other, first) if Pairs.turned else (first, other)\n"
        "def base():\n    return on(Own())"
    ),
    "cell of a recurrent layer": (
        "class Cell(layers.Layer):\n    state_size = 3\n    def call(self, x, states):\n"
        "        y = ops.{{relu|tanh}}(x + states[0])\n        return y, [y]\n"
        "def base():\n    return on(layers.Reshape((64, 3)), layers.RNN(Cell()))"
    ),
    "call of one stock layer replaced": (
        "def base():\n    one = layers.Identity()\n    one.call = lambda x: x * {{2.0|3.0}}\n    return on(one)"
    ),
    "graph with a call of its own": (
        "class Net(keras.Model):\n    def call(self, x):\n        return super().call(x) * {{2.0|3.0}}\n"
        "def base():\n    i = keras.Input((8, 8, 3))\n    return on(Net(i, layers.ReLU()(i)))"
    ),
    "constant inside a nested function": _own(
        "f(x)", "def f(x):\n    def g(y):\n        return [y * k for k in ({{2.0|3.0}},)][0]\n    return g(x)"
    ),
    "dataclass": _own(
        "x * T.k", "@dataclasses.dataclass\nclass Settings:\n    k: float\nT = Settings({{2.0|3.0}})"
    ),
    "table of functions": _own("TABLE['f'](x)", "TABLE = {'f': lambda x: x * {{2.0|3.0}} }"),
    "branch taken": _function("ops.cond(ops.sum(x) > {{0.0|1e9}}, lambda: x, lambda: -x)"),
    "stock network held by a layer": (
        "class Own(layers.Layer):\n    def __init__(self):\n        super().__init__()\n"
        "        i = keras.Input((8, 8, 3))\n        self.net = keras.Model(i, layers.{{ReLU|Softmax}}()(i))\n"
        "    def call(self, x):\n        return self.net(x)\ndef base():\n    return on(Own())"
    ),
    "class that says it is Keras'": _own("x * {{2.0|3.0}}").replace(
        "    def call", "    __module__ = 'keras.layers'\n    def call"
    ),
}

_TIMES = "def f(x):\n    return x * 2.0\n"


def _kept(text: str) -> str:
    """A layer of the user's that was given a stock one, so that its own code is one and the same."""
    return (
        "class Own(layers.Layer):\n    def __init__(self, part):\n        super().__init__()\n        self.part = part\n"
        f"    def call(self, x):\n        return ops.relu(self.part(x))\ndef base():\n    return on(Own({text}))"
    )


EQUAL = {
    "comment": _own("x * 2.0").replace("        return", "{{|        # a word\n}}        return"),
    "blank lines": _own("x * 2.0").replace("class", "{{|\n\n\n}}class"),
    "docstring of a class": _own("x * 2.0").replace("    def call", "    {{|'Doubles.'\n    }}def call"),
    "docstring of a method": _own("x * 2.0").replace("        return", "        {{|'Doubles.'\n        }}return"),
    "docstring of a function": _own("f(x)", "def f(x):\n    {{'A.'|'Another.'}}\n    return x * 2.0"),
    "docstring of a class in a function": _own(
        "f(x)", "def f(x):\n    class T:\n        {{|'A.'\n        }}k = 2.0\n    return x * T.k"
    ),
    "docstring of the module": "{{|'A module.'}}\n" + _own("x * 2.0"),
    "name of a local": _own("f(x)", "def f(x):\n    {{y|z}} = x * 2.0\n    return {{y|z}} + {{y|z}}"),
    "name of a closure's variable": (
        "def times({{k|factor}}):\n    return lambda x: x * {{k|factor}}\ndef base():\n    return on(layers.Activation(times(2.0)))"
    ),
    "name of a global": _own("x * {{FACTOR|TIMES}}", "{{FACTOR|TIMES}} = 2.0"),
    "name of a function": "def {{f|g}}(x):\n    return x * 2.0\ndef base():\n    return on(layers.Activation({{f|g}}))",
    "name of a class": _own("x * 2.0").replace("Own", "{{Own|Mine}}"),
    "name of a layer": _own("x * 2.0").replace("Own())", "Own(name='{{a|b}}'))"),
    "what was built before": _own("x * 2.0").replace("    return on", "    {{pass|Own(); layers.ReLU()}}\n    return on"),
    "lambda or function": (
        "{{f = lambda x: x * 2.0|def f(x):\n    return x * 2.0}}\ndef base():\n    return on(layers.Activation(f))"
    ),
    "order of definitions": _own("f(x)", "{{K = 2.0\ndef f(x):\n    return x * K|def f(x):\n    return x * K\nK = 2.0}}"),
    "order of methods": _own(
        "T().f(x)", "class T:\n    {{a = 1\n    def f(self, x):\n        return x|def f(self, x):\n        return x\n    a = 1}}"
    ),
    "definition moved to another module": _own("f(x)", "{{" + _TIMES + "|from tests.bases.odd_parts import f}}"),
    "module or name": _own("{{P|parts}}.f(x)", "from tests.bases import odd_parts as {{P|parts}}"),
    "lines broken": _own("{{x * 2.0|(\n            x\n            * 2.0\n        )}}"),
    "quotes": _own("x * T['a']", "T = {{{'a': 2.0}|{\"a\": 2.0}}}"),
    "digits": _own("x * {{1000.0|1_000.0}}"),
    "folded constant": _own("x * {{4.0|(2.0 + 2.0)}}"),
    "annotations": _own("f(x)", "def f(x{{|: object}}){{| -> object}}:\n    return x * 2.0"),
    "unused global": _own("x * 2.0", "{{|UNUSED = 5}}"),
    "unused import": _own("x * 2.0", "{{|import json}}"),
    "unused function": _own("x * 2.0", "{{|def unused(x):\n    return x}}"),
    "code that never runs": _own("f(x)", "def f(x):\n    {{|if False:\n        print(x)\n    }}return x * 2.0"),
    "dropout inside": _kept("layers.Dropout({{0.1|0.5}})"),
    "seed of a stock layer inside": _kept("layers.GaussianNoise(0.1, seed={{1|2}})"),
    "generator without a seed": _kept("layers.RandomFlip()"),
    "regularizer inside": _kept("layers.Conv2D(2, 1{{|, kernel_regularizer='l2'}})"),
    "initializer inside": _kept("layers.Conv2D(2, 1{{|, kernel_initializer='he_normal'}})"),
    "momentum inside": _kept("layers.BatchNormalization({{|momentum=0.5}})"),
    "network inside, names of its layers": _kept("keras.Sequential([keras.Input((8, 8, 3)), layers.ReLU(name='{{a|b}}')])"),
    "trainable": _own("x * 2.0").replace("Own())", "Own(trainable={{True|False}}))"),
}  # fmt: skip

_numbers = itertools.count()


def text(source: str, side: int) -> str:
    """One of a pair, 0 or 1, as the text of a module."""
    return _BEFORE + re.sub(r"\{\{(.*?)\|(.*?)\}\}(?!\})", lambda m: m[side + 1], source, flags=re.DOTALL)


def build(source: str, side: int) -> Any:
    """The model of one of a pair, from a module of its own, with weights that are the same each time."""
    from tests.bases.networks import fill

    module = types.ModuleType(f"odd_{next(_numbers)}")
    sys.modules[module.__name__] = module
    try:
        exec(compile(text(source, side), f"/nowhere/{module.__name__}.py", "exec"), vars(module))
        model = fill(module.base())
    finally:
        del sys.modules[module.__name__]
    for layer in model.layers:
        for number, weight in enumerate(layer.weights):
            weight.assign(weight.value + number)  # weights of one shape differ too
    return model
