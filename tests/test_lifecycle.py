"""The life of a model: logged, promoted or refused, rolled back, the same through every door."""

import contextlib
import csv
import json
import os
import shutil
import signal
import sqlite3
import subprocess

import pytest
from conftest import Workspace, environment, served, wait_until_answered

from scripts.demo import ask, free_port

POOR = {"estimator": "k_nearest_neighbors", "params": {"n_neighbors": 200}}


def query(workspace, sql):
    """Ask the local MLflow store."""
    with contextlib.closing(sqlite3.connect(workspace.folder / "mlflow.db")) as store:
        return store.execute(sql).fetchall()


def aliases(workspace):
    """Return the version that each alias stands for."""
    return dict(query(workspace, "select alias, version from registered_model_aliases"))


def command(workspace, *words):
    """Run a command of the project; give back exit code, output and errors."""
    done = subprocess.run(
        [".venv/bin/python", "-m", "penguins", *words],
        cwd=workspace.folder,
        env=workspace.environment,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def trained(default_project, tmp_path_factory):
    """A project whose first version is the champion; nobody changes it."""
    workspace = Workspace(default_project, tmp_path_factory.mktemp("life") / "penguins")
    workspace.pipeline()
    assert {"challenger": 1} == aliases(workspace)
    code, said, _ = command(workspace, "promote")
    assert (0, {"champion": 1}) == (code, aliases(workspace))
    assert "version 1 of penguins is the champion, the first one" in said
    return workspace


def test_a_life(default_project, tmp_path):
    """A poor model comes first, a better one replaces it, a poor one is refused, then back."""
    workspace = Workspace(default_project, tmp_path / "penguins")
    workspace.edit("training", **POOR)
    workspace.pipeline()
    assert 0 == command(workspace, "promote")[0]
    assert {"champion": 1} == aliases(workspace)

    workspace.edit("training", estimator="auto", params={})
    workspace.pipeline()
    assert {"champion": 1, "challenger": 2} == aliases(workspace)
    code, said, _ = command(workspace, "promote")
    assert 0 == code, said
    assert {"champion": 2} == aliases(workspace)

    workspace.edit("training", estimator="k_nearest_neighbors", params={"n_neighbors": 150})
    workspace.pipeline()
    code, _, error = command(workspace, "promote")
    assert 10 == code
    assert error.startswith("error: version 3 of penguins is refused: ")
    assert "balanced_accuracy" in error
    assert {"champion": 2, "challenger": 3} == aliases(workspace)

    assert 0 == command(workspace, "rollback")[0]
    assert 1 == aliases(workspace)["champion"]
    sql = "select version, value from model_version_tags where key like 'decision%' order by key"
    events = [(version, json.loads(text)) for version, text in query(workspace, sql)]
    assert [(1, "promoted"), (2, "promoted"), (3, "refused"), (2, "rolled back")] == [
        (version, event["decision"]) for version, event in events
    ]
    assert all(event["who"] and event["when"] and event["why"] for _, event in events)
    code, _, error = command(workspace, "rollback")
    assert (
        9,
        "error: version 1 of penguins has no earlier champion: promote another version\n",
    ) == (
        code,
        error,
    )


DOORS = """
import json, sys, warnings
warnings.simplefilter("ignore")
import mlflow, numpy as np, pandas as pd
from penguins import bundle, contract
from penguins.encoding import encode_frame
from penguins.inference import Predictor, output
agreed = contract.read("contract.json")
frame = pd.read_parquet("data/test.parquet")
rows = [
    {key: None if pd.isna(value) else value for key, value in row.items()}
    for row in frame.drop(columns="species").to_dict("records")
]
pipeline = bundle.load_model(bundle.Path("models/model.skops"))
sklearn = output(pipeline, agreed, encode_frame(agreed, frame))
served = Predictor.load("bundle").predict(rows)
mlflow.set_tracking_uri("sqlite:///mlflow.db")
champion = mlflow.pyfunc.load_model("models:/penguins@champion")
pyfunc = champion.predict(frame.drop(columns="species"))
names = [f"probability_{name}" for name in agreed.class_names]
json.dump({
    "rows": rows,
    "sklearn": sklearn.probabilities.tolist(),
    "bundle": [list(one.probabilities.values()) for one in served],
    "pyfunc": pyfunc[names].to_numpy().tolist(),
}, open(sys.argv[1], "w"))
"""


def assert_equal(expected, found):
    """Compare tables of probabilities, row by row."""
    assert len(expected) == len(found) > 0
    for row, answer in zip(expected, found, strict=True):
        assert pytest.approx(row, abs=1e-6) == answer


@pytest.fixture(scope="module")
def doors(trained):
    """What the held-out rows are answered by scikit-learn, the bundle and MLflow's pyfunc."""
    trained.run(".venv/bin/python", "-c", DOORS, "doors.json")
    return json.loads((trained.folder / "doors.json").read_text())


@pytest.mark.parametrize("door", ["bundle", "pyfunc"])
def test_the_same_numbers_in_process(doors, door):
    """The bundle and plain MLflow answer what the fitted pipeline answers."""
    assert_equal(doors["sklearn"], doors[door])


def test_the_same_numbers_over_http(trained, doors):
    """The service answers what the fitted pipeline answers."""
    with served(trained.folder, "penguins") as address:
        answer = ask(f"{address}/predict", {"rows": doors["rows"]})
    shares = [list(one["probabilities"].values()) for one in answer["predictions"]]
    assert_equal(doors["sklearn"], shares)


def test_the_same_numbers_from_mlflow_models_serve(trained, doors):
    """`mlflow models serve` takes the champion as it is, and answers the same."""
    port = free_port()
    server = subprocess.Popen(
        [
            *(trained.folder / ".venv/bin/mlflow", "models", "serve"),
            *("--model-uri", "models:/penguins@champion", "--env-manager", "local"),
            *("--port", str(port)),
        ],
        cwd="/",
        env=environment(
            MLFLOW_TRACKING_URI=f"sqlite:///{trained.folder}/mlflow.db",
            PATH=f"{trained.folder}/.venv/bin:{environment()['PATH']}",
        ),
        start_new_session=True,
    )
    try:
        wait_until_answered(f"http://127.0.0.1:{port}/ping")
        answer = ask(f"http://127.0.0.1:{port}/invocations", {"dataframe_records": doors["rows"]})
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)
    shares = [
        [value for key, value in one.items() if key.startswith("probability_")]
        for one in answer["predictions"]
    ]
    assert_equal(doors["sklearn"], shares)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_same_numbers_from_a_file(trained, doors, tmp_path, suffix):
    """`score` writes what the fitted pipeline answers, in the order of the rows."""
    script = "import sys, pandas; pandas.read_parquet(sys.argv[1]).to_csv(sys.argv[2], index=False)"
    python = ".venv/bin/python"
    source = tmp_path / f"rows.{suffix}"
    if suffix == "csv":
        trained.run(python, "-c", script, "data/test.parquet", source)
    else:
        shutil.copy(trained.folder / "data/test.parquet", source)
    scored = tmp_path / f"scored.{suffix}"
    trained.run(python, "-m", "penguins", "score", "--in", source, "--out", scored)
    answers = scored
    if suffix == "parquet":
        answers = tmp_path / "scored.csv"
        trained.run(python, "-c", script, scored, answers)
    with answers.open() as file:
        shares = [
            [float(value) for key, value in row.items() if key.startswith("probability_")]
            for row in csv.DictReader(file)
        ]
    assert_equal(doors["sklearn"], shares)


def test_mlflow_runs_the_project(default_project, tmp_path):
    """`mlflow run .` trains the same version in the run that it opened, and one stage alone."""
    workspace = Workspace(default_project, tmp_path / "penguins")
    path = f"{workspace.folder}/.venv/bin:{environment()['PATH']}"
    mlflow = [".venv/bin/mlflow", "run", ".", "--env-manager", "local"]
    workspace.run(*mlflow, PATH=path, MAKEFLAGS="--old-file=.venv/.installed")
    assert [("FINISHED",)] == query(workspace, "select status from runs")
    metrics = dict(query(workspace, "select key, value from latest_metrics"))
    reported = json.loads((workspace.folder / "reports/metrics.json").read_text())
    assert reported["test"]["accuracy"] == metrics["accuracy"]
    assert {"challenger": 1} == aliases(workspace)
    expected = json.loads((default_project / "bundle/examples.json").read_text())
    assert expected == json.loads((workspace.folder / "bundle/examples.json").read_text())
    before = (workspace.folder / "data/train.parquet").read_bytes()
    (workspace.folder / "data/train.parquet").unlink()
    entry = [*mlflow, "--entry-point", "prepare"]
    workspace.run(*entry, PATH=path, MAKEFLAGS="--old-file=.venv/.installed")
    assert before == (workspace.folder / "data/train.parquet").read_bytes()


def test_mlflow_runs_the_repository(default_project, tmp_path):
    """`mlflow run <git url>` clones, installs what the lock names and trains the same version."""
    workspace = Workspace(default_project, tmp_path / "penguins")
    store = tmp_path / "store"
    store.mkdir()
    done = subprocess.run(
        [
            *(default_project / ".venv/bin/mlflow", "run", f"file://{workspace.folder}"),
            *("--version", "HEAD", "--env-manager", "local"),
        ],
        cwd=store,
        env=environment(PATH=f"{default_project}/.venv/bin:{environment()['PATH']}"),
        capture_output=True,
        text=True,
    )
    assert 0 == done.returncode, done.stdout[-3000:] + done.stderr[-3000:]
    with contextlib.closing(sqlite3.connect(store / "mlflow.db")) as kept:
        (version,) = kept.execute(
            "select value from model_version_tags where key = 'bundle_version'"
        ).fetchone()
    card = json.loads((default_project / "bundle/card.json").read_text())
    assert card["version"] == version


def test_ui_opens_the_store(trained):
    """`make ui` serves MLflow's page on the store of the project."""
    port = free_port()
    server = subprocess.Popen(
        ["make", "--old-file=.venv/.installed", "ui", f"UI_PORT={port}"],
        cwd=trained.folder,
        env=trained.environment,
        start_new_session=True,
    )
    try:
        address = f"http://127.0.0.1:{port}/api/2.0/mlflow/registered-models/get?name=penguins"
        found = json.loads(wait_until_answered(address))
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)
    assert {"champion": "1"} == {
        alias["alias"]: alias["version"] for alias in found["registered_model"]["aliases"]
    }


def test_search_logs_every_trial(default_project, tmp_path):
    """A search leaves one run with a nested run for every trial, and the model that it found."""
    workspace = Workspace(default_project, tmp_path / "penguins")
    workspace.edit("training", search={"trials": 6, "minutes": 0, "estimators": []})
    workspace.pipeline()
    parents = query(workspace, "select value from tags where key = 'mlflow.parentRunId'")
    assert (6, 1) == (len(parents), len(set(parents)))
    assert 7 == len(query(workspace, "select run_uuid from runs where status = 'FINISHED'"))
    found = json.loads((workspace.folder / "models/training.json").read_text())
    card = json.loads((workspace.folder / "bundle/card.json").read_text())
    assert found["estimator"] == card["estimator"]
