"""Which precision a machine computes in: a table, and what is remembered by."""

from __future__ import annotations

from pathlib import Path

import pytest

from bottleneck.bases import precision
from bottleneck.bases.digest_cache import recall_digests, remember_digests
from bottleneck.errors import UsageError
from bottleneck.schema import BaseRequest, Cache
from tests.bases.test_digest_cache import SPEC

MODERN, OLD = "avx avx2 fma avx512f avx512_bf16", "avx avx2 fma"


@pytest.mark.parametrize(
    ("extensions", "capability", "auto"),
    [
        (MODERN, None, "bfloat16"),
        ("avx2 amx_bf16", None, "bfloat16"),
        (OLD, None, "float32"),
        ("unknown", None, "float32"),
        (OLD, (7, 0), "float16"),
        (OLD, (9, 0), "float16"),
        (MODERN, (6, 1), "float32"),
        (MODERN, (0, 0), "float32"),
    ],
)
def test_auto_is_what_the_machine_has_hardware_for(
    extensions: str, capability: tuple[int, int] | None, auto: str
) -> None:
    assert precision.resolve_precision("auto", extensions, capability) == auto
    assert precision.resolve_precision("float32", extensions, capability) == "float32"
    for asked in ("bfloat16", "float16"):
        if asked == auto:
            assert precision.resolve_precision(asked, extensions, capability) == asked
        else:
            with pytest.raises(UsageError, match="or auto"):
                precision.resolve_precision(asked, extensions, capability)


def test_float32_asks_no_one() -> None:
    assert precision.here("float32") == "float32"


def test_what_auto_was_is_remembered_for_this_machine_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, request = Cache(tmp_path), BaseRequest(base="vgg16", precision="auto")
    remember_digests(request, SPEC, cache)
    assert recall_digests(request, cache) == SPEC
    assert recall_digests(request.model_copy(update={"precision": "float32"}), cache) is None
    monkeypatch.setattr(precision, "isa", lambda: "avx of another machine")
    assert recall_digests(request, cache) is None
    monkeypatch.undo()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert recall_digests(request, cache) is None
