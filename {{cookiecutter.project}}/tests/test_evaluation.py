import json

import numpy as np
import pandas as pd
import pytest

from {{ cookiecutter.package }} import evaluation
from {{ cookiecutter.package }}.contract import Column, Contract, Target
from {{ cookiecutter.package }}.encoding import encode_frame, encode_target
from {{ cookiecutter.package }}.inference import output
from {{ cookiecutter.package }}.settings import Evaluation

COLUMNS = (Column("signal", "numeric"), Column("noise", "numeric"))
BINARY = Contract("binary", Target("y", (False, True)), COLUMNS)
REGRESSION = Contract("regression", Target("y"), COLUMNS)
TRUTH = np.array([0.0, 1, 1, 0, 1])


class Regressor:
    """A pipeline that knows the answer: it is the first column."""

    def predict(self, rows):
        return rows[:, 0]


class Oracle(Regressor):
    """One that knows the class."""

    classes_ = np.array([0.0, 1.0])

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


def test_votes_that_add_up_to_more_than_one():
    """A rounding error in a probability, as compiled forests have it, is none of the metrics'."""
    guess = np.array([0.0, 1, 1, 0, 1 + 1e-15])
    metrics, _, _ = evaluation.evaluate(Oracle(), BINARY, matrix(guess), TRUTH)
    assert pytest.approx(0, abs=1e-9) == metrics["log_loss"]


def test_class_without_test_rows():
    """A class that is not among the test rows has no recall, and there is no AUC."""
    metrics, _, _ = evaluation.evaluate(Oracle(), BINARY, matrix(np.ones(3)), np.ones(3))
    assert {"true": 1.0} == metrics["recall"]
    assert "roc_auc" not in metrics


def test_regression_errors():
    """Off by one everywhere."""
    truth = np.array([1.0, 2, 3])
    metrics, _, _ = evaluation.evaluate(Regressor(), REGRESSION, matrix(truth + 1), truth)
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


class Counting(Oracle):
    """An oracle that counts how often it is asked, and for how many rows."""

    def __init__(self):
        self.asked = []

    def predict_proba(self, rows):
        self.asked.append(len(rows))
        return super().predict_proba(rows)


def test_importance_asks_for_few_rows(monkeypatch):
    """It measures the primary metric alone, on a sample from anywhere in the table."""
    monkeypatch.setattr(evaluation, "measure", None)
    truth = np.repeat([0.0, 1.0], 5000)
    pipeline = Counting()
    settings = Evaluation(importance_repeats=3, importance_rows=200)
    found = evaluation.importance(pipeline, BINARY, matrix(truth), truth, settings)
    assert [200] * 7 == pipeline.asked
    assert found["signal"]["mean"] > 0.2


def test_score_is_the_primary_metric(each_road):
    """The quick way to the primary metric gives the same number."""
    predictor, frame = each_road.predictor, each_road.test
    contract, metrics = predictor.contract, predictor.card["metrics"]
    rows, truth = encode_frame(contract, frame), encode_target(contract, frame)
    features = predictor.seen(rows) if truth is None else None
    score = evaluation.score(contract, truth, predictor.output(rows), features)
    assert metrics[evaluation.PRIMARY[contract.task]] == score


def test_intervals_hold_the_metrics(each_road):
    """Every metric that is a number has an interval around it, in the report as well."""
    reported = json.loads((each_road.folder / "reports" / "metrics.json").read_text("utf-8"))
    numbers = {name for name, value in reported["test"].items() if isinstance(value, float)}
    assert numbers == set(reported["intervals"])
    assert numbers == set(evaluation.METRICS[each_road.predictor.contract.task])
    for name, (low, high) in reported["intervals"].items():
        assert low <= reported["test"][name] <= high
        assert high > low


def test_an_interval_covers_the_truth():
    """Of many test sets, the 95 % interval of the accuracy holds 0.8 in about 95 %."""
    generator, held = np.random.default_rng(0), 0
    for _ in range(100):
        truth = generator.integers(0, 2, 300).astype(float)
        right = np.where(generator.random(300) < 0.8, truth, 1 - truth)
        result = output(Oracle(), BINARY, matrix(right))
        low, high = evaluation.intervals(BINARY, truth, result)["accuracy"]
        held += low <= 0.8 <= high
    assert 88 <= held <= 100


def test_intervals_leave_out_what_is_not_measured():
    """Without rows of a class there is no area under the curve, nor its interval."""
    result = output(Oracle(), BINARY, matrix(np.ones(30)))
    found = evaluation.intervals(BINARY, np.ones(30), result)
    assert {"balanced_accuracy", "accuracy", "f1_macro", "log_loss"} == set(found)
    assert [1.0, 1.0] == found["accuracy"]


def test_a_clustering_transforms_its_rows_once(walk, monkeypatch):
    """Evaluation prepares the rows a single time, for groups, silhouette and picture alike."""
    road = walk(data={"target": None}, without=["weight", "alive", "variety"])
    contract, pipeline = road.predictor.contract, road.pipeline
    calls = []
    preprocessing, transform = type(pipeline[0]), type(pipeline[0]).transform

    def counted(self, rows):
        calls.append(len(rows))
        return transform(self, rows)

    monkeypatch.setattr(preprocessing, "transform", counted)
    rows = encode_frame(contract, road.test)
    metrics, result, features = evaluation.evaluate(pipeline, contract, rows, None)
    assert [60] == calls
    assert features.shape[0] == len(result.labels) == 60
    assert road.predictor.card["metrics"]["silhouette"] == metrics["silhouette"]


def test_silhouettes_of_many_rows_are_of_a_sample():
    """All pairs of rows would not fit into memory; one group has no silhouette."""
    labels = np.repeat([0, 1], 2000).astype(object)
    features = np.repeat([[0.0], [9.0]], 2000, axis=0)
    chosen, values = evaluation.silhouettes(labels, features)
    assert evaluation.SILHOUETTE_ROWS == len(chosen) == len(values)
    assert [1.0] == np.unique(values).tolist()
    assert {-1.0} == set(evaluation.silhouettes(labels[:100], features[:100])[1].tolist())


def test_tables_for_plots(each_road):
    """Importance and folds stand in small tables, the same numbers as in the JSON files."""
    folder = each_road.folder
    reported = json.loads((folder / "reports" / "metrics.json").read_text("utf-8"))["importance"]
    table = pd.read_csv(folder / "reports" / "importance.csv")
    assert ["column", "loss"] == list(table)
    assert [(name, loss["mean"]) for name, loss in reported.items()] == list(
        table.itertuples(index=False, name=None)
    )
    trained = json.loads((folder / "models" / "training.json").read_text("utf-8"))
    table = pd.read_csv(folder / "reports" / "folds.csv")
    assert list(enumerate(trained["cross_validation"]["folds"], 1)) == list(
        table.itertuples(index=False, name=None)
    )


def test_every_task_has_its_metrics(each_road):
    """The primary metric of each task is measured, and better than the baseline's."""
    card = each_road.predictor.card
    primary = evaluation.PRIMARY[card["task"]]
    assert card["metrics"][primary] > card["baseline"].get(primary, 0)
    if card["task"] == "clustering":
        assert pytest.approx(1) == sum(card["metrics"]["shares"].values())
