"""Damaged and hostile files of a head are refused."""

from __future__ import annotations

import numpy as np
import pytest

from bottleneck.errors import HeadError
from bottleneck.heads import persistence
from tests.heads.saved_heads import arrays_of, edit, packed, put_arrays, refused, save


@pytest.fixture
def saved(tmp_path):
    return save(tmp_path)


@pytest.mark.fault(51)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a | {"kernel": np.full_like(a["kernel"], np.nan)}, "NaN"),
        (lambda a: a | {"bias": np.full_like(a["bias"], np.inf)}, "NaN or infinite"),
        (lambda a: a | {"bias": a["bias"][:2]}, "expected float32 (3,), got float32 (2,)"),
        (lambda a: a | {"kernel": np.asfortranarray(a["kernel"])}, "Fortran"),
        (lambda a: a | {"bias": a["bias"].astype("f8")}, "float64"),
        (lambda a: a | {"bias": a["bias"].astype(">f4")}, "got >f4"),
        (lambda a: a | {"more": a["bias"]}, "more"),
        (lambda a: {"kernel": a["kernel"]}, "expected the arrays"),
        (lambda a: {"bias": a["bias"], "kernel": a["kernel"]}, "expected the arrays"),
        (lambda a: a | {"kernel": a["kernel"] + 1}, "probe"),
        (lambda a: a | {"kernel": np.full_like(a["kernel"], 3e38)}, "probe"),
    ],
    ids=[
        "nan",
        "inf",
        "shape",
        "fortran",
        "double",
        "big-endian",
        "extra",
        "missing",
        "order",
        "moved",
        "overflow",
    ],
)
def test_wrong_arrays(saved, change, words):
    put_arrays(saved, packed(change(arrays_of(saved))))
    refused(saved, words)


@pytest.mark.fault(51)
def test_every_flipped_or_missing_byte_is_noticed(saved):
    whole = (saved / "head.npz").read_bytes()
    for position in range(0, len(whole), max(1, len(whole) // 60)):
        (saved / "head.npz").write_bytes(
            whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :]
        )
        refused(saved, "sha256")
    (saved / "head.npz").write_bytes(whole[:-1])
    refused(saved, "sha256")
    (saved / "head.npz").write_bytes(whole + b"\0")
    refused(saved, "larger than")
    (saved / "head.npz").unlink()
    refused(saved, "cannot be read")


def test_hostile_zips_end_in_one_kind_of_error(saved):
    """Random damage behind a document that vouches for it: HeadError or, where it hit nothing, the same head."""
    whole = (saved / "head.npz").read_bytes()
    good = persistence.load_head(saved)[0]
    random = np.random.default_rng(0)
    outcomes = set()
    for _ in range(150):
        data = bytearray(whole)
        for position in random.integers(0, len(data), random.integers(1, 4)):
            data[position] = random.integers(0, 256)
        put_arrays(saved, bytes(data))
        try:
            head, _ = persistence.load_head(saved)
            assert np.allclose(head.coef_, good.coef_, rtol=1e-3, atol=1e-3)
            outcomes.add("same")
        except HeadError:
            outcomes.add("refused")
    assert "refused" in outcomes


def nested(depth):
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a head's document"),
        ("[]", "not a head's document"),
        ("null", "not a head's document"),
        ("{}", "spec"),
        ('{"format": 3}', "newer bottleneck"),
        ('{"format": 1, "format": 1}', "twice"),
        ('{"format": NaN}', "NaN"),
        ('{"state": ' + nested(100_000) + "}", "not a head's document"),
        ('{"format": ' + "9" * 5000 + "}", "not a head's document"),
        ("\xff\xfe", "not a head's document"),
    ],
    ids=["empty", "list", "null", "bare", "newer", "twice", "nan", "deep", "digits", "bytes"],
)
def test_documents_that_are_none(saved, text, words):
    (saved / "head.json").write_bytes(text.encode("latin-1"))
    refused(saved, words)


@pytest.mark.fault(50, 51)
@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(stranger=1),
        lambda d: d.pop("probe"),
        lambda d: d.update(probe=d["probe"][:-1]),
        lambda d: d["probe"][0].pop(),
        lambda d: d["probe"][0].__setitem__(0, d["probe"][0][0] + 0.01),
        lambda d: d["probe"][0].__setitem__(0, float("1e999")),
        lambda d: d["state"].update(stranger=1),
        lambda d: d["state"].update(facts={}),
        lambda d: d["state"].update(facts={"n_iter_": "many", "converged_": True}),
        lambda d: d["state"].update(kind="int"),
        lambda d: d["state"].update(classes=["class a"]),
        lambda d: d["state"].update(classes=["class a", "class a", "class b"]),
        lambda d: d["state"].update(feature_shape=[]),
        lambda d: d["state"].update(feature_shape=[-12]),
        lambda d: d["state"].update(feature_shape=[1 << 40]),
        lambda d: d["state"]["settings"].update(C=-1.0),
        lambda d: d["state"]["settings"].update(C="1e999"),
        lambda d: d["state"]["settings"].update(stranger=1),
        lambda d: d["state"]["settings"].update(class_weight={"pairs": 3}),
        lambda d: d["state"]["settings"].update(class_weight={"pairs": [[[], 1.0]]}),
        lambda d: d["spec"]["settings"].update(C=2.0),
        lambda d: d["spec"].update(name="dense"),
        lambda d: d["arrays"].update(stranger={"shape": [1], "dtype": "float32"}),
        lambda d: d["arrays"]["bias"].update(dtype="object"),
        lambda d: d["arrays"]["bias"].update(shape=[4]),
        lambda d: d.update(npz_bytes=1 << 50),
        lambda d: d.update(npz_sha256="no"),
    ],
)
def test_edited_documents(saved, change):
    persistence.load_head(saved)
    edit(saved, lambda d: change(d) and None)
    with pytest.raises(HeadError) as error:
        persistence.load_head(saved)
    assert "head." in str(error.value)
