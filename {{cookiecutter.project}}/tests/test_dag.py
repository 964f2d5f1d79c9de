"""What the DAG and the MLflow project say is what the code has."""

from pathlib import Path

import yaml

from {{ cookiecutter.package }} import settings, stages

ROOT = Path(__file__).parents[1]


def read(name):
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_dvc_runs_every_stage_in_order():
    """The stages of dvc.yaml are those of the command line, each by its own command."""
    dag = read("dvc.yaml")["stages"]
    assert list(stages.STAGES) == list(dag)
    assert list(dag) == [stage["cmd"].split()[-1] for stage in dag.values()]


def test_dvc_knows_the_files_and_settings_that_stages_depend_on():
    """Every source that is named exists, and every parameter is one of params.yaml."""
    known = settings.load(ROOT / "params.yaml").model_dump()
    for stage in read("dvc.yaml")["stages"].values():
        assert [] == [
            path for path in stage["deps"] if path.startswith("src/") and not (ROOT / path).exists()
        ]
        for name in stage.get("params", []):
            section, _, key = name.partition(".")
            assert not key or key in known[section]


def test_the_mlflow_project_has_every_stage():
    """Each stage is an entry point, beside the whole pipeline, promote and rollback."""
    entries = read("MLproject")["entry_points"]
    assert {"main", *stages.STAGES, "promote", "rollback"} == set(entries)
    for name, entry in entries.items():
        assert f" {'pipeline' if name == 'main' else name} --params" in entry["command"]
