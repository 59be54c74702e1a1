"""TensorFlow for a process that only extracts: without the libraries that Keras takes along where they are there."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator

#: Of data frames and scikit-learn's estimators, which Keras can be given elsewhere. It does without what it does not
#: find; with these its import takes 2.6 s and 685 MiB, without them 1.6 s and 548.
_OPTIONAL = ("pandas", "scipy", "sklearn")


def import_tensorflow() -> None:
    """Import TensorFlow and Keras, for which pandas, SciPy and scikit-learn are then not installed.

    For a process of our own: whoever imports those three by name has them as ever.

    Examples
    --------
    >>> import_tensorflow()  # doctest: +SKIP
    """
    with _hidden(*(name for name in _OPTIONAL if name not in sys.modules)):
        importlib.import_module("tensorflow")
        importlib.import_module("keras")


@contextlib.contextmanager
def _hidden(*names: str) -> Iterator[None]:
    """None in the place of a module is Python's own way of saying that it cannot be imported."""
    sys.modules.update(dict.fromkeys(names))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
