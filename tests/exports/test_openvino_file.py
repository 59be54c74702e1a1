"""OpenVINO: float32 whatever the processor likes better, and both files of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bottleneck.errors import ExportError
from bottleneck.exports.bare import run_bare
from bottleneck.exports.openvino_file import OpenVinoFile
from tests.exports import tiny_model

pytestmark = pytest.mark.keras


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return OpenVinoFile().write(tiny_model.merged(), tmp_path_factory.mktemp("openvino"), tiny_model.making())


def test_it_is_two_files_with_the_weights_in_float32(path: Path) -> None:
    assert sorted(p.name for p in path.iterdir()) == ["model.bin", "model.xml"]
    parameters = sum(weight.value.shape.num_elements() for weight in tiny_model.merged().trainable_weights)
    assert (path / "model.bin").stat().st_size >= 4 * parameters


@pytest.mark.parametrize("part", ["model.xml", "model.bin"])
def test_one_that_was_cut_off_is_named(path: Path, tmp_path: Path, part: str) -> None:
    broken = tmp_path / "openvino"
    shutil.copytree(path, broken)
    data = (broken / part).read_bytes()
    (broken / part).write_bytes(data[: len(data) // 2])
    with pytest.raises(ExportError, match="openvino does not run in a process without this package"):
        run_bare(OpenVinoFile.reader, broken, pixels=tiny_model.images(1))
