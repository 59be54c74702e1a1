"""What cannot be trained on is refused; what is odd is remarked on."""

from __future__ import annotations

import pytest

from bottleneck.errors import BottleneckError, SourceError, UsageError
from bottleneck.schema import Rejection
from tests.inventory.split_cases import Row, check


@pytest.mark.parametrize(
    ("rows", "found", "error", "expected"),
    [
        ([], [], SourceError, r"/images: no images; expected a folder with one sub-folder a class"),
        ([(1, None, None, None)], ["train"], SourceError, "1 images and no labels; training needs a folder"),
        (
            [(1, "a", None, None), (2, "a", None, None)],
            ["train"] * 2,
            SourceError,
            "all 2 labelled images .* 'a'",
        ),
        (
            [(1, "a", None, "test"), (2, "b", None, "test")],
            ["test"] * 2,
            SourceError,
            r"no training images \(0 train, 0 validation, 2 test\)",
        ),
        (
            [(1, "a", None, None), (2, "b", None, None)],
            ["train", "validation"],
            UsageError,
            r"1 class without a training image: 'b' \(1 validation\); use --split exact",
        ),
        (
            [(1, "a", None, "train"), (2, "b", None, "test")],
            ["train", "test"],
            SourceError,
            r"'b' \(1 test\); put images of each class into train",
        ),
        (
            [(1, "a", None, None), (2, "b", None, None)],
            ["train"] * 2,
            UsageError,
            r"nothing to validate on \(2 train, 0 validation, 0 test\)",
        ),
    ],
)
def test_what_cannot_be_trained_on(
    rows: list[Row], found: list[str], error: type[BottleneckError], expected: str
) -> None:
    with pytest.raises(error, match=expected):
        check(rows, found)


def test_no_images_says_what_was_there_instead() -> None:
    unreadable = (Rejection(path="cats", stage="read", reason="permission denied", retry=True),)
    with pytest.raises(
        SourceError, match=r"passed over: 3 not an image, 1 unreadable, cats: permission denied"
    ):
        check([], [], ignored={"not an image": 3}, unreadable=unreadable)


def test_remarks_on_what_is_odd() -> None:
    rows: list[Row] = [
        (1, "a", None, "train"),
        (2, "a", None, "validation"),
        (3, "b", None, "train"),
        (4, "c", None, "train"),
        (5, "c", None, "train"),
        (6, None, None, None),
        (1, "c", None, "test"),
        (4, "c", "g1", "train"),
        (4, "c", "g2", "train"),
        (4, "c", None, "train"),
    ]
    remarks = check(rows, ["train", "validation"] + ["train"] * 4 + ["test"] + ["train"] * 3)
    assert [remark.split(":")[0] for remark in remarks] == [
        "1 image without a label, not trained on",
        "1 class of one image",
        "2 of 3 classes have no validation image",
        "1 image with two labels",
        "1 image in two groups, which count as one",
        "1 image on two sides of the given splits",
    ]
    both = [
        (n, ("caf\u00e9", "cafe\u0301", "b")[n % 3], ("g\u00e9", "ge\u0301")[n % 2], None) for n in range(12)
    ]
    assert check(both, ["train"] * 6 + ["validation"] * 6) == (
        r"1 label that reads like another one, and is taken for a label of its own: 'cafe\u0301' and 'caf\xe9'",
        r"1 group that reads like another one, and is taken for a group of its own: 'ge\u0301' and 'g\xe9'",
    )
    four = ("\u00e9", "e\u0301", "\u00e8", "e\u0300")
    assert check([(n, four[n % 4], None, None) for n in range(8)], ["train"] * 4 + ["validation"] * 4) == (
        r"2 labels that read like another one, and are each taken for a label of its own: 'e\u0300' and '\xe8'",
    )
    assert check([(n, "ab"[n % 2], None, None) for n in range(8)], ["train"] * 4 + ["validation"] * 4) == ()


@pytest.mark.parametrize(
    ("unseen", "named", "exact", "remedy"),
    [
        ([1], False, False, "more images of them would give some"),
        ([1], False, True, "more images of them would give some"),
        ([1], True, False, "more images of them would give some"),
        ([3], True, False, "the source can name some"),
        ([1, 3], False, False, "--split exact gives each class of several images its share"),
        (
            [1, 3],
            False,
            True,
            "more images of them, or a larger --validation where there are several, would give some",
        ),
    ],
)
def test_a_class_without_validation_images_is_told_what_helps(
    unseen: list[int], named: bool, exact: bool, remedy: str
) -> None:
    """None is promised to the only image of a class: it stays in training whatever is asked."""
    found = ["train", "validation"] * 4 + ["train"] * sum(unseen)
    labels = list("abbaabba") + [f"c{number}" for number, size in enumerate(unseen) for _ in range(size)]
    rows: list[Row] = [
        (n, label, None, side if named else None)
        for n, (label, side) in enumerate(zip(labels, found, strict=True))
    ]
    assert check(rows, found, exact=exact)[-1].rpartition("; ")[2] == remedy
