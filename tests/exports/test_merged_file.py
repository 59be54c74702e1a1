"""Model, certificate and pixel contract as one set: which contract is whose, and what goes with it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from bottleneck.errors import BaseError, UsageError
from bottleneck.exports.merged_file import load_again, name_set
from bottleneck.schema import Certificate
from bottleneck.system.staging import room_beside

PROOF = Certificate(verdict="certified", tolerance=1e-4, recipe="0" * 64, head="h", forms=(), twins=())


def deliver(target: Path, decode: str) -> Path:
    """The pixel contract of a model that is merged to `target`; its certificate names both files."""
    with room_beside(target) as room:
        (room / target.name).write_text(f"model that reads {decode}")
        proof, contract, certificate = name_set(room, target, PROOF, decode)
    assert contract.read_text() == decode
    found = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (target, contract)}
    assert json.loads(proof.read_text())["files"] == found == certificate.files
    return contract


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_model_that_is_merged_again_with_other_pixels_takes_its_contract_with_it(tmp_path: Path) -> None:
    """An old `decode.py` beside a new model of another resize: right shapes, wrong pixels."""
    for decode in ("stretch", "crop"):
        assert deliver(tmp_path / "model.keras", decode).name == "decode.py"
        assert names(tmp_path) == ["decode.py", "model.keras", "model.parity.json"]


def test_another_models_contract_stays(tmp_path: Path) -> None:
    deliver(tmp_path / "one.keras", "stretch")
    assert deliver(tmp_path / "two.keras", "crop").name == "two_decode.py"
    assert deliver(tmp_path / "three.keras", "stretch").name == "decode.py"
    # Now two models need it, and neither may change it.
    assert deliver(tmp_path / "one.keras", "pad").name == "one_decode.py"
    assert (tmp_path / "decode.py").read_text() == "stretch"
    # Alone again with the common one, a model gives up its own.
    assert deliver(tmp_path / "one.keras", "stretch").name == "decode.py"
    assert not (tmp_path / "one_decode.py").exists()


@pytest.mark.parametrize("files", [{"old.keras": "0" * 64}, None])
def test_a_contract_that_an_earlier_versions_model_may_need_stays(
    tmp_path: Path, files: dict[str, str] | None
) -> None:
    deliver(tmp_path / "one.keras", "stretch")
    text = PROOF.model_copy(update={"files": files}).model_dump_json() if files else "of another tool"
    (tmp_path / "old.parity.json").write_text(text)
    assert deliver(tmp_path / "one.keras", "crop").name == "one_decode.py"
    assert (tmp_path / "decode.py").read_text() == "stretch"


def test_a_users_own_file_of_that_name_stays(tmp_path: Path) -> None:
    (tmp_path / "decode.py").write_text("mine")
    assert deliver(tmp_path / "one.keras", "stretch").name == "one_decode.py"
    assert deliver(tmp_path / "one.keras", "crop").name == "one_decode.py"
    assert (tmp_path / "decode.py").read_text() == "mine"


def test_a_users_own_file_of_the_models_other_name_stays_too(tmp_path: Path) -> None:
    deliver(tmp_path / "one.keras", "stretch")
    (tmp_path / "two_decode.py").write_text("mine")
    before = names(tmp_path)
    with pytest.raises(UsageError, match=r"two_decode\.py and decode\.py beside it are files of others"):
        deliver(tmp_path / "two.keras", "crop")
    assert names(tmp_path) == before and (tmp_path / "two_decode.py").read_text() == "mine"
    assert deliver(tmp_path / "two.keras", "stretch").name == "decode.py"
    # Nor what became of the contract since it was written.
    assert deliver(tmp_path / "three.keras", "crop").name == "three_decode.py"
    (tmp_path / "three_decode.py").write_text("crop, edited")
    with pytest.raises(UsageError, match="three_decode"):
        deliver(tmp_path / "three.keras", "pad")
    (tmp_path / "three_decode.py").unlink()
    assert deliver(tmp_path / "three.keras", "pad").name == "three_decode.py"


def test_what_an_earlier_version_wrote_for_this_model_is_replaced(tmp_path: Path) -> None:
    """Its certificate names no contract: the file of that name is taken for it."""
    (tmp_path / "decode.py").write_text("mine")
    (tmp_path / "old_decode.py").write_text("stretch")
    old = PROOF.model_copy(update={"format": 3, "files": {"old.keras": "0" * 64}})
    (tmp_path / "old.parity.json").write_text(old.model_dump_json())
    assert deliver(tmp_path / "old.keras", "crop").name == "old_decode.py"


@pytest.mark.keras
def test_what_the_machine_refuses_is_no_fault_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded(error: Exception) -> None:
        def fail(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr("keras.saving.load_model", fail)
        load_again(tmp_path / "model.keras")

    full = "No space left on device"
    with pytest.raises(OSError, match=f"{full}: '/tmp/of-keras'"):
        loaded(OSError(28, full, "/tmp/of-keras"))
    with pytest.raises(OSError, match=f"{full}: '{tmp_path}/model.keras'"):
        loaded(OSError(28, full))
    with pytest.raises(MemoryError):
        loaded(MemoryError())
    with pytest.raises(BaseError, match="Keras cannot load it again: no such layer; nothing was kept"):
        loaded(ValueError("no such layer"))
