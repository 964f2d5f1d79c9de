import json

import pandas as pd
import pytest

from {{ cookiecutter.package }} import contract as contracts
from {{ cookiecutter.package }} import stages
from {{ cookiecutter.package }}.errors import BundleError, ContractError, DataError


def test_what_the_stages_say(road):
    """Each stage says what came out of it."""
    assert "240 rows, 10 columns of garden.csv" == road.said["snapshot"]
    assert "inferred: multiclass, target variety, 5 features" in road.said["contract"]
    assert "without unit: constant: always cm" in road.said["contract"]
    assert "180 training and 60 test rows" == road.said["prepare"]
    assert road.said["train"].startswith("logistic_regression, balanced_accuracy 0.")
    assert "(baseline 0.333) on 60 test rows" in road.said["evaluate"]
    assert road.predictor.card["version"] in road.said["package"]


def test_contract_is_kept_or_explained(folder, settings_with):
    """The first run infers, the second checks, a broken source is explained, accepting infers."""
    settings = settings_with()
    stages.snapshot(settings)
    assert stages.agree(settings).startswith("inferred: ")
    assert "kept by 240 rows" == stages.agree(settings)
    frame = pd.read_csv(folder / "garden.csv")
    frame.loc[2, "bed"] = "Mars"
    frame.to_csv(folder / "garden.csv", index=False)
    stages.snapshot(settings)
    with pytest.raises(ContractError, match=r"bed +category +1 +3 +'Mars'; expected one of Nord"):
        stages.agree(settings)
    assert stages.agree(settings, accept=True).startswith("inferred")
    assert "kept by 240 rows" == stages.agree(settings)


def test_other_data_settings_make_another_contract(folder, settings_with):
    """Naming another target is an edit of params.yaml and nothing else."""
    stages.snapshot(settings_with())
    stages.agree(settings_with())
    other = settings_with(data={"target": "treated", "exclude": ("variety",)})
    assert "inferred again, as the data settings changed: binary" in stages.agree(other)
    assert "treated" == contracts.read(folder / "contract.json").target.name


def test_an_edited_contract_is_kept(folder, settings_with):
    """What the user writes into the contract is what is checked."""
    settings = settings_with()
    stages.snapshot(settings)
    stages.agree(settings)
    path = folder / "contract.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    leaves = next(column for column in content["columns"] if column["name"] == "leaves")
    leaves["maximum"] = 10
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ContractError, match="leaves  range"):
        stages.agree(settings)


def test_a_contract_outlives_a_new_setting(folder, settings_with):
    """One that was written before `data.time` existed is kept until that is set."""
    stages.snapshot(settings_with())
    stages.agree(settings_with())
    path = folder / "contract.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["agreed"]["time"]
    path.write_text(json.dumps(content), encoding="utf-8")
    assert "kept by 240 rows" == stages.agree(settings_with())
    timed = settings_with(data={"time": "planted"})
    assert "inferred again, as the data settings changed" in stages.agree(timed)


@pytest.mark.parametrize(
    ("stage", "error"),
    [
        ("contract", DataError),
        ("prepare", ContractError),
        ("train", ContractError),
        ("evaluate", ContractError),
        ("package", ContractError),
    ],
)
def test_a_stage_alone_says_what_it_misses(tmp_path, monkeypatch, settings_with, stage, error):
    """In an empty folder each stage names the step to run first."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=r"run the .* step first"):
        stages.STAGES[stage](settings_with())


@pytest.mark.usefixtures("folder")
def test_evaluation_without_a_model(settings_with):
    """Between the stages, too, what is missing is named."""
    settings = settings_with()
    for name in ("snapshot", "contract", "prepare"):
        stages.STAGES[name](settings)
    with pytest.raises(BundleError, match=r"models/model.skops not found: run the train step"):
        stages.evaluate(settings)
    stages.train(settings)
    with pytest.raises(DataError, match=r"reports/metrics.json not found"):
        stages.package(settings)
