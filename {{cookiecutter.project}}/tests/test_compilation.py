import numpy as np
import onnx
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import TunedThresholdClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, SplineTransformer, StandardScaler

from {{ cookiecutter.package }} import compilation, graphs, training
from {{ cookiecutter.package }}.compilation import Gate, RefusedError
from {{ cookiecutter.package }}.contract import Column, Contract, Target
from {{ cookiecutter.package }}.encoding import encode_frame, encode_target
from {{ cookiecutter.package }}.errors import BundleError
from {{ cookiecutter.package }}.plan import Session

ROWS, COLUMNS = 300, 4
CHOICES = [
    {},
    {"scale": "robust", "impute": "mean", "ratios": (("leaves", "Höhe (cm)"),)},
    {"scale": "minmax", "outliers": "remove", "encode": "onehot"},
    {"scale": "none", "outliers": "none", "impute": "none"},
]


def contract_of(classes=(0, 1), nullable=True):
    """A contract of four numbers."""
    columns = tuple(Column(f"x{i}", "numeric", nullable=nullable) for i in range(COLUMNS))
    task = {0: "regression", 2: "binary"}.get(len(classes), "multiclass")
    return Contract(task, Target("y", classes), columns)


@pytest.fixture(scope="module")
def table():
    """Numbers, half of the rows with one missing, and a target that depends on where."""
    generator = np.random.default_rng(3)
    matrix = generator.normal(size=(ROWS, COLUMNS))
    target = (matrix[:, 0] + matrix[:, 1] ** 2 > 0.7).astype(float)
    holes = matrix.copy()
    holes[generator.random(ROWS) < 0.5, 2] = np.nan
    target[np.isnan(holes[:, 2]) & (generator.random(ROWS) < 0.8)] = 1.0
    return matrix, holes, target


def pipeline_of(estimator, *steps):
    """A pipeline of the same shape as training's, not yet fitted."""
    return make_pipeline(
        ColumnTransformer([("all", make_pipeline(*steps), list(range(COLUMNS)))]), estimator
    )


def converted(pipeline, double=False):
    """The plan that skl2onnx makes of a whole pipeline."""
    return compilation.in_onnx("graph", compilation.skl2onnx_graph(pipeline, double), pipeline)


def native_categories():
    """Boosting that splits on categories as they are."""
    return HistGradientBoostingClassifier(max_iter=10, categorical_features=[3])


WRONG = {
    "a forest on missing values": (
        StandardScaler(),
        RandomForestClassifier(20, random_state=0),
        "missing",
    ),
    "an indicator of missing values": (
        SimpleImputer(add_indicator=True),
        LogisticRegression(),
        "missing",
    ),
    "isotonic calibration": (
        SimpleImputer(),
        CalibratedClassifierCV(LogisticRegression(), method="isotonic", cv=3),
        "differs",
    ),
    "thresholds in single precision": (
        StandardScaler(),
        HistGradientBoostingClassifier(max_iter=20, random_state=0),
        "at thresholds",
    ),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_a_silently_wrong_conversion_is_refused(table, case):
    """skl2onnx converts these without an error, and they answer otherwise."""
    step, estimator, said = WRONG[case]
    _, holes, target = table
    pipeline = pipeline_of(estimator, step).fit(holes[:200], target[:200])
    gate = Gate(pipeline, contract_of(), holes[200:])
    with pytest.raises(RefusedError, match=said):
        gate.prove(converted(pipeline))


def test_native_categories_are_refused(table):
    """Boosting on category codes is converted wrongly, and has no graph of ours."""
    matrix, _, _ = table
    matrix = matrix.copy()
    matrix[:, 3] = np.arange(ROWS) * 7 % 12
    target = (np.isin(matrix[:, 3], [1, 4, 6, 9]) ^ (matrix[:, 0] > 1)).astype(float)
    pipeline = pipeline_of(native_categories(), SimpleImputer()).fit(matrix[:200], target[:200])
    gate = Gate(pipeline, contract_of(), matrix[200:])
    with pytest.raises(RefusedError, match=r"differs by up to .* held out"):
        gate.prove(converted(pipeline))
    compiled = compilation.compile_pipeline(pipeline, contract_of(), matrix[200:])
    assert "estimator" == compiled.card["tier"]
    assert "splits on native categories have no graph" in compiled.card["refused"]["dense"]
    assert "differs by up to" in compiled.card["refused"]["graph"]


def test_labels_of_a_tuned_threshold_are_refused(table):
    """Probabilities alone are no proof: labels that are not the likeliest are found out."""
    matrix, _, target = table
    rare = (target * (matrix[:, 0] > 0.5)).astype(float)
    tuned = TunedThresholdClassifierCV(LogisticRegression(), cv=3, random_state=0)
    pipeline = pipeline_of(tuned, StandardScaler()).fit(matrix[:200], rare[:200])
    gate = Gate(pipeline, contract_of(nullable=False), matrix[200:])
    with pytest.raises(RefusedError, match=r"^other labels in \d+ of"):
        gate.prove(converted(pipeline, double=True))
    with pytest.raises(BundleError, match=r"cannot be served as it is: other labels in"):
        compilation.compile_pipeline(pipeline, contract_of(nullable=False), matrix[200:])


FAILING = {
    "splines": (SplineTransformer(), LogisticRegression()),
    "a vote": (
        StandardScaler(),
        VotingClassifier(
            [("one", LogisticRegression()), ("two", RandomForestClassifier(3))], voting="soft"
        ),
    ),
}


@pytest.mark.parametrize("case", list(FAILING))
def test_a_failed_conversion_is_a_reason(table, case):
    """What skl2onnx cannot convert is refused in one line, and scikit-learn answers."""
    step, estimator = FAILING[case]
    matrix, _, target = table
    pipeline = pipeline_of(estimator, step).fit(matrix[:200], target[:200])
    compiled = compilation.compile_pipeline(pipeline, contract_of(nullable=False), matrix[200:])
    assert compiled.graph is None
    assert compiled.card["tier"] == {"splines": "pipeline", "a vote": "estimator"}[case]
    assert compiled.card["refused"]["graph"].startswith("not converted: ")
    assert "\n" not in compiled.card["refused"]["graph"]


def test_libraries_that_do_not_fit_together(table, monkeypatch):
    """An error inside of the converter, as protobuf 7 causes it, refuses the tier and no more."""

    def fail(*_, **__):
        raise TypeError("bad argument type for built-in operation")

    monkeypatch.setattr("onnx.helper.make_node", fail)
    matrix, _, target = table
    estimator = HistGradientBoostingClassifier(max_iter=3)
    pipeline = pipeline_of(estimator, StandardScaler()).fit(matrix[:200], target[:200])
    card = compilation.compile_pipeline(pipeline, contract_of(), matrix[200:]).card
    assert "estimator" == card["tier"]
    said = "not converted: TypeError: bad argument type for built-in operation"
    assert said == card["refused"]["dense"]


def test_a_step_without_own_encoding(table):
    """What the encoder lacks but skl2onnx has becomes one graph of the whole pipeline."""
    matrix, _, target = table
    pipeline = pipeline_of(LogisticRegression(), StandardScaler(), PolynomialFeatures())
    pipeline.fit(matrix[:200], target[:200])
    compiled = compilation.compile_pipeline(pipeline, contract_of(nullable=False), matrix[200:])
    assert "graph" == compiled.card["tier"]
    assert {"dense": "PolynomialFeatures has no own encoding"} == compiled.card["refused"]
    assert 0 <= compiled.card["difference"] <= 1e-6
    np.testing.assert_allclose(
        compiled.plan.values(matrix), pipeline.predict_proba(matrix), atol=1e-6
    )


@pytest.mark.parametrize("choice", CHOICES, ids=str)
@pytest.mark.parametrize("components", [0, 2])
def test_the_encoder_equals_the_preprocessing(walk, settings_with, choice, components):
    """Every option of the preprocessing is read off exactly."""
    road = walk(data={"target": "variety"}, without=["weight", "alive"])
    if components and choice.get("impute") == "none":
        choice = {**choice, "impute": "median"}
    estimator = {"estimator": "random_forest", "params": {"n_estimators": 2}}
    settings = settings_with(preprocessing=choice, training={**estimator, "components": components})
    contract = road.predictor.contract
    matrix, target = encode_frame(contract, road.train), encode_target(contract, road.train)
    pipeline = training.fit(contract, matrix, target, settings)
    rows, _ = compilation.probes(pipeline, contract, encode_frame(contract, road.test))
    encoder = compilation.encoder_of(pipeline)
    again = type(encoder).from_content(encoder.content())
    expected = pipeline[:-1].transform(rows)
    for each in (encoder, again):
        np.testing.assert_array_equal(expected, each(rows))


def estimators():
    """Each estimator of each task."""
    return [(kind, name) for kind, names in training.ESTIMATORS.items() for name in names]


TARGETS = {
    "classification": ("variety", ["weight", "alive"]),
    "regression": ("weight", ["alive", "variety"]),
    "clustering": (None, ["weight", "alive", "variety"]),
}


@pytest.mark.parametrize(("kind", "name"), estimators())
def test_every_estimator_is_compiled(walk, settings_with, kind, name):
    """All that params.yaml offers runs as own encoding and ONNX with one dense input."""
    target, without = TARGETS[kind]
    road = walk(data={"target": target}, without=without)
    contract = road.predictor.contract
    small = {"n_estimators": 10} if "forest" in name else {}
    settings = settings_with(data={"target": target}, training={"estimator": name, "params": small})
    matrix, truth = encode_frame(contract, road.train), encode_target(contract, road.train)
    pipeline = training.fit(contract, matrix, truth, settings)
    card = compilation.compile_pipeline(pipeline, contract, encode_frame(contract, road.test)).card
    assert ("dense", {}) == (card["tier"], card["refused"])
    assert 0 <= card["difference"] <= 1e-6


def test_a_difference_is_refused(table):
    """A coefficient that is off by a thousandth is found on held-out rows."""
    matrix, _, target = table
    pipeline = pipeline_of(Ridge(), StandardScaler()).fit(matrix[:200], target[:200])
    contract = contract_of(classes=(), nullable=False)
    gate = Gate(pipeline, contract, matrix[200:])
    plan = compilation.compile_pipeline(pipeline, contract, matrix[200:]).plan
    assert gate.prove(plan) < 1e-12
    plan.encoder.arrays["divide"] = plan.encoder.arrays["divide"] * 1.001
    with pytest.raises(RefusedError, match=r"^differs by up to .* rows: held out"):
        gate.prove(plan)


def test_a_tie_is_no_difference():
    """Halfway between two centres either label is right, a little beside it only one."""
    centres = KMeans(2, n_init=1, random_state=0)
    matrix = np.array([[0.0], [0.0], [2.0], [2.0]] * 4)
    first = make_pipeline(ColumnTransformer([("all", StandardScaler(), [0])]), centres).fit(matrix)
    contract = Contract("clustering", None, (Column("x", "numeric"),))
    gate = Gate(first, contract, matrix)
    middle = gate.matrix[:1] * 0 + 1.0
    for moved, refused in ((0.0, False), (1e-3, True)):
        gate.matrix, gate.kinds = middle + moved, np.array(["held out"])
        gate.expected, gate.labels = first.transform(gate.matrix), first.predict(gate.matrix)
        other = np.full((1, 2), gate.expected.min())
        other[0, gate.labels[0]] += 1e-9
        if refused:
            with pytest.raises(RefusedError, match="other labels in 1 of 1 rows"):
                gate.check_labels(other)
        else:
            gate.check_labels(other)


def test_rows_of_the_gate(road):
    """Held-out rows, missing values, unseen categories, extremes: all kinds are there."""
    contract = road.predictor.contract
    rows, kinds = compilation.probes(road.pipeline, contract, encode_frame(contract, road.test))
    assert {"held out", "missing", "unseen", "every category", "extreme"} == set(kinds)
    bed = [column.name for column in contract.features].index("bed")
    assert (rows[kinds == "unseen", bed] == -1).all()
    assert 1e30 == np.nanmax(rows)
    assert road.predictor.card["plan"]["rows"] == len(rows)


def test_thresholds_are_rounded_as_forests_round():
    """Rows are compared in single precision by forests; the moved threshold decides the same."""
    generator = np.random.default_rng(0)
    thresholds = generator.normal(size=200)
    thresholds[:50] = thresholds[:50].astype(np.float32)
    moved = graphs.at_most(thresholds)
    for values in (moved, np.nextafter(moved, np.inf), np.nextafter(moved, -np.inf), thresholds):
        single = values.astype(np.float32)
        np.testing.assert_array_equal(single <= thresholds, values <= moved)


def test_trees_of_one_leaf_and_of_mixed_leaves(table):
    """A tree without splits, and leaves that speak for several classes, are answered too."""
    matrix, _, target = table
    three = target + (matrix[:, 3] > 0)
    for parameters in ({"max_depth": 2}, {"min_samples_leaf": 150}):
        forest = RandomForestClassifier(5, random_state=0, **parameters)
        pipeline = pipeline_of(forest, StandardScaler()).fit(matrix[:200], three[:200])
        card = compilation.compile_pipeline(pipeline, contract_of((0, 1, 2)), matrix[200:]).card
        assert "dense" == card["tier"], card


@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
def test_losses_of_boosting(table, loss):
    """Numbers behind a logarithm are answered as numbers."""
    matrix, _, target = table
    boosted = HistGradientBoostingRegressor(loss=loss, max_iter=5)
    pipeline = pipeline_of(boosted, StandardScaler()).fit(matrix[:200], target[:200] + 1)
    card = compilation.compile_pipeline(pipeline, contract_of(classes=()), matrix[200:]).card
    assert "dense" == card["tier"]


def test_a_forest_too_large_for_a_graph_stays_with_scikit_learn(table, monkeypatch):
    """Beyond so many nodes nothing is drawn, and the card says how many there were."""
    matrix, _, target = table
    forest = RandomForestClassifier(n_estimators=5, random_state=0)
    pipeline = pipeline_of(forest, StandardScaler()).fit(matrix[:200], target[:200])
    nodes = sum(tree.tree_.node_count for tree in forest.estimators_)
    monkeypatch.setattr(graphs, "MOST_NODES", nodes - 1)
    card = compilation.compile_pipeline(pipeline, contract_of(nullable=False), matrix[200:]).card
    assert "estimator" == card["tier"]
    reason = f"{nodes:,} nodes of trees; a graph holds at most {nodes - 1:,}"
    assert [True, True] == [reason in card["refused"][tier] for tier in ("dense", "graph")]


def test_a_large_forest_is_walked_through_in_parts(table, monkeypatch):
    """Several operators for some trees each say the same as one for all."""
    matrix, _, target = table
    forest = RandomForestClassifier(n_estimators=5, random_state=0).fit(matrix, target)
    whole = Session(graphs.draw(forest))(matrix)
    monkeypatch.setattr(graphs, "NODES_AT_ONCE", forest[0].tree_.node_count + 1)
    drawn = graphs.draw(forest)
    parts = [node.op_type for node in onnx.load_from_string(drawn).graph.node]
    assert 1 < parts.count("TreeEnsemble") < 5
    assert pytest.approx(whole, abs=1e-12) == Session(drawn)(matrix)
