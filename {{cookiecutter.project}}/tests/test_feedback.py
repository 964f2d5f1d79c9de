import numpy as np
import pandas as pd
import pytest

from {{ cookiecutter.package }} import contract as contracts
from {{ cookiecutter.package }} import feedback, reference, stages
from {{ cookiecutter.package }}.encoding import encode_frame, labels, plain_rows
from {{ cookiecutter.package }}.errors import ContractError, DataError
from {{ cookiecutter.package }}.fingerprints import fingerprints

FACTS = {"policy": "append", "held_out": 20, "from": "", "until": "", "windows": [3]}


def keep(road, frame, entities=None, **facts):
    """Keep rows of a table as clients would have sent them."""
    agreed = road.predictor.contract
    truths = labels(frame[agreed.target.name]).tolist() if agreed.target else []
    feedback.write(agreed, plain_rows(agreed, frame), truths, entities, FACTS | facts)
    return feedback.read(agreed)


def test_rows_come_back_as_the_source_has_them(each_road, tmp_path, monkeypatch):
    """What clients sent is known again among the rows of the source: types do not tell it apart."""
    monkeypatch.chdir(tmp_path)
    kept = keep(each_road, each_road.test)
    train, test = kept.join(each_road.train, each_road.predictor.contract)
    older, newest = each_road.test[:-20], each_road.test[-20:].reset_index(drop=True)
    expected = pd.concat([each_road.train, older])
    assert fingerprints(expected).tolist() == fingerprints(train).tolist()
    assert fingerprints(newest).tolist() == fingerprints(test).tolist()
    features = [encode_frame(each_road.predictor.contract, each) for each in (newest, test)]
    assert np.array_equal(*features, equal_nan=True)


def test_flags_and_moments_keep_their_types(walk, tmp_path, monkeypatch):
    """A source of real booleans and times, as Parquet has them, gets such rows, too."""
    road = walk(data={"target": "alive"}, without=["weight", "variety"])
    monkeypatch.chdir(tmp_path)
    agreed = road.predictor.contract
    typed = road.train.assign(
        treated=road.train["treated"] == "yes", planted=pd.to_datetime(road.train["planted"])
    )
    kept = keep(road, typed, policy="replace")
    train, _ = kept.join(typed, agreed)
    assert typed.dtypes.to_dict() == train.dtypes.to_dict()
    assert fingerprints(typed[:-20]).tolist() == fingerprints(train).tolist()


def test_replace_leaves_the_source_out(road, tmp_path, monkeypatch):
    """Only the older rows of the feedback are trained on; a class that they lack is named."""
    monkeypatch.chdir(tmp_path)
    agreed = road.predictor.contract
    train, test = keep(road, road.test, policy="replace").join(road.train, agreed)
    assert (len(road.test) - 20, 20) == (len(train), len(test))
    without = pd.concat([road.test[road.test["variety"] != "tall"], road.test[-20:]])
    kept = keep(road, without, policy="replace")
    with pytest.raises(ContractError, match=r"class 'tall' has 0 row.*policy: append"):
        kept.join(road.train, agreed)


def test_the_same_rows_again_change_nothing(road, tmp_path, monkeypatch):
    """DVC has nothing to do where nothing is new; what is new replaces what was kept."""
    monkeypatch.chdir(tmp_path)
    first = keep(road, road.test).facts
    assert first == keep(road, road.test, windows=[4]).facts
    assert first["sha256"] != keep(road, road.test, held_out=10).facts["sha256"]


def test_another_file_is_refused(road, tmp_path, monkeypatch):
    """A table that somebody put there is not taken for feedback."""
    monkeypatch.chdir(tmp_path)
    assert feedback.read(road.predictor.contract) is None
    feedback.ROWS.parent.mkdir(parents=True)
    road.test.to_parquet(feedback.ROWS)
    with pytest.raises(DataError, match=r"rows\.parquet is not what retrain writes: delete it"):
        feedback.read(road.predictor.contract)


def test_the_pipeline_follows(folder, settings_with, road):
    """With feedback the split, the card and the reference of monitoring are of its rows."""
    settings = settings_with(serving={"bundle": folder / "bundle"})
    rest = stages.STAGES
    for name in ("snapshot", "contract"):
        rest[name](settings)
    agreed = contracts.read("contract.json")
    frame = pd.concat([road.test, road.train]).assign(leaves=lambda rows: rows["leaves"] + 100)
    truths = frame["variety"].tolist()
    entities = [f"bed {i % 60}" for i in range(len(frame))]
    feedback.write(agreed, plain_rows(agreed, frame), truths, entities, FACTS)
    said = rest["prepare"](settings)
    assert "400 training and 20 test rows, of these 240 of feedback (append)" == said
    for name in ("train", "evaluate", "package"):
        rest[name](settings)
    samples = {each.name: each for each in reference.read(folder / "bundle", agreed)}
    # Of what is asked about the same bed, the last row counts.
    assert sorted(frame["leaves"][-60:]) == samples["leaves"].values.tolist()
    assert 20 == len(samples[reference.LOSS].values)
