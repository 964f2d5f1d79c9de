import numpy as np
import pytest
from scipy.sparse import issparse

from {{ cookiecutter.package }} import encoding, inspection, training
from {{ cookiecutter.package }}.errors import SettingsError, TrainingError
from {{ cookiecutter.package }}.inference import output
from {{ cookiecutter.package }}.preprocessing import build_preprocessor

TARGETS = {"classification": "variety", "regression": "weight", "clustering": None}
NAMES = [(kind, name) for kind, names in training.ESTIMATORS.items() for name in names]


@pytest.fixture(scope="module")
def prepared(garden, settings_with):
    """Settings, contract, matrix and target of a kind of task."""

    def prepare(kind, **sections):
        sections["data"] = {"target": TARGETS[kind], **sections.get("data", {})}
        settings = settings_with(**sections)
        contract = inspection.infer(garden, settings.data)
        target = encoding.encode_target(contract, garden)
        return contract, encoding.encode_frame(contract, garden), target, settings

    return prepare


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_every_estimator(prepared, kind, name):
    """Every name trains, twice to the same answers, and beats chance where there is a truth."""
    contract, matrix, target, settings = prepared(kind, training={"estimator": name})
    first, again = (training.fit(contract, matrix, target, settings) for _ in range(2))
    result = output(first, contract, matrix)
    np.testing.assert_array_equal(result.labels, output(again, contract, matrix).labels)
    if kind == "classification":
        truth = np.array(contract.classes, dtype=object)[target.astype(int)]
        assert (result.labels == truth).mean() > 0.6
        np.testing.assert_allclose(result.probabilities.sum(axis=1), 1)
    elif kind == "regression":
        assert np.corrcoef(result.labels, target)[0, 1] > 0.6
    else:
        assert len(set(result.labels.tolist())) > 1
        assert np.isfinite(result.scores).all()


@pytest.mark.parametrize(
    ("sections", "is_sparse"),
    [
        ({"training": {"estimator": "logistic_regression"}}, True),
        ({"training": {"estimator": "logistic_regression", "components": 2}}, False),
        (
            {
                "training": {"estimator": "hist_gradient_boosting"},
                "preprocessing": {"encode": "onehot"},
            },
            False,
        ),
    ],
)
def test_wide_categories_are_sparse(garden, settings_with, sections, is_sparse):
    """Hundreds of one-hot columns are sparse where the estimator takes that, answers the same."""
    frame = garden.assign(place=[f"place {i % 101}" for i in range(len(garden))])
    settings = settings_with(**sections)
    contract = inspection.infer(frame, settings.data)
    matrix = encoding.encode_frame(contract, frame)
    target = encoding.encode_target(contract, frame)
    pipeline = training.fit(contract, matrix, target, settings)
    assert is_sparse == issparse(pipeline[0].transform(matrix))
    dense = build_preprocessor(contract, settings.preprocessing).fit(matrix)
    if is_sparse:
        np.testing.assert_array_equal(
            dense.transform(matrix), pipeline[0].transform(matrix).toarray()
        )


@pytest.mark.parametrize(
    ("kind", "rows", "impute", "name"),
    [
        ("classification", 999, "median", "logistic_regression"),
        ("classification", 1000, "median", "hist_gradient_boosting"),
        ("classification", 10, "none", "hist_gradient_boosting"),
        ("regression", 999, "median", "ridge"),
        ("regression", 1000, "median", "hist_gradient_boosting"),
        ("clustering", 1000, "median", "k_means"),
    ],
)
def test_auto(prepared, kind, rows, impute, name):
    """Automatic choice: linear for few complete rows, boosting otherwise."""
    contract, _, _, settings = prepared(kind, preprocessing={"impute": impute})
    assert name == training.estimator_name(contract, rows, settings)


def test_parameters_reach_the_estimator(prepared):
    """training.params, the seed and the defaults meet in the estimator."""
    contract, _, _, settings = prepared(
        "classification",
        training={"estimator": "random_forest", "params": {"max_depth": 3}, "seed": 5},
    )
    forest = training.build_pipeline(contract, 100, settings).named_steps["estimator"]
    assert (3, 5, 200) == (forest.max_depth, forest.random_state, forest.n_estimators)


@pytest.mark.parametrize(
    ("estimator", "encode", "inputs"),
    [
        ("random_forest", "auto", 8),
        ("logistic_regression", "auto", 10),
        ("random_forest", "onehot", 10),
        ("logistic_regression", "ordinal", 8),
    ],
)
def test_trees_take_category_codes(prepared, estimator, encode, inputs):
    """A tree gets one input for the three beds, a linear model three; unless it is set."""
    contract, matrix, target, settings = prepared(
        "classification",
        data={"exclude": ("weight", "alive")},
        training={"estimator": estimator},
        preprocessing={"encode": encode},
    )
    pipeline = training.fit(contract, matrix, target, settings)
    assert inputs == pipeline.named_steps["preprocessing"].transform(matrix).shape[1]


def test_reduction(prepared):
    """components: 3 leaves three inputs to the estimator."""
    contract, matrix, target, settings = prepared("regression", training={"components": 3})
    steps = training.fit(contract, matrix, target, settings).named_steps
    assert (3,) == steps["estimator"].coef_.shape


def test_outliers_are_removed_from_training_rows_only(prepared):
    """A far row is not learned from, but answered."""
    contract, matrix, target, settings = prepared(
        "regression", preprocessing={"outliers": "remove"}, training={"estimator": "ridge"}
    )
    clean = training.fit(contract, matrix, target, settings)
    far = matrix[:1].copy()
    far[0, contract.positions(["integer"])] = 1e9
    spoilt = training.fit(contract, np.vstack([matrix, far]), np.append(target, 0.0), settings)
    np.testing.assert_allclose(clean.predict(matrix), spoilt.predict(matrix))
    assert 1 == len(spoilt.predict(far))


@pytest.mark.parametrize(
    ("sections", "error", "message"),
    [
        ({"training": {"estimator": "ridge"}}, SettingsError, "'ridge' does no classification; "),
        (
            {"training": {"params": {"depth": 3}}},
            SettingsError,
            "unexpected keyword argument 'depth'",
        ),
        ({"training": {"params": {"C": -1}}}, TrainingError, "cannot be fitted: The 'C' parameter"),
        ({"training": {"components": 99}}, TrainingError, "n_components=99"),
        (
            {"training": {"estimator": "svm"}, "preprocessing": {"impute": "none"}},
            SettingsError,
            "svm needs complete rows",
        ),
    ],
)
def test_impossible_wishes(prepared, sections, error, message):
    """What cannot be trained is refused in one line."""
    with pytest.raises(error, match=message):
        training.fit(*prepared("classification", **sections))


def test_cross_validation(prepared):
    """One score a fold, their mean, and the same again for the same seed."""
    prepared = prepared("classification", training={"folds": 4})
    scores = training.cross_validate(*prepared)
    assert ("balanced_accuracy", 4) == (scores["metric"], len(scores["folds"]))
    assert np.mean(scores["folds"]) == scores["mean"]
    assert scores == training.cross_validate(*prepared)


def test_rare_class_limits_the_folds(prepared):
    """A class of two rows allows two folds, a class of one row none."""
    contract, matrix, target, settings = prepared("classification")
    for rows, folds in ((2, 2), (1, 0)):
        kept = np.r_[np.flatnonzero(target != 0), np.flatnonzero(target == 0)[:rows]]
        scores = training.cross_validate(contract, matrix[kept], target[kept], settings)
        assert folds == len(scores["folds"])


def test_missing_class_in_training_rows(prepared):
    """A class that was not trained gets the probability zero, in its own place."""
    contract, matrix, target, settings = prepared("classification")
    kept = target != 1
    pipeline = training.fit(contract, matrix[kept], target[kept], settings)
    result = output(pipeline, contract, matrix)
    assert (240, 3) == result.probabilities.shape
    assert not result.probabilities[:, 1].any()
    truth = np.array(contract.classes, dtype=object)[target[kept].astype(int)]
    assert {"dwarf", "tall"} == set(result.labels)
    assert (result.labels[kept] == truth).mean() > 0.8
