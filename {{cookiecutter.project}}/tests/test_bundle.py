import json
import shutil

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import FunctionTransformer

from {{ cookiecutter.package }} import bundle
from {{ cookiecutter.package }}.errors import BundleError


@pytest.fixture
def copy(road, tmp_path):
    """A bundle that a test may spoil."""
    return shutil.copytree(road.settings.serving.bundle, tmp_path / "bundle")


def test_files_of_a_bundle(road):
    """A bundle holds these files and no others, and the card their hashes."""
    folder = road.settings.serving.bundle
    names = {"model.skops", "contract.json", "card.json", "reference.json", "examples.json"}
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


@pytest.mark.parametrize("name", ["model.skops", "contract.json", "examples.json"])
def test_altered_file(copy, name):
    """A file that is not the one that was sealed is refused by name."""
    (copy / name).write_bytes((copy / name).read_bytes() + b" ")
    with pytest.raises(BundleError, match=f"{name} was altered"):
        bundle.read(copy)


@pytest.mark.parametrize("name", ["model.skops", "contract.json", "examples.json"])
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


def test_other_scikit_learn(copy):
    """A bundle of another scikit-learn release is refused, not silently wrong."""
    card = json.loads((copy / "card.json").read_text(encoding="utf-8"))
    card["libraries"]["scikit-learn"] = "0.1.0"
    (copy / "card.json").write_text(json.dumps(card), encoding="utf-8")
    with pytest.raises(BundleError, match=r"made with scikit-learn 0\.1\.0, here is .*: retrain"):
        bundle.read(copy)


def test_untrusted_types_are_neither_written_nor_read(tmp_path):
    """A model that would run code of its own is refused on both sides."""
    path = tmp_path / "model.skops"
    with pytest.raises(BundleError, match=r"not in bundle\.TRUSTED: \['numpy\.load'"):
        bundle.dump_model(FunctionTransformer(np.load), path)
    assert not path.exists()
    bundle.skops.io.dump(FunctionTransformer(np.load), path)
    with pytest.raises(BundleError, match="is refused"):
        bundle.load_model(path)


def test_a_new_bundle_replaces_the_old_one(road, tmp_path):
    """After a write there is the new bundle and nothing beside it."""
    model, target = tmp_path / "model.skops", tmp_path / "bundle"
    bundle.dump_model(LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0]), model)
    shutil.copytree(road.settings.serving.bundle, target)
    (target / "stray").write_text("", encoding="utf-8")
    card = dict(road.predictor.card)
    card.pop("version")
    written = bundle.write(target, model, road.predictor.contract, card, {}, [])
    assert ["bundle", "model.skops"] == sorted(path.name for path in tmp_path.iterdir())
    assert not (target / "stray").exists()
    assert written["version"] == bundle.read(target)[2]["version"] != road.predictor.card["version"]


def test_missing_model(tmp_path):
    """Without a model the message names the step that makes it."""
    with pytest.raises(BundleError, match="run the train step first"):
        bundle.load_model(tmp_path / "model.skops")
