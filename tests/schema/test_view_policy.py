"""What may be said of augmented views, and what makes two policies one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottleneck.errors import UnknownName, UsageError
from bottleneck.schema import DEFAULT_VIEWS, ViewPolicy

factors = st.floats(0, 0.9).map(lambda x: round(x, 3))
ranges = st.tuples(st.floats(-0.9, 0), st.floats(0, 0.9)).map(lambda r: (round(r[0], 3), round(r[1], 3)))
policies = st.builds(
    ViewPolicy,
    flip=st.sampled_from(["none", "horizontal", "vertical", "horizontal_and_vertical"]),
    rotation=ranges | factors,
    zoom=ranges | factors,
    zoom_width=st.none() | ranges,
    translation=ranges | factors,
    translation_width=st.none() | ranges,
    crop=st.floats(0.1, 1).map(lambda x: round(x, 3)),
    contrast=ranges | factors,
    brightness=ranges | factors,
    seed=st.integers(0, 1 << 40),
)


@given(policies)
def test_what_is_written_is_read_back(policy: ViewPolicy) -> None:
    assert ViewPolicy.parse(str(policy)) == policy
    assert ViewPolicy.model_validate_json(policy.model_dump_json()) == policy


def test_one_number_is_a_range_around_zero_and_equal_policies_have_one_identity() -> None:
    short, long = (
        ViewPolicy.parse("rotation=0.1,translation=0.2"),
        ViewPolicy.parse("translation_width=-0.2:0.2,translation=-0.2:0.2,rotation=-0.1:0.1"),
    )
    assert short == long and short.fingerprint == long.fingerprint
    assert ViewPolicy.parse("rotation=-0.1") == ViewPolicy.parse("rotation=0.1")
    # One factor for both axes is not the same as two that are drawn alike.
    assert ViewPolicy.parse("zoom=0.1") != ViewPolicy.parse("zoom=0.1,zoom_width=0.1")
    assert short.fingerprint != ViewPolicy.parse("rotation=0.1,translation=0.2,seed=1").fingerprint


def test_the_default_policy_can_be_built_upon() -> None:
    assert ViewPolicy.parse("default") == DEFAULT_VIEWS
    still = ViewPolicy.parse("default,flip=none,translation=0.3,seed=4")
    assert (still.flip, still.translation, still.translation_width, still.seed) == (
        "none",
        (-0.3, 0.3),
        (-0.3, 0.3),
        4,
    )
    assert still.zoom == DEFAULT_VIEWS.zoom


def test_the_identity_of_a_policy_is_pinned() -> None:
    """Stores are named by it. When this fails, raise `ViewPolicy.contract` or undo the change."""
    assert ViewPolicy().fingerprint[:16] == "936b38f0b833ad1c"
    assert (
        ViewPolicy.parse("flip=horizontal,rotation=0.1,crop=0.8,seed=3").fingerprint[:16]
        == "28284084f0c16da4"
    )


def test_zero_ranges_do_nothing_whatever_the_seed() -> None:
    assert ViewPolicy.parse("rotation=0,zoom=0:0,crop=1,seed=7").is_identity
    assert not DEFAULT_VIEWS.is_identity


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rotation=2", "between -1 and 1"),
        ("zoom=-1:0", "zoom above -1"),
        ("brightness=0.3:-0.3", "put the lower number first"),
        ("crop=0", "crop"),
        ("crop=1.5", "crop"),
        ("seed=-1", "seed"),
        ("seed=1.5", "a whole number"),
        ("contrast=high", "expected 0.1 or -0.1:0.2"),
        ("contrast=nan", "contrast"),
        ("rotation", "needs a value, for instance rotation=0.1"),
        ("flip=sideways", "horizontal_and_vertical"),
    ],
)
def test_what_cannot_be_is_named(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as error:
        ViewPolicy.parse(text)
    assert "--augment" in str(error.value)


def test_an_unknown_part_lists_the_nearest() -> None:
    with pytest.raises(UnknownName, match="rotation") as error:
        ViewPolicy.parse("rotatoin=0.1")
    assert error.value.nearest[0] == "rotation"


def test_seeds_differ_by_content_number_and_seed() -> None:
    policy, other = ViewPolicy(), ViewPolicy(seed=1)
    keys = [bytes([c]) * 30 + k.to_bytes(2, "big") for c in range(20) for k in range(1, 20)]
    seeds = {p.draw_seed(key) for p in (policy, other) for key in keys}
    assert len(seeds) == 2 * len(keys)
    assert all(-(1 << 63) <= part < 1 << 63 for pair in seeds for part in pair)
