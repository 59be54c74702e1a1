"""The verdict: forms must agree, twins must not, and a twin that gets through takes the power away."""

import numpy as np
import pytest

from bottleneck.errors import ParityError
from bottleneck.models.certificate import certify, judge_rows, judge_twin, require_certified
from bottleneck.models.comparison import FACTOR, MARGIN, TOLERANCE, WIDEST, Outputs, bound_of, compare
from bottleneck.schema import Certificate, Comparison, Stillness

DRAW = np.random.default_rng(0)
RIGHT = Outputs(DRAW.normal(size=(8, 4)), DRAW.normal(size=(8, 3)), DRAW.random((8, 3)))
OTHER = Outputs(RIGHT.features + 0.1, RIGHT.logits + 0.1, RIGHT.probabilities + 0.1)
TURNED = RIGHT._replace(probabilities=np.roll(RIGHT.probabilities, 1, axis=1))
EQUAL = compare("merged model", "own images", RIGHT, RIGHT)
BOUND = bound_of(0.0, 8)
NOTICED = judge_twin("reversed", RIGHT, OTHER, BOUND)


def verdict(
    *forms: Comparison, twins: tuple[Comparison, ...] = (NOTICED,), drift: tuple[Comparison, ...] = ()
):
    return certify(forms, twins, drift, recipe="0" * 64, head="logistic {}", bound=BOUND)


def test_equal_forms_and_refused_twins_are_certified() -> None:
    made = verdict(compare("merged model", "probes", RIGHT, RIGHT), EQUAL)
    assert made.verdict == "certified"
    assert [c.form for c in made.forms] == ["merged model", "merged model"]
    assert made.tolerance == TOLERANCE
    require_certified(made)
    assert Certificate.model_validate_json(made.model_dump_json()) == made


def test_a_form_that_differs_is_named_with_its_figure() -> None:
    made = verdict(EQUAL, compare("onnx", "probes", RIGHT, OTHER))
    assert made.verdict == "different"
    with pytest.raises(
        ParityError, match=r"the onnx differs.*on probes.*0\.0001 is allowed.*nothing was written"
    ):
        require_certified(made)


@pytest.mark.parametrize(
    "twin",
    [RIGHT, RIGHT._replace(features=OTHER.features), RIGHT._replace(logits=OTHER.logits)],
    ids=["nothing moved", "features alone", "logits alone"],
)
def test_a_twin_that_is_not_noticed_leaves_no_power(twin: Outputs) -> None:
    made = verdict(EQUAL, twins=(NOTICED, judge_twin("unnoticed", RIGHT, twin, BOUND)))
    assert made.verdict == "no power"
    with pytest.raises(ParityError, match=r"no power.*unnoticed"):
        require_certified(made)


def test_without_twins_nothing_is_certified() -> None:
    assert verdict(EQUAL, twins=()).verdict == "no power"


def test_a_form_that_rounds_neither_makes_nor_breaks_the_verdict() -> None:
    close = compare("litert-int8", "own images", RIGHT, RIGHT, gate=0.97)
    far = compare("litert-int8", "own images", RIGHT, TURNED, gate=0.97)
    assert (close.tolerance, close.gate, close.passed) == (None, 0.97, True)
    assert verdict(EQUAL, close).refused == ()
    made = verdict(EQUAL, far)
    assert (made.verdict, made.refused) == ("certified", (far,))
    require_certified(made)
    # It cannot stand for the forms that must be equal either.
    alone = verdict(close)
    assert alone.verdict == "different"
    with pytest.raises(ParityError, match="nothing was compared"):
        require_certified(alone)


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
            require_certified(made)


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


@pytest.mark.parametrize(
    ("measured", "allowed"),
    [(0.0, TOLERANCE), (TOLERANCE / FACTOR, TOLERANCE), (1e-4, FACTOR * 1e-4), (1.0, WIDEST)],
)
def test_the_bound_follows_the_rounding_between_floor_and_ceiling(measured: float, allowed: float) -> None:
    bound = bound_of(measured, 16)
    assert bound.value == pytest.approx(allowed)
    assert (bound.measured, bound.images, bound.floor, bound.ceiling) == (measured, 16, TOLERANCE, WIDEST)


def moved(by: float) -> Outputs:
    """`RIGHT`, further away by that share of its spread in every quantity."""
    return Outputs(*(part + by * np.sqrt(part.var(axis=0).mean()) for part in RIGHT[:3]))


def test_twins_must_be_further_away_than_the_bound_by_far() -> None:
    for measured in (0.0, 1e-4, 1.0):
        bound = bound_of(measured, 16)
        least = MARGIN * bound.value
        assert not judge_twin("far", RIGHT, moved(1.01 * least), bound).passed
        near = judge_twin("near", RIGHT, moved(0.99 * least), bound)
        assert near.passed
        assert certify([EQUAL], [near], recipe="", head="", bound=bound).verdict == "no power"
    assert bound_of(1.0, 1).margin * WIDEST == pytest.approx(1e-2)


def test_a_base_that_moved_or_trains_is_not_certified_however_equal_its_numbers_are() -> None:
    def still(**what: tuple[str, ...]) -> Stillness:
        return Stillness(form="reloaded .keras", variables=4, passed=not what, **what)

    def judged(one: Stillness) -> Certificate:
        return certify([EQUAL], [NOTICED], recipe="0" * 64, head="logistic {}", bound=BOUND, still=[one])

    require_certified(judged(still()))
    for what in ("trainable", "moved"):
        made = judged(still(**{what: ("base/attention/query/kernel", "b", "c", "d")}))
        assert made.verdict == "different"
        with pytest.raises(
            ParityError, match=r"reloaded .keras is not frozen.*base/attention/query/kernel.*…"
        ):
            require_certified(made)


@pytest.mark.parametrize("number", [2, 3])
def test_certificates_of_the_next_formats_are_still_read_and_say_nothing_of_a_bound(number: int) -> None:
    made = verdict(EQUAL).model_dump(mode="json", exclude={"bound", "still"}) | {"format": number}
    old = Certificate.model_validate(made)
    assert (old.format, old.bound, old.still, old.forms) == (number, None, (), (EQUAL,))
