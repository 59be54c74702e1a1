"""The one file that `merge` lays beside a model: what the package does, without the package."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.pixels.pictures import H, W, decoded, encoded, exif, photo

pytestmark = pytest.mark.keras


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_the_standalone_file_runs_without_the_package(tmp_path: Path, resize: str) -> None:
    from bottleneck.pixels.contract.standalone import standalone

    text = standalone(H, W, resize)
    (tmp_path / "decode.py").write_text(text)
    files = {
        "turned.jpg": encoded(photo(100, 60), "JPEG", exif=b"Exif\0\0" + exif(6)),
        "plain.png": encoded(photo(50, 90), "PNG"),
        "clear.png": encoded(photo(50, 90, channels=4), "PNG"),
        "a.gif": encoded(photo(50, 90), "GIF"),
        "a.bmp": encoded(photo(50, 90), "BMP"),
        "a.webp": encoded(photo(50, 90), "WebP"),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    code = (
        "import sys, json; sys.modules['bottleneck'] = None\n"
        "from decode import decode\n"
        "pixels = [decode(open(name, 'rb').read()).numpy().tolist() for name in sys.argv[1:]]\n"
        "print(json.dumps([pixels, [m for m in sys.modules if m.startswith('bottleneck.')]]))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *files], cwd=tmp_path, capture_output=True, check=True
    )
    pixels, modules = json.loads(done.stdout)
    for found, data in zip(pixels, files.values(), strict=True):
        assert np.array_equal(np.float32(found), decoded(data, resize=resize))
    assert modules == []
    assert f"Pixel contract 1, height {H}, width {W}, resize {resize!r}" in text


def test_the_standalone_file_defines_each_name_once() -> None:
    """Four files become one: what two of them called alike would be the last one's in all of them."""
    from bottleneck.pixels.contract.standalone import standalone

    names: list[str] = []
    for node in ast.parse(standalone(H, W)).body:
        if isinstance(node, ast.FunctionDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            names += [ast.unparse(target) for target in node.targets]
    assert len(names) > 20
    assert len(names) == len(set(names))
