"""A reader's text, and whether this machine has what it imports."""

from __future__ import annotations

from importlib import resources, util

from bottleneck.contracts import Reader
from bottleneck.errors import ExportError

__all__ = ["Reader", "reader_text", "require_libraries"]


def reader_text(reader: Reader) -> str:
    """The file of ``exports/readers/``, as a person may copy it.

    Examples
    --------
    >>> "def open_model(path" in reader_text(Reader("keras_file"))
    True
    """
    folder = resources.files(__package__) / "readers"
    return (folder / f"{reader.name}.py").read_text("utf-8")


def require_libraries(reader: Reader, kind: str) -> None:
    """Raise `ExportError` unless the libraries of this `kind` are installed; imports none of them.

    Examples
    --------
    >>> require_libraries(Reader("keras_file"), "keras")
    >>> require_libraries(Reader("onnx_file", ("no_such_module",), "onnx"), "onnx")
    Traceback (most recent call last):
    ...
    bottleneck.errors.ExportError: onnx needs no_such_module, which is not installed here:
    pip install 'bottleneck-features[onnx]', or leave this kind out
    """
    missing = [name for name in reader.libraries if util.find_spec(name) is None]
    if missing:
        which = "which is" if len(missing) == 1 else "which are"
        raise ExportError(
            f"{kind} needs {' and '.join(missing)}, {which} not installed here: "
            f"pip install 'bottleneck-features[{reader.extra}]', or leave this kind out"
        )
