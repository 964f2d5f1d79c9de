import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from {{ cookiecutter.package }} import gate
from {{ cookiecutter.package }}.contract import Column, Contract, Target
from {{ cookiecutter.package }}.errors import ContractError, SettingsError
from {{ cookiecutter.package }}.inference import Output
from {{ cookiecutter.package }}.settings import Gate

COLUMNS = (
    Column("size", "numeric"),
    Column("bed", "categorical", categories=("north", "south")),
    Column("wet", "boolean", categories=("no", "yes")),
)
CLASSES = Contract("binary", Target("kind", ("oak", "elm")), COLUMNS)
NUMBERS = Contract("regression", Target("height"), COLUMNS)
GROUPS = Contract("clustering", None, COLUMNS)
SETTINGS = Gate(resamples=400, latency_ms=1000)


class Known:
    """A predictor of which it is known how good it is: `answer` makes labels of rows."""

    def __init__(self, contract, answer):
        self.contract = contract
        self.answer = answer

    def output(self, matrix):
        answers = self.answer(matrix)
        if not self.contract.classes:
            return Output(answers)
        labels = np.array(self.contract.classes, dtype=object)[answers]
        return Output(labels, np.eye(len(self.contract.classes))[answers])

    def seen(self, matrix):
        return matrix[:, :1]

    def predict(self, rows):
        if any(row.get("size", 0) is None for row in rows):
            raise ContractError("row 0: size: missing")
        return rows


def guessing(contract, wrong, names=("oak", "elm")):
    """A classifier that errs on the rows, counted by their size, where `wrong` is true."""

    def answer(matrix):
        truth = np.nan_to_num(matrix[:, 0]).astype(int) % 2
        guess = np.where(wrong(matrix), 1 - truth, truth)
        return np.array([contract.classes.index(name) for name in names])[guess]

    return Known(contract, answer)


def rows(count=400):
    """Rows whose size counts up; the odd ones are elms."""
    number = np.arange(count)
    return pd.DataFrame(
        {
            "size": number.astype(float),
            "bed": np.where(number < count / 4, "north", "south"),
            "wet": np.where(number % 4 < 2, "yes", "no"),
            "kind": np.where(number % 2, "elm", "oak"),
            "height": number * 1.0,
        }
    )


def every(nth):
    """Wrong on every nth pair of rows, so that both classes suffer alike."""
    return lambda matrix: matrix[:, 0] // 2 % nth == 0


def decide(challenger, champion, frame=None, **settings):
    frame = rows() if frame is None else frame
    decision = gate.decide(challenger, champion, frame, SETTINGS.model_copy(update=settings))
    json.dumps(decision.figures, allow_nan=False)
    return decision


def check(decision, name):
    (found,) = [check for check in decision.checks if check.name == name]
    return found


BAD, GOOD = guessing(CLASSES, every(3)), guessing(CLASSES, every(10))


def test_a_better_model_is_promoted():
    """Who errs on a tenth beats who errs on a third, and the figures say by how much."""
    decision = decide(GOOD, BAD)
    assert decision.promoted
    assert "balanced_accuracy 0.9 (+0.235, at least " in decision.reason
    assert "against 0.665, all else passed" in decision.reason
    assert (400, 0) == (decision.figures["rows"], decision.figures["left_out"])
    assert pytest.approx(0.235) == decision.figures["difference"]
    low, high = decision.figures["interval"]
    assert 0.15 < low < 0.235 < high < 0.32
    assert low == decide(GOOD, BAD).figures["interval"][0]


def test_a_worse_or_equal_model_is_refused_in_a_table():
    """The table names what was required and what was found; an identical model is not better."""
    decision = decide(BAD, GOOD)
    assert not decision.promoted
    assert decision.reason.startswith("refused: balanced_accuracy: 0.665 (-0.235, at least -0.")
    lines = gate.explain(decision).splitlines()
    assert ["check", "champion", "challenger", "required", "result"] == lines[0].split()
    (line,) = [line for line in lines if line.startswith("balanced_accuracy")]
    assert "better by more than 0, 0.95 confident" in line
    assert line.endswith("  failed")
    assert 1 == len({line.rstrip().rfind("  ") for line in lines})
    same = decide(GOOD, GOOD)
    assert not same.promoted
    assert "0.9 (+0, at least +0) against 0.9" in same.reason


def test_the_margin_is_beaten_with_confidence():
    """A difference of 0.235 beats a margin of 0.1, not one of 0.22."""
    assert decide(GOOD, BAD, margin=0.1).promoted
    refused = decide(GOOD, BAD, margin=0.22)
    assert ["balanced_accuracy"] == [c.name for c in refused.checks if not c.passed]
    assert "better by more than 0.22, 0.95 confident" in refused.reason


def test_first_deployment():
    """Without a champion rows, floors and latency decide, and the reason says so."""
    decision = decide(GOOD, None)
    assert decision.promoted
    assert ["rows", "latency"] == [check.name for check in decision.checks]
    assert "first deployment: no champion to compare with, all else passed" == decision.reason
    refused = decide(GOOD, None, floors={"balanced_accuracy": 0.95})
    assert "refused: floor balanced_accuracy: 0.9, required: at least 0.95" == refused.reason


def test_too_few_rows():
    """With 29 rows nothing is measured and nobody promoted."""
    decision = decide(GOOD, BAD, rows(29))
    assert not decision.promoted
    assert "refused: rows: 29, required: at least 30" == decision.reason
    assert "metric" not in decision.figures
    assert "latency: no row answered" in decide(GOOD, None, rows(0)).reason
    assert decide(GOOD, None, rows(30)).promoted


def test_rows_without_a_truth_are_left_out():
    """A missing target, or a class nobody knows, is no row to compare on."""
    frame = rows()
    frame.loc[:9, "kind"] = None
    frame.loc[10:14, "kind"] = "fern"
    decision = decide(GOOD, BAD, frame)
    assert (385, 15) == (decision.figures["rows"], decision.figures["left_out"])


@pytest.mark.parametrize(
    ("floors", "said"),
    [
        ({"accuracy": 0.9}, "at least 0.9"),
        ({"log_loss": 4.0}, "at most 4"),
        ({"roc_auc": 0.8999}, "at least 0.8999"),
    ],
)
def test_floors_that_are_reached(floors, said):
    """Scores have a least value, losses a greatest."""
    decision = decide(GOOD, BAD, floors=floors)
    assert decision.promoted
    assert said == check(decision, f"floor {next(iter(floors))}").required


def test_floors_that_are_missed():
    """A better challenger is refused all the same."""
    decision = decide(GOOD, BAD, floors={"log_loss": 3.0, "accuracy": 0.91})
    assert {"floor log_loss", "floor accuracy"} == {c.name for c in decision.checks if not c.passed}
    assert "floor log_loss: 3.604, required: at most 3" in decision.reason


def test_unknown_floor():
    """A floor on a metric that the task does not have is a mistake in the settings."""
    wanted = "gate.floors: 'r2' is no metric of a binary; expected one of balanced_accuracy, acc"
    with pytest.raises(SettingsError, match=wanted):
        decide(GOOD, BAD, floors={"r2": 0.5})


def test_floor_that_cannot_be_measured():
    """The area under the curve needs both classes; what is not measured is not reached."""
    frame = rows()[lambda frame: frame["kind"] == "oak"]
    decision = decide(GOOD, BAD, frame, floors={"roc_auc": 0.5})
    assert "floor roc_auc: not measured, required: at least 0.5" in decision.reason


def test_a_group_that_loses():
    """Better as a whole, but all wrong in the north: refused, and the group is named."""
    challenger = guessing(CLASSES, lambda matrix: matrix[:, 1] == 0)
    champion = guessing(CLASSES, lambda matrix: (matrix[:, 1] == 1) & (matrix[:, 0] % 4 < 2))
    decision = decide(challenger, champion)
    assert ["slices"] == [check.name for check in decision.checks if not check.passed]
    found = check(decision, "slices")
    assert ("bed = north: 1", "0 (2 losing)") == (found.champion, found.challenger)
    assert "of 4 groups none loses more than 0.05" == found.required
    assert decide(challenger, champion, slice_loss=1.0).promoted
    assert decide(challenger, champion, slice_rows=201).promoted
    none = check(decide(challenger, champion, slice_rows=900), "slices")
    assert none.passed
    assert "no group of 900 rows" == none.challenger
    assert "none loses more than 0.05" == none.required


def test_missing_and_unseen_values_are_groups():
    """Rows without a bed, or with a new one, are looked at as well."""
    frame = rows()
    frame.loc[:99, "bed"] = None
    frame.loc[100:199, "bed"] = "moon"
    names = {part["name"] for part in decide(GOOD, BAD, frame).figures["slices"]}
    assert {"bed = (missing)", "bed = (unseen)", "bed = south", "wet = no", "wet = yes"} == names


def test_latency():
    """A slow model is refused with its milliseconds; a row that it cannot answer is no measure."""
    frame = rows()
    frame.loc[0, "size"] = np.nan
    assert decide(GOOD, None, frame).figures["latency_ms"]["challenger"] > 0
    decision = decide(GOOD, BAD, latency_ms=1e-9)
    assert ["latency"] == [check.name for check in decision.checks if not check.passed]
    assert "required: at most 1e-09 ms for a row" in decision.reason


def test_regression():
    """An error of 1 beats one of 5; a champion's group that was exact must not get worse."""
    far = Known(NUMBERS, lambda matrix: matrix[:, 0] + 5 * (-1) ** matrix[:, 0])
    near = Known(NUMBERS, lambda matrix: matrix[:, 0] + (-1) ** matrix[:, 0])
    decision = decide(near, far, floors={"mean_absolute_error": 1.0})
    assert decision.promoted
    assert "r2" == decision.figures["metric"]
    assert not decide(far, near).promoted
    assert not decide(near, near).promoted
    exact_in_the_north = Known(
        NUMBERS, lambda matrix: matrix[:, 0] + 5 * matrix[:, 1] * (-1) ** matrix[:, 0]
    )
    refused = decide(near, exact_in_the_north)
    assert ["slices"] == [check.name for check in refused.checks if not check.passed]
    assert "bed = north: 0" == check(refused, "slices").champion


def test_clustering():
    """Groups that lie apart beat groups that mix, each in its model's own space."""
    apart = Known(GROUPS, lambda matrix: (matrix[:, 0] > 200).astype(int).astype(object))
    mixed = Known(GROUPS, lambda matrix: (matrix[:, 0] % 2).astype(int).astype(object))
    decision = decide(apart, mixed, floors={"silhouette": 0.5})
    assert decision.promoted
    assert "silhouette" == decision.figures["metric"]
    assert not decide(mixed, apart).promoted


def changed(**columns):
    """The contract with some columns altered, left out where None, or added."""
    kept = [replace(c, **columns.pop(c.name)) if c.name in columns else c for c in COLUMNS]
    return replace(CLASSES, columns=(*kept, *(Column(name, **c) for name, c in columns.items())))


@pytest.mark.parametrize(
    ("contract", "reason"),
    [
        (changed(age={"kind": "integer"}), "'age' is new and required"),
        (changed(size={"kind": "integer"}), "'size' was numeric, is integer"),
        (changed(bed={"categories": ("north",)}), "'bed' no longer knows 'south'"),
        (changed(wet={"categories": ("dry", "wet")}), "'wet' no longer knows 'no', 'yes'"),
        (changed(wet={"categories": ("yes", "no")}), "'wet' no longer knows "),
        (replace(CLASSES, columns=COLUMNS[1:]), "'size' is no longer taken"),
    ],
)
def test_a_contract_that_takes_less(contract, reason):
    """What clients send must go on being understood; the reason names the column."""
    frame = rows().assign(age=3)
    decision = decide(guessing(contract, lambda matrix: matrix[:, 0] < 0), BAD, frame)
    assert reason in check(decision, "contract").challenger
    assert not check(decision, "contract").passed
    assert reason in decision.reason


@pytest.mark.parametrize(
    "contract",
    [
        changed(age={"kind": "numeric", "nullable": True}),
        changed(size={"nullable": True}),
        changed(bed={"categories": ("east", "north", "south")}),
        changed(wet={"kind": "excluded"}),
    ],
)
def test_a_contract_that_takes_more(contract):
    """New columns that may be missing, new categories, and columns no longer used are fine."""
    frame = rows().assign(age=3)
    assert decide(guessing(contract, every(10)), BAD, frame).promoted


def test_missing_values_no_longer_taken():
    """Whole numbers may become any number; what could be missing must not become required."""
    old = changed(size={"kind": "integer", "nullable": True})
    assert ["'size' may no longer be missing"] == gate.narrowings(old, CLASSES)
    assert [] == gate.narrowings(changed(size={"kind": "integer"}), CLASSES)
    written = changed(on={"kind": "datetime", "format": "%d.%m.%Y"})
    assert ["'on' no longer knows '%d.%m.%Y'"] == gate.narrowings(
        written, changed(on={"kind": "datetime"})
    )


def test_classes():
    """A class may come and order does not matter, but none may go."""
    more = replace(CLASSES, task="multiclass", target=Target("kind", ("ash", "elm", "oak")))
    decision = decide(guessing(more, every(10)), BAD)
    assert decision.promoted
    assert '3, new: "ash"' == check(decision, "classes").challenger
    old = guessing(more, every(3))
    refused = decide(GOOD, old)
    assert '2, without "ash"' == check(refused, "classes").challenger
    assert ["classes"] == [check.name for check in refused.checks if not check.passed]
    ashes = guessing(more, lambda matrix: matrix[:, 0] < 0, ("ash", "ash"))
    assert 0.0 == decide(GOOD, ashes).figures["champion"]


def test_another_task_cannot_be_compared():
    """A regression does not replace a classification, however good it is."""
    near = Known(NUMBERS, lambda matrix: matrix[:, 0])
    decision = decide(near, BAD)
    found = check(decision, "task")
    assert ("classification of kind", "regression of height") == (found.champion, found.challenger)
    assert "r2: another task against not comparable" in decision.reason


def test_rows_that_lack_columns():
    """The champion's missing column refuses, the challenger's is the caller's mistake."""
    smaller = changed(wet={"kind": "excluded"})
    decision = decide(guessing(smaller, every(10)), BAD, rows().drop(columns="wet"))
    assert "the held-out rows lack wet" in decision.reason
    with pytest.raises(ContractError, match="the held-out rows lack wet; expected all columns"):
        decide(GOOD, BAD, rows().drop(columns="wet"))


def test_the_trained_models_pass_the_gate(each_road):
    """Each task's real model is deployed first, and does not beat itself."""
    predictor = each_road.predictor
    first = decide(predictor, None, each_road.test, latency_ms=10_000)
    assert first.promoted
    again = decide(predictor, predictor, each_road.test, latency_ms=10_000)
    assert [again.figures["metric"]] == [c.name for c in again.checks if not c.passed]
    assert 0.0 == again.figures["difference"]
    assert {"champion", "challenger"} == set(again.figures["latency_ms"])
