import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from {{ cookiecutter.package }}.encoding import encode_frame
from {{ cookiecutter.package }}.errors import ContractError
from {{ cookiecutter.package }}.inference import Predictor, output


def test_predictor_equals_the_fitted_pipeline(each_road):
    """Rows through the predictor give what scikit-learn gives for the test frame."""
    predictor, frame = each_road.predictor, each_road.test
    contract = predictor.contract
    frame = frame[[column.name for column in contract.features]]
    rows = json.loads(frame.to_json(orient="records", double_precision=15))
    matrix = encode_frame(contract, frame)
    pipeline = each_road.pipeline
    expected = output(pipeline, contract, matrix)
    answers = predictor.predict(rows)
    labels = [answer.prediction for answer in answers]
    assert pytest.approx(expected.labels.tolist()) == labels
    if contract.classes:
        shares = [list(answer.probabilities.values()) for answer in answers]
        np.testing.assert_allclose(shares, pipeline.predict_proba(matrix), atol=1e-12)
        assert list(contract.class_names) == list(answers[0].probabilities)
    elif contract.task == "regression":
        assert pipeline.predict(matrix).tolist() == expected.labels.tolist()
    else:
        assert pipeline.predict(matrix).tolist() == expected.labels.tolist()
        assert pytest.approx(expected.scores) == [answer.score for answer in answers]


def test_examples_repeat(each_road):
    """The stored examples are answered as they were when the bundle was made."""
    predictor = each_road.predictor
    answers = predictor.predict([example["row"] for example in predictor.examples])
    for example, answer in zip(predictor.examples, answers, strict=True):
        assert example["prediction"]["prediction"] == answer.prediction
        if answer.probabilities:
            assert pytest.approx(example["prediction"]["probabilities"]) == answer.probabilities


@given(data=st.data())
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_order_and_batch_size_do_not_matter(road, data):
    """A row's answer is its own, whatever rows come with it."""
    rows = [example["row"] for example in road.predictor.examples]
    alone = [road.predictor.predict([row])[0] for row in rows]
    order = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=20))
    for i, answer in zip(order, road.predictor.predict([rows[i] for i in order]), strict=True):
        assert alone[i].prediction == answer.prediction
        np.testing.assert_allclose(
            list(alone[i].probabilities.values()), list(answer.probabilities.values()), rtol=1e-9
        )


def test_isolation_forest_names_outliers(walk):
    """An isolation forest answers inlier or outlier, and scores the unusual higher."""
    road = walk(
        data={"target": None},
        training={"estimator": "isolation_forest", "params": {"n_estimators": 20}},
        without=["weight", "alive", "variety"],
    )
    usual = road.predictor.examples[0]["row"]
    near, far = road.predictor.predict([usual, {**usual, "leaves": 9999, "Höhe (cm)": 9999.0}])
    assert "outlier" == far.prediction
    assert far.score > near.score
    assert 2 == len(far.warnings)


def test_no_rows(road):
    """No rows, no predictions."""
    assert [] == road.predictor.predict([])


def test_wrong_value(road):
    """A value of the wrong type is refused by row and column."""
    row = {**road.predictor.examples[0]["row"], "leaves": "many"}
    with pytest.raises(ContractError, match="row 0: leaves: expected a whole number, not 'many'"):
        road.predictor.predict([row])


def test_load(road):
    """A loaded bundle knows its version."""
    loaded = Predictor.load(road.settings.serving.bundle)
    assert road.predictor.card == loaded.card
    assert road.predictor.contract == loaded.contract
