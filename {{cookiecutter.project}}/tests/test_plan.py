import json
import os
import subprocess
import sys

import numpy as np
import pytest
from sklearn import ensemble

from {{ cookiecutter.package }} import inference
from {{ cookiecutter.package }}.encoding import encode_frame
from {{ cookiecutter.package }}.inference import Predictor, output
from {{ cookiecutter.package }}.plan import Encoder, Plan, ask

HEAVY = ["joblib", "mlflow", "onnx", "pandas", "scipy", "skl2onnx", "sklearn", "skops"]


def test_the_bundle_of_each_task_equals_its_pipeline(each_road):
    """Through all stages: labels, probabilities and scores are those of scikit-learn."""
    contract = each_road.predictor.contract
    matrix = encode_frame(contract, each_road.test)
    expected = output(each_road.pipeline, contract, matrix)
    given = each_road.predictor.output(matrix)
    if contract.task == "regression":
        np.testing.assert_allclose(given.labels, expected.labels, rtol=1e-9)
    else:
        assert expected.labels.tolist() == given.labels.tolist()
    for name in ("probabilities", "scores"):
        if getattr(expected, name) is not None:
            values = getattr(given, name)
            np.testing.assert_allclose(values, getattr(expected, name), rtol=1e-9, atol=1e-12)


def test_the_card_tells_the_plan(each_road):
    """Tier, largest difference and checked rows stand in the card, and the stage says them."""
    facts = each_road.predictor.card["plan"]
    assert {"tier", "form", "difference", "rows", "refused"} == set(facts)
    assert ("dense", "dense ONNX", {}) == (facts["tier"], facts["form"], facts["refused"])
    assert facts["difference"] < 1e-9
    assert facts["rows"] > len(each_road.test)
    assert ", dense ONNX, largest difference " in each_road.said["package"]


def test_one_row_and_many(each_road):
    """A row's answer does not depend on the rows beside it."""
    contract, plan = each_road.predictor.contract, each_road.predictor.plan
    matrix = encode_frame(contract, each_road.test)
    alone = np.concatenate([plan.values(matrix[i : i + 1]) for i in range(len(matrix))])
    np.testing.assert_allclose(alone, plan.values(matrix), rtol=1e-9, atol=1e-15)


def test_the_matrix_is_left_as_it_was(road):
    """Encoding works on its own copy."""
    matrix = encode_frame(road.predictor.contract, road.test)
    before = matrix.copy()
    road.predictor.output(matrix)
    np.testing.assert_array_equal(before, matrix)


def test_content_is_exact_and_json():
    """What is infinite, missing or has many digits survives the file."""
    arrays = {
        "low": np.array([-np.inf, 0.1]),
        "high": np.array([0.1 + 0.2, np.inf]),
        "fill": np.array([np.nan, 1 / 3]),
    }
    encoder = Encoder([{"make": "take", "columns": [1, 0]}], arrays)
    again = Encoder.from_content(json.loads(json.dumps(encoder.content(), allow_nan=False)))
    rows = np.array([[np.nan, -1e300], [5.0, 1e300], [0.05, np.nan]])
    expected = np.array([[-1e300, 1 / 3], [0.1 + 0.2, 5.0], [np.nan, 0.1]])
    np.testing.assert_array_equal(expected, encoder(rows))
    np.testing.assert_array_equal(expected, again(rows))


def test_a_missing_class_has_probability_zero(road):
    """Columns are put where the contract has their classes."""
    contract = road.predictor.contract
    plan = Plan("dense", lambda matrix: np.tile([0.4, 0.6], (len(matrix), 1)), None, (0, 2), None)
    result = inference.output(plan, contract, np.zeros((2, len(contract.features))))
    assert [[0.4, 0.0, 0.6]] * 2 == result.probabilities.tolist()
    assert [contract.classes[2]] * 2 == result.labels.tolist()


@pytest.mark.parametrize("imported", ["inference", "serving.server"])
def test_serving_in_onnx_is_light(road, imported):
    """Loading and asking a bundle whose plan is ONNX imports no library of training."""
    package = inference.__package__
    script = (
        f"import json, sys, {package}.{imported}\n"
        f"from {package}.inference import Predictor\n"
        f"predictor = Predictor.load({str(road.settings.serving.bundle)!r})\n"
        "predictor.predict([predictor.examples[0]['row']])\n"
        f"print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    )
    said = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    assert [] == json.loads(said.stdout)


def test_sessions_use_one_thread(road):
    """Many requests at once share the cores by themselves."""
    options = Predictor.load(road.settings.serving.bundle).plan.estimate.session
    assert 1 == options.get_session_options().intra_op_num_threads


@pytest.mark.parametrize(
    "forest",
    [
        ensemble.RandomForestClassifier,
        ensemble.RandomForestRegressor,
        ensemble.ExtraTreesClassifier,
        ensemble.ExtraTreesRegressor,
    ],
)
def test_trees_asked_one_by_one_are_the_forest(forest):
    """What scikit-learn answers, to the last bit, missing values and three classes included."""
    generator = np.random.default_rng(3)
    matrix = generator.normal(size=(200, 4))
    target = np.digitize(matrix[:, 0] + matrix[:, 1], [-0.5, 0.5])
    matrix[generator.random(matrix.shape) < 0.1] = np.nan
    model = forest(n_estimators=7, random_state=0).fit(matrix, target)
    expected = getattr(model, "predict_proba", model.predict)(matrix)
    np.testing.assert_array_equal(expected, ask(model, matrix))


def test_nobody_is_told_of_models(road, tmp_path):
    """Loading a model leaves nothing in the home folder, where onnxruntime collects its reports."""
    script = f"import sys, {inference.__name__} as it; it.Predictor.load(sys.argv[1])"
    # In the environment of a CI service they are off by themselves.
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    command = [sys.executable, "-c", script, str(road.settings.serving.bundle)]
    subprocess.run(command, env={**kept, "HOME": str(tmp_path)}, check=True)
    assert [] == list(tmp_path.rglob("*"))
