import json

import numpy as np
import pytest

from {{ cookiecutter.package }} import bundle, packaging, reference
from {{ cookiecutter.package }}.artifacts import SNAPSHOT, read_table, sha256
from {{ cookiecutter.package }}.encoding import encode_frame
from {{ cookiecutter.package }}.errors import BundleError


def read(road):
    """The samples of a road's bundle, by name."""
    samples = reference.read(road.settings.serving.bundle, road.predictor.contract)
    return {each.name: each for each in samples}


def test_features_are_sampled_from_all_rows(road):
    """Every column is there whole, sorted by itself, with its missing values last."""
    found, contract = read(road), road.predictor.contract
    rows = np.vstack([encode_frame(contract, frame) for frame in (road.train, road.test)])
    names = [column.name for column in contract.features]
    assert [*names, "(prediction)", "(score)", "(loss)"] == [*found]
    for column, values in zip(contract.features, rows.T, strict=True):
        np.testing.assert_array_equal(np.sort(values), found[column.name].values)
        assert (column.categories or None, 1.0) == (
            found[column.name].categories,
            found[column.name].effect,
        )


def test_predictions_are_sampled_from_held_out_rows(each_road):
    """What the model says of the test rows, and how sure it is or how far off the row."""
    found, contract = read(each_road), each_road.predictor.contract
    answers = each_road.predictor.output(encode_frame(contract, each_road.test))
    said = found["(prediction)"]
    if contract.task == "regression":
        assert ("(score)" in found, said.categories) == (False, None)
        np.testing.assert_allclose(np.sort(answers.labels), said.values)
        return
    scores = answers.scores if answers.scores is not None else answers.probabilities.max(axis=1)
    np.testing.assert_allclose(np.sort(scores), found["(score)"].values)
    spelled = sorted(said.categories[int(code)] for code in said.values)
    assert sorted(contract.class_names or map(str, range(len(said.categories)))) == sorted(
        said.categories
    )
    labels = [each if isinstance(each, str) else json.dumps(each) for each in answers.labels]
    assert sorted(labels) == spelled


def test_the_same_sample_gives_the_same_bytes(road):
    """Also at another time; and a model's version does not depend on it."""
    folder, contract = road.settings.serving.bundle, road.predictor.contract
    stored = reference.stored(reference.read(folder, contract))
    assert (folder / bundle.SAMPLE).read_bytes() == stored
    assert stored == reference.stored(reference.read(folder, contract))


def test_the_version_does_not_depend_on_the_sample(road, tmp_path):
    """Whoever keeps other rows for monitoring serves the same model."""
    model = (road.settings.serving.bundle / "model.onnx").read_bytes()
    parts = road.predictor.plan, model, road.predictor.contract, road.predictor.card
    others = {bundle.SAMPLE: b""}, {bundle.SAMPLE: b"1"}, {}
    versions = [bundle.write(tmp_path / "bundle", *parts, each)["version"] for each in others]
    assert 1 == len(set(versions))
    assert not (tmp_path / "bundle" / bundle.SAMPLE).exists()


def test_a_bundle_without_a_sample(road, tmp_path):
    """An older bundle is served; monitoring says what to do."""
    with pytest.raises(BundleError, match=r"reference.npz not found: train again"):
        reference.read(tmp_path, road.predictor.contract)


@pytest.mark.parametrize("content", [b"", b"PK", b"nonsense"])
def test_a_damaged_sample(road, tmp_path, content):
    """It is refused by name."""
    (tmp_path / bundle.SAMPLE).write_bytes(content)
    with pytest.raises(BundleError, match=r"reference.npz is damaged"):
        reference.read(tmp_path, road.predictor.contract)


def test_a_sample_of_other_columns(road, roads):
    """A sample that does not fit the contract is not taken for one that does."""
    contract = roads["regression"].predictor.contract
    with pytest.raises(BundleError, match=r"reference.npz is damaged"):
        reference.read(road.settings.serving.bundle, contract)


def test_ten_windows_are_kept():
    """Of more rows ten windows are drawn, at least 10,000, the same ones each time, in order."""
    rows, about = reference.chosen(np.arange(30_000), 1000)
    assert (10_000, None) == (len(rows), about)
    assert (np.diff(rows) > 0).all()
    assert 20_000 == len(reference.chosen(np.arange(30_000), 2000)[0])
    np.testing.assert_array_equal(rows, reference.chosen(np.arange(30_000), 1000)[0])


def test_an_entity_has_one_row_in_a_window():
    """The last of each stretch of a window's length, whatever rows are chosen from."""
    about = np.array([0, 0, 1, 1, 1, 2, 0, 3])
    rows, entities = reference.chosen(np.arange(8), 4, about)
    assert ([1, 3, 4, 5, 6, 7], [0, 1, 1, 2, 0, 3]) == (rows.tolist(), entities.tolist())
    assert [1, 6] == reference.chosen(np.array([0, 1, 6]), 2, about)[0].tolist()
    assert ([], []) == tuple(
        each.tolist() for each in reference.chosen(np.arange(0), 4, np.arange(0))
    )


def effect(values, categories=None, entities=None):
    return reference.design_effect(np.asarray(values, dtype=float), categories, entities)


def test_the_design_effect():
    """Five equal rows of an entity tell as much as one; rows that differ as much as rows do."""
    generator = np.random.default_rng(0)
    about = np.repeat(np.arange(2000), 5)
    values, codes = generator.normal(size=2000), generator.choice(3, 2000).astype(float)
    for column, categories in ((values, None), (codes, ("a", "b", "c"))):
        assert pytest.approx(5, rel=0.05) == effect(column[about], categories, about)
        own = generator.permutation(np.repeat(column, 5))
        assert pytest.approx(1, abs=0.1) == effect(own, categories, about)
        assert 1.0 == effect(column[about], categories)
    missing = np.where(generator.random(2000) < 0.2, np.nan, 0.0)[about]
    assert pytest.approx(5, rel=0.1) == effect(missing, None, about)
    half = values[about] + generator.normal(size=10_000)
    assert 2.5 < effect(half, None, about) < 3.5


@pytest.mark.parametrize("categories", [None, ("a", "b")])
@pytest.mark.parametrize("value", [np.nan, 1.0])
def test_the_design_effect_of_a_constant(value, categories):
    """There is nothing to inflate."""
    about = np.repeat(np.arange(10), 2)
    assert 1.0 == effect(np.full(20, value), categories, about)
    assert 1.0 == effect([], categories, np.arange(0))


def test_codes_of_what_a_model_said():
    """Labels are known by their spelling in JSON."""
    names = ("1", "true", "tall")
    found = reference.codes(names, ["tall", 1, True, None, "short", 2])
    np.testing.assert_array_equal([2, 0, 1, np.nan, -1, -1], found)


def test_entities_of_the_snapshot(road, monkeypatch):
    """Where rows say what they are about, the sample has its design effects."""
    monkeypatch.chdir(road.folder)
    plan, contract = road.predictor.plan, road.predictor.contract
    for entity, expected in (("bed", True), ("id", False), ("nobody", False)):
        events = road.settings.events.model_copy(update={"entity": entity})
        monitoring = road.settings.monitoring.model_copy(update={"window": 30})
        settings = road.settings.model_copy(update={"events": events, "monitoring": monitoring})
        samples = packaging.samples(contract, plan, settings)
        assert expected is any(each.effect > 1.5 for each in samples)
        assert expected is (len(samples[0].values) < len(read_table(SNAPSHOT, "snapshot")))


def test_the_card_seals_the_sample(road):
    """As it does every file."""
    folder = road.settings.serving.bundle
    assert sha256(folder / bundle.SAMPLE) == road.predictor.card["files"][bundle.SAMPLE]
