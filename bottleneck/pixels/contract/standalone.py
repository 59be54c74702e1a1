"""Write the pixel contract as one file, `decode.py`, beside a model."""

from __future__ import annotations

import ast
from importlib import resources
from typing import NamedTuple

#: The files of the contract, the one that uses the others last.
_PARTS = ("fields.py", "formats.py", "geometry.py", "decode.py")


def standalone(height: int, width: int, resize: str = "stretch") -> str:
    """Return the text of a file whose ``decode`` needs TensorFlow only.

    Parameters
    ----------
    height, width : int
        Extent of the result.
    resize : {"stretch", "crop", "pad"}

    Returns
    -------
    str
        For ``decode.py``: ``from decode import decode; decode(open(path, "rb").read())`` gives (height, width, 3)
        float32 in 0..255.

    Raises
    ------
    ValueError
        For an extent below 1 or an unknown resize.

    Examples
    --------
    >>> standalone(224, 224).splitlines()[-1]
    "decode = decoder(224, 224, 'stretch')"
    """
    if min(height, width) < 1 or resize not in ("stretch", "crop", "pad"):
        raise ValueError(f"no such size or resize: {height} x {width}, {resize!r}")
    parts = [_part(name) for name in _PARTS]
    contract = parts[-1]
    version = contract.body.partition("CONTRACT = ")[2].partition("\n")[0]
    header = f'''"""Pixels as the model beside this file was trained on them.

Pixel contract {version}, height {height}, width {width}, resize {resize!r}.
Made by bottleneck-features; needs TensorFlow and nothing else.

``decode`` takes the bytes of one image file and gives ({height}, {width}, 3) float32 in 0..255, which is what the
model takes (its preprocessing is inside it):

    from decode import decode
    pixels = decode(open("image.jpg", "rb").read())
    model(pixels[None])

What follows is a copy of the code that made the model's features.

'''
    imports = {line for part in parts for line in part.imports}
    standard = sorted(line for line in imports if "tensorflow" not in line)
    bodies = [f"\n# {part.document.splitlines()[0]}\n\n{part.body}" for part in parts[:-1]]
    whole = [
        f'{header}{contract.document}"""\n',
        "from __future__ import annotations\n",
        "\n".join([*standard, "", "import tensorflow as tf"]),
        *bodies,
        f"\n{contract.body}",
        f"\ndecode = decoder({height}, {width}, {resize!r})\n",
    ]
    return "\n".join(whole)


class _Part(NamedTuple):
    """One of the contract's files, taken apart."""

    document: str
    imports: list[str]  # from outside the package
    body: str


def _part(name: str) -> _Part:
    # The source is read and not imported: writing this file must not cost an import of TensorFlow.
    source = resources.files(__package__).joinpath(name).read_text("utf-8")
    module = ast.parse(source)
    imports = [node for node in module.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    outside = [
        ast.unparse(node)
        for node in imports
        if isinstance(node, ast.Import) or not str(node.module).startswith(("bottleneck.", "__future__"))
    ]
    body = "\n".join(source.splitlines()[imports[-1].end_lineno :]).strip("\n")
    return _Part(ast.get_docstring(module, clean=False) or "", outside, body + "\n")
