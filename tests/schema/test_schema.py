"""The nouns: frozen, equal by value, to JSON and back; a recipe's fingerprint is for ever."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bottleneck.errors import UsageError
from bottleneck.evaluation.metrics import measure_probabilities
from bottleneck.runs import Figures
from bottleneck.schema import (
    PREPROCESSINGS,
    BaseRequest,
    Certificate,
    Comparison,
    Difference,
    Frozen,
    HeadSpec,
    Pixels,
    Preprocessing,
    Recipe,
    Record,
    RejectedContent,
    Rejection,
    Run,
    SplitPolicy,
    StoreSpec,
    canonical_json,
)

HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
FLOATS = st.floats(-1e6, 1e6)
WORDS = st.text(st.characters(codec="utf-8"), max_size=20)


def preprocessings() -> st.SearchStrategy[Preprocessing]:
    def make(channels: str) -> st.SearchStrategy[Preprocessing]:
        width = st.sampled_from([1] if channels == "grey" else [1, 3])
        values = width.flatmap(lambda n: st.lists(FLOATS, min_size=n, max_size=n).map(tuple))
        return st.builds(Preprocessing, channels=st.just(channels), scale=values, offset=values)

    return st.sampled_from(["rgb", "bgr", "grey"]).flatmap(make)


PIXELS = st.builds(
    Pixels,
    height=st.integers(1, 8192),
    width=st.integers(1, 8192),
    resize=st.sampled_from(["stretch", "crop", "pad"]),
)
RECIPES = st.builds(
    Recipe,
    base_digest=HEX,
    pooling=st.sampled_from(["none", "avg", "max"]),
    pixels=PIXELS,
    preprocessing=preprocessings(),
    precision=st.sampled_from(["float32", "bfloat16", "float16"]),
    dtype=st.sampled_from(["float32", "float16"]),
)
SPECS = st.builds(
    StoreSpec,
    base=WORDS,
    cut=WORDS,
    shape=st.lists(st.integers(1, 4096), min_size=1, max_size=3).map(tuple),
    recipe=RECIPES,
)
REQUESTS = st.builds(
    BaseRequest,
    base=WORDS,
    weights=st.none() | WORDS,
    size=st.none() | st.integers(1, 8192),
    preprocessing=st.none() | preprocessings(),
    batch=st.none() | st.integers(1, 65536),
)
HEADS = st.builds(
    HeadSpec, name=WORDS, settings=st.dictionaries(WORDS, st.integers() | st.booleans() | WORDS, max_size=3)
)
POLICIES = st.builds(SplitPolicy, validation=st.floats(0, 0.99), seed=st.integers(-(2**31), 2**31))
RUNS = st.builds(
    Run,
    **dict.fromkeys(("name", "source", "cache", "created"), WORDS),
    request=REQUESTS,
    spec=SPECS,
    head=HEADS,
    split=POLICIES,
    classes=st.lists(WORDS, max_size=3).map(tuple),
    versions=st.dictionaries(WORDS, WORDS, max_size=2),
)
DIFFERENCES = st.builds(
    Difference, quantity=st.sampled_from(["features", "logits"]), largest=FLOATS, mean=FLOATS, spread=FLOATS
)
COMPARISONS = st.builds(
    Comparison,
    form=WORDS,
    images=WORDS,
    count=st.integers(0, 99),
    differences=st.lists(DIFFERENCES, max_size=2).map(tuple),
    top1=st.floats(0, 1),
    passed=st.booleans(),
)
CERTIFICATES = st.builds(
    Certificate,
    verdict=st.sampled_from(["certified", "different", "no power"]),
    tolerance=FLOATS,
    recipe=HEX,
    head=WORDS,
    forms=st.lists(COMPARISONS, max_size=2).map(tuple),
    twins=st.lists(COMPARISONS, max_size=2).map(tuple),
)
REJECTED = st.builds(RejectedContent, content=HEX, stage=WORDS, reason=WORDS)
RECORDS = st.builds(
    Record,
    id=st.text("0123456789abcdef", min_size=16, max_size=16),
    **dict.fromkeys(("recipe", "file_sha256", "content_sha256", "blocks_root", "canary"), HEX),
    **dict.fromkeys(("rows", "file_bytes", "features_offset", "content_offset"), st.integers(0, 2**32)),
    shape=st.lists(st.integers(1, 99), max_size=3).map(tuple),
    dtype=st.sampled_from(["float32", "float16"]),
    block_rows=st.integers(1, 999),
    rejected=st.lists(REJECTED, max_size=2).map(tuple),
    environment=st.dictionaries(WORDS, WORDS, max_size=2),
)
METRICS = st.lists(st.tuples(st.sampled_from("abx"), st.floats(0, 1)), min_size=1, max_size=9).map(
    lambda rows: measure_probabilities([r[0] for r in rows], _two([r[1] for r in rows]), ("a", "b"))
)
FIGURES = st.builds(
    Figures,
    by_split=st.dictionaries(WORDS, METRICS, max_size=2),
    folds=st.lists(METRICS, max_size=2).map(tuple),
    seconds=FLOATS,
)


def _two(chances: list[float]):  # type: ignore[no-untyped-def]
    import numpy as np

    return np.array([[p, 1 - p] for p in chances])


@pytest.mark.parametrize(
    "values",
    [
        PIXELS,
        RECIPES,
        SPECS,
        REQUESTS,
        HEADS,
        POLICIES,
        RUNS,
        CERTIFICATES,
        RECORDS,
        METRICS,
        FIGURES,
        preprocessings(),
        st.builds(Rejection, content=HEX, path=WORDS, stage=WORDS, reason=WORDS, retry=st.booleans()),
    ],
    ids=[
        *("pixels", "recipe", "spec", "request", "head", "split", "run", "certificate", "record"),
        *("metrics", "figures", "preprocessing", "rejection"),
    ],
)
def test_every_noun_goes_to_json_and_back(values: st.SearchStrategy[Frozen]) -> None:
    @given(values)
    def law(value: Frozen) -> None:
        kind = type(value)
        assert kind.model_validate_json(value.model_dump_json()) == value
        assert kind.model_validate(json.loads(value.canonical())) == value
        assert value.model_copy(deep=True).canonical() == value.canonical()

    law()


def test_the_canonical_form_is_sorted_plain_and_without_nan() -> None:
    assert canonical_json({"b": [1, 2.5, None], "a": "é"}) == b'{"a":"\\u00e9","b":[1,2.5,null]}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": float("nan")})


@given(RECIPES, RECIPES)
def test_fingerprints_are_equal_exactly_when_recipes_are(one: Recipe, other: Recipe) -> None:
    again = Recipe.model_validate_json(one.model_dump_json())
    assert again.fingerprint == one.fingerprint
    assert (one.fingerprint == other.fingerprint) == (one == other)


def test_fingerprints_are_for_ever() -> None:
    """Pinned: should these change, every store there is would be orphaned."""
    plain = Recipe(
        base_digest="0123456789abcdef" * 4,
        pooling="avg",
        pixels=Pixels(height=96, width=96),
        preprocessing=PREPROCESSINGS["caffe"],
        precision="float32",
        dtype="float32",
    )
    assert plain.fingerprint == GOLDEN_PLAIN
    other = plain.model_copy(
        update={"pixels": Pixels(height=224, width=160, resize="pad"), "dtype": "float16", "pooling": "none"}
    )
    assert Recipe.model_validate(other.model_dump()).fingerprint == GOLDEN_OTHER
    assert StoreSpec(base="vgg 16", cut="fc1/x", shape=(7, 7, 512), recipe=plain).folder == (
        f"vgg_16-fc1_x-{GOLDEN_PLAIN[:12]}"
    )


GOLDEN_PLAIN = "5a81e5e4d6a9fe1aac8ba13ebc716e900842201c809448b2dcb4f1ce9b6fccc7"
GOLDEN_OTHER = "6c782e7fd5e344b273e4a150117bb0ca2b363af780739fa9675ed674029d9ac4"


def test_every_field_of_a_recipe_counts() -> None:
    base = {
        "base_digest": "0" * 64,
        "pooling": "avg",
        "pixels": {"height": 8, "width": 8},
        "preprocessing": {},
        "precision": "float32",
        "dtype": "float32",
    }
    changes = [
        {"base_digest": "1" * 64},
        {"pooling": "max"},
        {"pixels": {"height": 9, "width": 8}},
        {"pixels": {"height": 8, "width": 9}},
        {"pixels": {"height": 8, "width": 8, "resize": "crop"}},
        {"preprocessing": {"channels": "bgr"}},
        {"preprocessing": {"scale": [0.5]}},
        {"preprocessing": {"offset": [0.5]}},
        {"precision": "bfloat16"},
        {"dtype": "float16"},
    ]
    seen = {Recipe.model_validate(base | change).fingerprint for change in [{}, *changes]}
    assert len(seen) == 1 + len(changes)
    assert set(Recipe.model_fields) == set(base), "a new field needs a line above, and another format"


@pytest.mark.parametrize(
    ("shape", "dtype", "rows"),
    [
        ((512,), "float32", 1024),
        ((7, 7, 2048), "float32", 334),
        ((7, 7, 2048), "float16", 668),
        ((10**9,), "float32", 1),
    ],
)
def test_a_task_is_1024_rows_or_128_mib(shape: tuple[int, ...], dtype: str, rows: int) -> None:
    recipe = Recipe(
        base_digest="0" * 64,
        pooling="none",
        pixels=Pixels(height=8, width=8),
        preprocessing=Preprocessing(),
        precision="float32",
        dtype=dtype,
    )
    assert StoreSpec(base="b", cut="c", shape=shape, recipe=recipe).task_rows == rows


def test_nouns_are_frozen_and_closed() -> None:
    pixels = Pixels(height=8, width=8)
    with pytest.raises(ValidationError):
        pixels.height = 9  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Pixels(height=8, width=8, antialias=True)  # type: ignore[call-arg]
    with pytest.raises(ValidationError):
        Preprocessing(scale=(float("inf"),))


@pytest.mark.parametrize("name", sorted(PREPROCESSINGS))
def test_named_preprocessings_are_parsed_by_name(name: str) -> None:
    assert Preprocessing.parse(name) is PREPROCESSINGS[name]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("scale=1/255,offset=0,channels=rgb", Preprocessing(scale=(1 / 255,))),
        ("channels=bgr,offset=-1:-2:-3", Preprocessing(channels="bgr", offset=(-1.0, -2.0, -3.0))),
        ("channels=grey, scale = 2", Preprocessing(channels="grey", scale=(2.0,))),
        ("scale=1/2:1/4:1/8", Preprocessing(scale=(0.5, 0.25, 0.125))),
    ],
)
def test_written_preprocessings(text: str, expected: Preprocessing) -> None:
    assert Preprocessing.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cafe", "nearest: caffe"),
        ("", "no preprocessing called ''"),
        ("scale=", "no number"),
        ("scale=1/0", "no number"),
        ("scale=a", "no number"),
        ("scale=1:2", "takes 1 or 3"),
        ("channels=grey,offset=1:2:3", "takes 1 or 1|takes 1"),
        ("channels=gbr", "channels"),
        ("skale=1", "nearest: scale"),
        ("scale=nan", "finite"),
        ("scale=1e999", "finite"),
    ],
)
def test_a_preprocessing_that_cannot_be_says_what_can(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Preprocessing.parse(text)
