"""The verdict: forms must agree, twins must not, and a twin that gets through takes the power away."""

import numpy as np
import pytest

from bottleneck.errors import ParityError
from bottleneck.models.compare import TOLERANCE, Outputs, compare
from bottleneck.models.parity import certify, judge_rows, judge_twin, require
from bottleneck.schema import Certificate, Comparison

DRAW = np.random.default_rng(0)
RIGHT = Outputs(DRAW.normal(size=(8, 4)), DRAW.normal(size=(8, 3)), DRAW.random((8, 3)))
OTHER = Outputs(RIGHT.features + 0.1, RIGHT.logits + 0.1, RIGHT.probabilities + 0.1)
TURNED = RIGHT._replace(probabilities=np.roll(RIGHT.probabilities, 1, axis=1))
EQUAL = compare("merged model", "own images", RIGHT, RIGHT)
NOTICED = judge_twin("reversed", RIGHT, OTHER)


def verdict(
    *forms: Comparison, twins: tuple[Comparison, ...] = (NOTICED,), drift: tuple[Comparison, ...] = ()
):
    return certify(forms, twins, drift, recipe="0" * 64, head="logistic {}")


def test_equal_forms_and_refused_twins_are_certified() -> None:
    made = verdict(compare("merged model", "probes", RIGHT, RIGHT), EQUAL)
    assert made.verdict == "certified"
    assert [c.form for c in made.forms] == ["merged model", "merged model"]
    assert made.tolerance == TOLERANCE
    require(made)
    assert Certificate.model_validate_json(made.model_dump_json()) == made


def test_a_form_that_differs_is_named_with_its_figure() -> None:
    made = verdict(EQUAL, compare("onnx", "probes", RIGHT, OTHER))
    assert made.verdict == "different"
    with pytest.raises(
        ParityError, match=r"the onnx differs.*on probes.*0\.0001 is allowed.*nothing was written"
    ):
        require(made)


@pytest.mark.parametrize(
    "twin",
    [RIGHT, RIGHT._replace(features=OTHER.features), RIGHT._replace(logits=OTHER.logits)],
    ids=["nothing moved", "features alone", "logits alone"],
)
def test_a_twin_that_is_not_noticed_leaves_no_power(twin: Outputs) -> None:
    made = verdict(EQUAL, twins=(NOTICED, judge_twin("unnoticed", RIGHT, twin)))
    assert made.verdict == "no power"
    with pytest.raises(ParityError, match=r"no power.*unnoticed"):
        require(made)


def test_without_twins_nothing_is_certified() -> None:
    assert verdict(EQUAL, twins=()).verdict == "no power"


def test_a_form_that_rounds_neither_makes_nor_breaks_the_verdict() -> None:
    close = compare("litert-int8", "own images", RIGHT, RIGHT, gate=0.97)
    far = compare("litert-int8", "own images", RIGHT, TURNED, gate=0.97)
    assert (close.tolerance, close.gate, close.passed) == (None, 0.97, True)
    assert verdict(EQUAL, close).refused == ()
    made = verdict(EQUAL, far)
    assert (made.verdict, made.refused) == ("certified", (far,))
    require(made)
    # It cannot stand for the forms that must be equal either.
    alone = verdict(close)
    assert alone.verdict == "different"
    with pytest.raises(ParityError, match="nothing was compared"):
        require(alone)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (RIGHT._replace(features=RIGHT.features + 0.01), "certified"),
        (TURNED, "different"),
        (RIGHT._replace(features=-RIGHT.features), "different"),
    ],
    ids=["a little off", "other first choices", "same first choices, other features"],
)
def test_rows_of_reduced_dtype_pass_by_first_choices_and_direction(stored: Outputs, expected: str) -> None:
    made = verdict(EQUAL, drift=(judge_rows("own images", RIGHT, stored),))
    assert made.verdict == expected
    if expected == "different":
        with pytest.raises(ParityError, match="--dtype float32"):
            require(made)


def test_a_certificate_of_the_first_format_is_still_read() -> None:
    old = {
        "format": 1,
        "verdict": "certified",
        "tolerance": 1e-4,
        "recipe": "0" * 64,
        "head": "logistic {}",
        "forms": [
            {
                "form": "merged model",
                "images": "probes",
                "count": 32,
                "differences": [{"quantity": "features", "largest": 0.0, "mean": 0.0, "spread": 1.0}],
                "top1": 1.0,
                "passed": True,
            }
        ],
        "twins": [],
    }
    assert Certificate.model_validate(old).forms[0].largest == 0.0
