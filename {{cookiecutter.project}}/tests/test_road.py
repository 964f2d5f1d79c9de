import os
import shutil
from pathlib import Path

import pytest

from {{ cookiecutter.package }} import settings, stages
from {{ cookiecutter.package }}.inference import Predictor

PROJECT = Path(__file__).parents[1]


def test_the_whole_road_with_the_settings_of_this_project(tmp_path, monkeypatch):
    """From params.yaml and its source to a bundle that answers its own examples."""
    configured = settings.load(PROJECT / "params.yaml")
    source = configured.data.source
    if not (PROJECT / source).is_file():
        pytest.skip(f"{source} is not here")
    (tmp_path / source).parent.mkdir(parents=True, exist_ok=True)
    os.symlink(PROJECT / source, tmp_path / source)
    for name in ("params.yaml", "contract.json"):
        if (PROJECT / name).exists():
            shutil.copy(PROJECT / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    for name, stage in stages.STAGES.items():
        assert stage(configured), name
    predictor = Predictor.load(tmp_path / configured.serving.bundle)
    answers = predictor.predict([example["row"] for example in predictor.examples])
    assert [example["prediction"]["prediction"] for example in predictor.examples] == [
        answer.prediction for answer in answers
    ]
    assert (tmp_path / "reports" / "metrics.json").is_file()
