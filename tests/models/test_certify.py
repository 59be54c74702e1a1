"""The verdict: forms must agree, twins must not, and a twin that gets through takes the power away."""

import numpy as np
import pytest

from bottleneck.errors import ParityError
from bottleneck.models.compare import Outputs
from bottleneck.models.parity import certify, require
from bottleneck.schema import Certificate

DRAW = np.random.default_rng(0)
RIGHT = Outputs(DRAW.normal(size=(8, 4)), DRAW.normal(size=(8, 3)), DRAW.random((8, 3)))
OTHER = Outputs(RIGHT.features + 0.1, RIGHT.logits + 0.1, RIGHT.probabilities + 0.1)


def verdict(form: Outputs, **broken: Outputs) -> Certificate:
    forms = {"merged model": {"probes": form, "own images": RIGHT}}
    references = {"probes": RIGHT, "own images": RIGHT}
    return certify(references, forms, broken, recipe="0" * 64, head="logistic {}")


def test_equal_forms_and_refused_twins_are_certified() -> None:
    made = verdict(RIGHT, reversed=OTHER)
    assert made.verdict == "certified"
    assert [c.form for c in made.forms] == ["merged model", "merged model"]
    require(made)
    assert Certificate.model_validate_json(made.model_dump_json()) == made


def test_a_form_that_differs_is_named_with_its_figure() -> None:
    made = verdict(OTHER, reversed=OTHER)
    assert made.verdict == "different"
    with pytest.raises(ParityError, match=r"merged model differs.*on probes.*nothing was written"):
        require(made)


@pytest.mark.parametrize(
    "twin",
    [RIGHT, RIGHT._replace(features=OTHER.features), RIGHT._replace(logits=OTHER.logits)],
    ids=["nothing moved", "features alone", "logits alone"],
)
def test_a_twin_that_is_not_noticed_leaves_no_power(twin: Outputs) -> None:
    made = verdict(RIGHT, fine=OTHER, unnoticed=twin)
    assert made.verdict == "no power"
    with pytest.raises(ParityError, match=r"no power.*unnoticed"):
        require(made)


def test_without_twins_nothing_is_certified() -> None:
    assert verdict(RIGHT).verdict == "no power"


def test_rows_of_reduced_dtype_pass_by_their_first_choices() -> None:
    forms, references = {"merged model": {"own images": RIGHT}}, {"probes": RIGHT, "own images": RIGHT}
    wrong = RIGHT._replace(probabilities=np.roll(RIGHT.probabilities, 1, axis=1))
    for stored, verdict in [
        (RIGHT._replace(features=RIGHT.features + 0.01), "certified"),
        (wrong, "different"),
    ]:
        made = certify(
            references, forms, {"reversed": OTHER}, stored={"own images": stored}, recipe="0" * 64, head="h"
        )
        assert made.verdict == verdict
    with pytest.raises(ParityError, match="--dtype float32"):
        require(made)
