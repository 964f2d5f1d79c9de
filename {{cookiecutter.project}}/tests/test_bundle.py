import io
import json
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import skops.io
from sklearn.preprocessing import FunctionTransformer
from sklearn.tree import DecisionTreeClassifier

from {{ cookiecutter.package }} import bundle, compilation, stages
from {{ cookiecutter.package }}.artifacts import sha256
from {{ cookiecutter.package }}.encoding import encode_frame
from {{ cookiecutter.package }}.errors import BundleError
from {{ cookiecutter.package }}.inference import Predictor
from {{ cookiecutter.package }}.plan import Plan

WITHOUT = {bundle.REFERENCE: {}, bundle.EXAMPLES: []}


@pytest.fixture
def fitted(road, tmp_path):
    """A bundle with the fitted pipeline itself."""
    stored = (road.folder / stages.MODEL).read_bytes()
    contract, plan = road.predictor.contract, Plan.of(road.pipeline)
    bundle.write(tmp_path / "fitted", plan, stored, contract, road.predictor.card, WITHOUT)
    return tmp_path / "fitted"


@pytest.fixture
def copy(road, tmp_path):
    """A bundle that a test may spoil."""
    return shutil.copytree(road.settings.serving.bundle, tmp_path / "bundle")


def test_files_of_a_bundle(road):
    """A bundle holds these files and no others, and the card their hashes."""
    folder = road.settings.serving.bundle
    data = {"contract.json", "card.json", "reference.json", "examples.json", "plan.json"}
    data |= {"reference.npz"}
    names = data | {"model.onnx"}
    assert names == {path.name for path in folder.iterdir()}
    assert names - {"card.json"} == set(road.predictor.card["files"])


def test_card_says_where_the_model_comes_from(road):
    """Data, rows, estimator, scores and libraries stand in the card."""
    card = road.predictor.card
    facts = json.loads((road.folder / "data/snapshot.json").read_text(encoding="utf-8"))
    assert facts["sha256"] == card["data"]["sha256"]
    assert (180, 60) == (card["data"]["training_rows"], card["data"]["test_rows"])
    assert ("Garden", "logistic_regression") == (card["name"], card["estimator"])
    assert np.__version__ == card["libraries"]["numpy"]


def test_reference_describes_the_training_rows(road):
    """Missing shares, quantiles and category shares are those of the training rows."""
    text = (road.settings.serving.bundle / "reference.json").read_text(encoding="utf-8")
    columns = json.loads(text)["columns"]
    assert road.train.bed.isna().mean() == columns["bed"]["missing"]
    share = (road.train.bed.dropna() == "Süd").mean()
    assert pytest.approx(share) == columns["bed"]["shares"]["Süd"]
    quantiles = columns["leaves"]["quantiles"]
    assert (road.train.leaves.min(), road.train.leaves.median(), road.train.leaves.max()) == (
        quantiles[0],
        quantiles[10],
        quantiles[20],
    )


@pytest.mark.parametrize("name", ["model.onnx", "plan.json", "contract.json", "examples.json"])
def test_altered_file(copy, name):
    """A file that is not the one that was sealed is refused by name."""
    (copy / name).write_bytes((copy / name).read_bytes() + b" ")
    with pytest.raises(BundleError, match=f"{name} was altered"):
        bundle.read(copy)


@pytest.mark.parametrize("name", ["model.onnx", "plan.json", "contract.json", "examples.json"])
def test_missing_file(copy, name):
    """An incomplete bundle names what is missing."""
    (copy / name).unlink()
    with pytest.raises(BundleError, match=f"is incomplete: .*{name} is missing"):
        bundle.read(copy)


def test_no_bundle(tmp_path):
    """Where there is no bundle, the message says how to make one."""
    with pytest.raises(BundleError, match=r"no bundle in .*: run `make pipeline`"):
        bundle.read(tmp_path)


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"files": []}', '{"files": {}}'])
def test_damaged_card(copy, text):
    """A card that cannot be read is refused."""
    (copy / "card.json").write_text(text, encoding="utf-8")
    with pytest.raises(BundleError, match="is damaged"):
        bundle.read(copy)


def made_with(folder, **libraries):
    """Say in a bundle's card that it was made with other libraries."""
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    card["libraries"] |= {name.replace("_", "-"): at for name, at in libraries.items()}
    (folder / "card.json").write_text(json.dumps(card), encoding="utf-8")


def test_other_scikit_learn(copy, fitted):
    """A fitted pipeline of another scikit-learn release is refused; ONNX does not depend on it."""
    made_with(fitted, scikit_learn="0.1.0")
    with pytest.raises(BundleError, match=r"made with scikit-learn 0\.1\.0, here is .*: retrain"):
        bundle.read(fitted)
    made_with(copy, scikit_learn="0.1.0")
    assert "dense" == bundle.read(copy)[1].tier


@pytest.mark.parametrize("made", ["999.0.0", "1.999.0", "0.9.0"])
def test_other_onnxruntime(copy, made):
    """An older onnxruntime, or one of another major release, is not asked to run the model."""
    made_with(copy, onnxruntime=made)
    said = f"made with onnxruntime {made}, here is .*: install onnxruntime {made}, or retrain"
    with pytest.raises(BundleError, match=said):
        bundle.read(copy)


def test_a_graph_that_cannot_be_run(copy):
    """What onnxruntime says of a model is told in one line."""
    (copy / "model.onnx").write_bytes(b"no graph")
    card = json.loads((copy / "card.json").read_text(encoding="utf-8"))
    card["files"]["model.onnx"] = sha256(copy / "model.onnx")
    (copy / "card.json").write_text(json.dumps(card), encoding="utf-8")
    with pytest.raises(BundleError, match=r"^onnxruntime .* cannot run the model: .*$"):
        bundle.read(copy)


def test_without_scikit_learn(fitted, monkeypatch):
    """A model that needs scikit-learn says so, and what to install."""
    monkeypatch.setitem(sys.modules, "skops.io", None)
    with pytest.raises(BundleError, match=r"model\.skops needs skops.*group sklearn"):
        bundle.read(fitted)


@pytest.mark.parametrize("tier", ["estimator", "pipeline"])
def test_a_plan_with_scikit_learn(road, tmp_path, tier):
    """Where ONNX was refused the pipeline itself is stored, and answers the same."""
    encoder = compilation.encoder_of(road.pipeline) if tier == "estimator" else None
    plan = Plan.of(road.pipeline[-1] if encoder else road.pipeline, encoder)
    stored = (road.folder / stages.MODEL).read_bytes()
    contract, card = road.predictor.contract, {**road.predictor.card}
    written = bundle.write(tmp_path / "bundle", plan, stored, contract, card, WITHOUT)
    assert "model.skops" in written["files"]
    assert "model.onnx" not in written["files"]
    loaded = Predictor.load(tmp_path / "bundle")
    assert tier == loaded.plan.tier
    matrix = encode_frame(contract, road.test)
    expected = road.pipeline.predict_proba(matrix)
    np.testing.assert_array_equal(expected, loaded.output(matrix).probabilities)


def test_untrusted_types_are_neither_written_nor_read(tmp_path):
    """A model that would run code of its own is refused on both sides."""
    path = tmp_path / "model.skops"
    with pytest.raises(BundleError, match=r"not in bundle\.TRUSTED: \['numpy\.load'"):
        bundle.dump_model(FunctionTransformer(np.load), path)
    assert not path.exists()
    skops.io.dump(FunctionTransformer(np.load), path)
    with pytest.raises(BundleError, match="is refused"):
        bundle.load_model(path)


def test_a_new_bundle_replaces_the_old_one(road, tmp_path):
    """After a write there is the new bundle and nothing beside it."""
    target = tmp_path / "bundle"
    model = road.settings.serving.bundle / "model.onnx"
    plan = road.predictor.plan
    plan = Plan("graph", plan.estimate, None, plan.classes, plan.offset)
    shutil.copytree(road.settings.serving.bundle, target)
    (target / "stray").write_text("", encoding="utf-8")
    card = dict(road.predictor.card)
    card.pop("version")
    contract = road.predictor.contract
    written = bundle.write(target, plan, model.read_bytes(), contract, card, WITHOUT)
    assert ["bundle"] == [path.name for path in tmp_path.iterdir()]
    assert not (target / "stray").exists()
    assert written["version"] == bundle.read(target)[2]["version"] != road.predictor.card["version"]


TRAIN = """
import sys
from pathlib import Path

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from {package} import bundle

garbage = [np.random.default_rng(1).random(size) for size in range(1, 2000, int(sys.argv[2]))]
generator = np.random.default_rng(0)
X = generator.random((200, 4))
X[::7, 0] = np.nan
models = HistGradientBoostingClassifier(max_iter=3), RandomForestClassifier(3)
for number, model in enumerate(models):
    path = Path(sys.argv[1], "model" + str(number) + ".skops")
    model.set_params(random_state=0)
    bundle.dump_model(model.fit(X, X[:, 1] > 0.5), path)
"""


def test_the_same_training_gives_the_same_bytes(tmp_path):
    """Neither addresses, nor times, nor what memory held before get into a stored model."""
    script = TRAIN.format(package=bundle.__package__)
    for folder, step in (("one", "3"), ("two", "7")):
        (tmp_path / folder).mkdir()
        subprocess.run([sys.executable, "-c", script, tmp_path / folder, step], check=True)
    for name in ("model0.skops", "model1.skops"):
        stored, again = (tmp_path / folder / name for folder in ("one", "two"))
        assert stored.read_bytes() == again.read_bytes()
        rows = [[np.nan, 0.1, 0.5, 0.5], [0.5, 0.9, 0.5, 0.5]]
        assert [False, True] == bundle.load_model(stored).predict(rows).tolist()


def test_gaps_of_a_structured_array_are_cleaned(tmp_path):
    """The bytes between the fields of the nodes of a tree are zero, whatever they were."""
    tree = DecisionTreeClassifier(random_state=0).fit([[0.0], [1.0]], [0, 1])
    bundle.dump_model(tree, tmp_path / "model.skops")
    with zipfile.ZipFile(tmp_path / "model.skops") as stored:
        names = [name for name in stored.namelist() if name.endswith(".npy")]
        arrays = [np.load(io.BytesIO(stored.read(name))) for name in names]
    (nodes,) = [array for array in arrays if array.dtype.names]
    fields = [nodes.dtype.fields[name] for name in nodes.dtype.names]
    covered = {at + i for field, at in fields for i in range(field.itemsize)}
    gaps = sorted(set(range(nodes.dtype.itemsize)) - covered)
    assert gaps
    raw = np.frombuffer(nodes.tobytes(), np.uint8).reshape(len(nodes), -1)
    assert not raw[:, gaps].any()


def test_missing_model(tmp_path):
    """Without a model the message names the step that makes it."""
    with pytest.raises(BundleError, match="run the train step first"):
        bundle.load_model(tmp_path / "model.skops")
