"""The pixel contract as one file for a reader's own code: `decode.py` beside a merged model."""

from __future__ import annotations

import ast
from importlib import resources


def standalone(height: int, width: int, resize: str = "stretch") -> str:
    """Text of a Python file that needs TensorFlow only and whose ``decode`` is the pixel contract at one size.

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
    # The source is read and not imported: writing this file must not cost an import of TensorFlow.
    source = resources.files(__package__).joinpath("decode.py").read_text("utf-8")
    module = ast.parse(source)
    document = module.body[0]
    contract = next(
        ast.unparse(node.value)
        for node in module.body
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["CONTRACT"]
    )
    if min(height, width) < 1 or resize not in ("stretch", "crop", "pad"):
        raise ValueError(f"no such size or resize: {height} x {width}, {resize!r}")
    body = "\n".join(source.splitlines()[document.end_lineno :])
    header = f'''"""Pixels as the model beside this file was trained on them.

Pixel contract {contract}, height {height}, width {width}, resize {resize!r}.
Made by bottleneck-features; needs TensorFlow and nothing else.

``decode`` takes the bytes of one image file and gives ({height}, {width}, 3) float32 in 0..255, which is what the
model takes (its preprocessing is inside it):

    from decode import decode
    pixels = decode(open("image.jpg", "rb").read())
    model(pixels[None])

What follows is a copy of the code that made the model's features.

'''
    text = ast.get_docstring(module, clean=False) or ""
    return f'{header}{text}"""\n{body}\n\ndecode = decoder({height}, {width}, {resize!r})\n'
