"""What the OpenAPI description of a service promises is true, for each kind of task."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Workspace, served, wait_until_answered

TARGETS = {
    "multiclass": "species",
    "binary": "sex",
    "regression": "body_mass_g",
    "clustering": None,
}


@pytest.mark.parametrize("task", TARGETS)
def test_the_description_is_true(default_project, tmp_path, task):
    """No request that is made from it, valid or not, gets an answer that it does not promise.

    Whether a valid request is accepted is not asked: JSON Schema can say neither which texts are
    dates nor that all tensors have as many values.
    """
    workspace = Workspace(default_project, tmp_path / "penguins")
    workspace.edit("data", target=TARGETS[task])
    workspace.edit("evaluation", importance_repeats=0)
    workspace.run(".venv/bin/python", "-m", "penguins", "pipeline")
    with served(workspace.folder, "penguins") as address:
        words = [Path(sys.executable).with_name("schemathesis"), "run"]
        words += ["--phases", "examples,coverage,fuzzing", "--max-examples", "10", "--seed", "1"]
        words += ["--exclude-checks", "positive_data_acceptance", "--warnings", "off"]
        run = subprocess.run(
            [*words, f"{address}/openapi.json"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert 0 == run.returncode, run.stdout
        description = json.loads(wait_until_answered(f"{address}/openapi.json"))
        count = sum(map(len, description["paths"].values()))
        assert f"{count} selected / {count} total" in run.stdout
