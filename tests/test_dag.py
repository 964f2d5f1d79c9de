"""The DAG of a generated project: what runs again after which change, and what DVC then shows."""

import csv
import hashlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import time

import pytest
from conftest import Workspace, copy_project, environment

STAGES = [
    *("snapshot", "contract", "prepare", "train"),
    *("evaluate", "package", "register", "report"),
]
MADE = ("contract.json", "data/snapshot.parquet", "data/train.parquet", "models", "bundle")


def made(dag):
    """Hash everything that the stages made, except where a run was logged."""
    files = [
        path
        for name in MADE
        for top in [dag.folder / name]
        for path in (top.rglob("*") if top.is_dir() else [top])
        if path.is_file()
    ]
    return {
        path.relative_to(dag.folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.fixture(scope="module")
def finished(default_project, tmp_path_factory):
    """A project in which the pipeline ran and was committed; nobody changes it."""
    dag = Workspace(default_project, tmp_path_factory.mktemp("dag") / "penguins")
    assert STAGES == dag.pipeline()
    dag.commit()
    return dag


@pytest.fixture
def restored(finished):
    """The finished project for a test that changes it, put back to its commit afterwards."""
    yield finished
    finished.git("reset", "--quiet", "--hard")
    finished.dvc("checkout", "--force", "--quiet")


def add_row(dag):
    """Append a penguin like another to the source."""
    path = dag.folder / "data/raw/penguins.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[1]]) + "\n")


def comment(dag, module, words="A word more."):
    """Change a module without changing what it does."""
    path = dag.folder / f"src/penguins/{module}.py"
    path.write_text(path.read_text() + f"\n# {words}\n")


def allow_missing(dag):
    """Edit the contract: the year may be missing."""
    path = dag.folder / "contract.json"
    content = json.loads(path.read_text())
    next(column for column in content["columns"] if column["name"] == "year")["nullable"] = True
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


AFTER = {
    "nothing": (lambda dag: None, []),
    "how it is served": (lambda dag: dag.edit("serving", port=8001), []),
    "the gate": (lambda dag: dag.edit("gate", margin=0.01), []),
    "importance": (lambda dag: dag.edit("evaluation", importance_repeats=2), STAGES[4:]),
    "its parameters": (lambda dag: dag.edit("training", params={"C": 0.5}), STAGES[3:]),
    "scaling": (lambda dag: dag.edit("preprocessing", scale="robust"), STAGES[3:]),
    "the split": (lambda dag: dag.edit("data", test_share=0.3), STAGES[2:]),
    "a row of the source": (add_row, STAGES),
    "the contract": (allow_missing, STAGES[1:]),
    "a word in a module": (lambda dag: comment(dag, "plots"), ["evaluate"]),
    "another word": (lambda dag: comment(dag, "training"), ["train"]),
}


@pytest.mark.parametrize("change", AFTER)
def test_only_what_depends_on_a_change_runs_again(restored, change):
    """After each kind of change the stages that depend on it run, and then none."""
    do, expected = AFTER[change]
    do(restored)
    assert expected == restored.pipeline()
    assert [] == restored.pipeline()


@pytest.mark.parametrize("around", ["a repository", "one that ignores it"])
def test_inside_of_a_repository(restored, around):
    """The pipeline runs in a folder of a larger repository, and in one that is ignored there."""
    own, outer = restored.folder / ".git", restored.folder.parent
    own.rename(outer / "own")
    restored.run("git", "init", "--quiet", str(outer))
    if around == "one that ignores it":
        (outer / ".gitignore").write_text("/penguins/\n")
    comment(restored, "plots", around)
    try:
        assert ["evaluate"] == restored.pipeline()
    finally:
        shutil.rmtree(outer / ".git")
        (outer / ".gitignore").unlink(missing_ok=True)
        (restored.folder / ".dvc/config.local").unlink(missing_ok=True)
        (outer / "own").rename(own)


def test_a_stage_that_comes_to_the_same_result_stops_the_others(restored):
    """A rewritten source with the same rows is read again, and nothing else runs."""
    path = restored.folder / "data/raw/penguins.csv"
    path.write_text(path.read_text().replace("\n", "\r\n"), newline="")
    assert ["snapshot"] == restored.pipeline()


def test_params_and_metrics_are_compared_with_the_last_commit(restored):
    """`dvc params diff` and `dvc metrics diff` show one changed parameter and what it did."""
    restored.edit("training", estimator="k_nearest_neighbors", params={"n_neighbors": 40})
    restored.pipeline()
    params = json.loads(restored.dvc("params", "diff", "--json"))["params.yaml"]
    assert {"old": "auto", "new": "k_nearest_neighbors"} == params["training.estimator"]
    metrics = json.loads(restored.dvc("metrics", "diff", "--json"))
    accuracy = metrics["reports/metrics.json"]["test.balanced_accuracy"]
    now = json.loads((restored.folder / "reports/metrics.json").read_text())
    assert now["test"]["balanced_accuracy"] == accuracy["new"] < accuracy["old"]


def test_plots_are_shown_on_one_page(finished, tmp_path):
    """`dvc plots show` puts pictures, importance and folds on a page."""
    finished.dvc("plots", "show", "--out", tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert {"confusion_matrix.png", "Permutation importance", "Cross-validation"} == {
        name
        for name in ("confusion_matrix.png", "Permutation importance", "Cross-validation")
        if name in page
    }
    with (finished.folder / "reports/importance.csv").open() as file:
        assert {"column", "loss"} <= set(next(csv.DictReader(file)))


def test_push_and_pull(finished, tmp_path):
    """What was pushed to the local remote arrives in a clone of the repository, byte by byte."""
    finished.dvc("push", "--quiet")
    clone = tmp_path / "clone"
    finished.run("git", "clone", "--quiet", finished.folder, clone)
    (clone / ".venv").symlink_to(finished.folder / ".venv")
    assert not (clone / "bundle").exists()
    words = ["config", "--local", "remote.storage.url", str(finished.folder / ".storage")]
    for command in (words, ["pull", "--quiet"], ["repro"]):
        said = subprocess.run(
            [".venv/bin/dvc", *command],
            cwd=clone,
            env=environment(PYTHONPATH=str(clone / "src")),
            capture_output=True,
            text=True,
        )
        assert 0 == said.returncode, said.stdout + said.stderr
    assert "Data and pipelines are up to date." in said.stdout
    for path in ("bundle/card.json", "models/model.skops", "data/snapshot.parquet"):
        assert (finished.folder / path).read_bytes() == (clone / path).read_bytes()


def runs(folder):
    """List the state of every run and the versions of every model in the local store."""
    with sqlite3.connect(folder / "mlflow.db") as store:
        states = [state for (state,) in store.execute("select status from runs")]
        versions = [version for (version,) in store.execute("select version from model_versions")]
    return states, versions


def kill_during(dag, stage):
    """Start the pipeline; kill it a second after a stage, or one that comes later, has begun."""
    begins = tuple(f"Running stage '{name}'" for name in STAGES[STAGES.index(stage) :])
    with subprocess.Popen(
        ["make", "--old-file=.venv/.installed", "pipeline"],
        cwd=dag.folder,
        env=dag.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as running:
        for line in running.stdout:
            if line.startswith(begins):
                break
        else:
            raise AssertionError(f"{stage} did not run")
        time.sleep(0.3 if stage == STAGES[-1] else 1)
        os.killpg(running.pid, signal.SIGKILL)
    assert -signal.SIGKILL == running.returncode


def test_killed_at_every_stage(finished, default_project, tmp_path):
    """Killed with -9 at one stage after the other, `make pipeline` comes to the same as ever."""
    victim = Workspace(default_project, tmp_path / "penguins")
    for stage in STAGES:
        kill_during(victim, stage)
    victim.pipeline()
    assert made(finished) == made(victim)
    assert (["FINISHED"], [1]) == runs(victim.folder)
    assert [] == victim.pipeline()


def test_torn_by_a_kill(restored):
    """DVC writes its record and its locks in place; half of either stops nothing."""
    record, whole = restored.folder / "dvc.lock", made(restored)
    recorded = record.read_bytes()
    record.write_bytes(recorded[:8192])
    (restored.folder / ".dvc/tmp/rwlock").write_bytes(b"")
    assert ["contract"] == restored.pipeline()
    assert recorded == record.read_bytes()
    assert whole == made(restored)


def test_without_git(default_project, tmp_path):
    """A project outside of any repository has the same pipeline."""
    project = copy_project(default_project, tmp_path / "penguins")
    (project / ".venv").symlink_to(default_project / ".venv")
    words = ["make", "--old-file=.venv/.installed", "pipeline"]
    own = environment(PYTHONPATH=str(project / "src"), GIT_CEILING_DIRECTORIES=str(tmp_path))
    for ran in (STAGES, []):
        done = subprocess.run(words, cwd=project, env=own, capture_output=True, text=True)
        assert 0 == done.returncode, done.stdout + done.stderr
        assert ran == re.findall(r"^Running stage '(\w+)'", done.stdout, re.MULTILINE)


REFUSED = {
    "a setting from the environment": (
        {"APP_TRAINING__ESTIMATOR": "svm"},
        {},
        "error: APP_TRAINING__ESTIMATOR: DVC records what stands in params.yaml; set it there",
    ),
    "a source that is not there": (
        {},
        {"source": "data/raw/pinguins.csv"},
        "error: data.source: 'data/raw/pinguins.csv' not found; expected a CSV or Parquet file, "
        "a folder of Parquet files, or a file ending in .sql with a query",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_recorded_is_refused(restored, case):
    """Before anything runs, one line says what DVC would not notice."""
    extra, data, message = REFUSED[case]
    restored.edit("data", **data)
    before = made(restored)
    done = subprocess.run(
        ["make", "--old-file=.venv/.installed", "pipeline"],
        cwd=restored.folder,
        env={**restored.environment, **extra},
        capture_output=True,
        text=True,
    )
    assert 2 == done.returncode
    assert message == done.stderr.splitlines()[0]
    assert before == made(restored)
