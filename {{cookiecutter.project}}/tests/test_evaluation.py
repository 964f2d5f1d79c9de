import numpy as np
import pytest

from {{ cookiecutter.package }} import evaluation
from {{ cookiecutter.package }}.contract import Column, Contract, Target
from {{ cookiecutter.package }}.settings import Evaluation

COLUMNS = (Column("signal", "numeric"), Column("noise", "numeric"))
BINARY = Contract("binary", Target("y", (False, True)), COLUMNS)
REGRESSION = Contract("regression", Target("y"), COLUMNS)
TRUTH = np.array([0.0, 1, 1, 0, 1])


class Oracle:
    """A pipeline that knows the answer: it is the first column."""

    classes_ = np.array([0.0, 1.0])

    def predict(self, rows):
        return rows[:, 0]

    def predict_proba(self, rows):
        return np.column_stack([1 - rows[:, 0], rows[:, 0]])


def matrix(first):
    return np.column_stack([first, np.arange(len(first))])


def test_perfect_classifier():
    """All right is 1 in every metric."""
    metrics, result, _ = evaluation.evaluate(Oracle(), BINARY, matrix(TRUTH), TRUTH)
    assert [False, True, True, False, True] == result.labels.tolist()
    for name in ("accuracy", "balanced_accuracy", "f1_macro", "roc_auc"):
        assert 1.0 == metrics[name]
    assert {"false": 1.0, "true": 1.0} == metrics["recall"]


def test_one_mistake():
    """One of three positives missed: two thirds of their recall."""
    guess = np.array([0.0, 1, 1, 0, 0.25])
    metrics, _, _ = evaluation.evaluate(Oracle(), BINARY, matrix(guess), TRUTH)
    assert 0.8 == metrics["accuracy"]
    assert pytest.approx(2 / 3) == metrics["recall"]["true"]
    assert pytest.approx(5 / 6) == metrics["balanced_accuracy"]


def test_class_without_test_rows():
    """A class that is not among the test rows has no recall, and there is no AUC."""
    metrics, _, _ = evaluation.evaluate(Oracle(), BINARY, matrix(np.ones(3)), np.ones(3))
    assert {"true": 1.0} == metrics["recall"]
    assert "roc_auc" not in metrics


def test_regression_errors():
    """Off by one everywhere."""
    truth = np.array([1.0, 2, 3])
    metrics, _, _ = evaluation.evaluate(Oracle(), REGRESSION, matrix(truth + 1), truth)
    assert (1.0, 1.0) == (metrics["mean_absolute_error"], metrics["root_mean_squared_error"])
    assert pytest.approx(-0.5) == metrics["r2"]


def test_baselines():
    """The classes' shares, the mean; nothing for a clustering."""
    assert pytest.approx(0.6) == evaluation.baseline(BINARY, TRUTH, TRUTH)["accuracy"]
    assert 0.5 == evaluation.baseline(BINARY, TRUTH, TRUTH)["roc_auc"]
    assert pytest.approx(0) == evaluation.baseline(REGRESSION, TRUTH, TRUTH)["r2"]
    assert {} == evaluation.baseline(BINARY, None, None)


def test_importance_finds_the_signal():
    """Shuffling what decides costs, shuffling what does not costs nothing."""
    truth = np.tile(TRUTH, 20)
    found = evaluation.importance(Oracle(), BINARY, matrix(truth), truth, Evaluation())
    assert ["signal", "noise"] == list(found)
    assert found["signal"]["mean"] > 0.2
    assert {"mean": 0.0, "std": 0.0} == found["noise"]


def test_every_task_has_its_metrics(each_road):
    """The primary metric of each task is measured, and better than the baseline's."""
    card = each_road.predictor.card
    primary = evaluation.PRIMARY[card["task"]]
    assert card["metrics"][primary] > card["baseline"].get(primary, 0)
    if card["task"] == "clustering":
        assert pytest.approx(1) == sum(card["metrics"]["shares"].values())
