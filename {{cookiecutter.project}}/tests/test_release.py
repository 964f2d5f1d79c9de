import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from {{ cookiecutter.package }} import release
from {{ cookiecutter.package }}.errors import DataError, GateError, RegistryError
from {{ cookiecutter.package }}.registry import Store
from {{ cookiecutter.package }}.runs import Runs

LOAD = """
import sys
import mlflow, pandas
mlflow.set_tracking_uri(sys.argv[1])
for task in sys.argv[2:]:
    model = mlflow.pyfunc.load_model(f"models:/{task}@challenger")
    model.predict(pandas.read_parquet(f"{task}.parquet")).to_parquet(f"{task}.answers.parquet")
"""


class Killed(BaseException):
    """What no code catches on its way, as kill -9 lets nothing run."""


def kill(*_, **__):
    raise Killed


def state(store):
    """Which version each alias stands for, and what was decided about each version."""
    decided = [(e["version"], e["decision"]) for e in store.events()]
    return store.aliases(), decided


def run_of(store, number="2"):
    return store.client.get_run(store.version(number).run_id)


def all_runs(store):
    experiment = store.client.get_experiment_by_name("garden").experiment_id
    return {run.info.run_id: run for run in store.client.search_runs([experiment])}


CROWNED = [("1", "promoted"), ("2", "promoted")]


def test_register_keeps_the_whole_run(desk, road, opened):
    """A run holds settings, metrics, folds, files and the model's origin."""
    settings = desk.place(road)
    run = opened(settings, run_of)
    card = road.predictor.card
    assert "FINISHED" == run.info.status
    assert {"estimator": "logistic_regression", "training.folds": "5", "data.seed": "0"} == {
        name: run.data.params[name] for name in ("estimator", "training.folds", "data.seed")
    }
    metrics = run.data.metrics
    assert card["metrics"]["balanced_accuracy"] == metrics["balanced_accuracy"]
    assert card["baseline"]["accuracy"] == metrics["baseline.accuracy"]
    assert card["cross_validation"]["mean"] == metrics["cross_validation.mean"]
    assert card["data"]["sha256"] == run.data.tags["data_sha256"]
    assert card["data"]["sha256"][:36] == run.inputs.dataset_inputs[0].dataset.digest

    def folds(store):
        points = store.client.get_metric_history(run.info.run_id, "fold.balanced_accuracy")
        return {point.step: point.value for point in points}

    assert dict(enumerate(card["cross_validation"]["folds"], 1)) == opened(settings, folds)

    def file(path):
        return opened(
            settings, lambda store: store.download_of_run(store.version("2"), path, desk.folder)
        )

    assert Path("contract.json").read_bytes() == file("contract.json").read_bytes()
    assert card["libraries"] == json.loads(file("environment.json").read_bytes())["libraries"]
    pictures = {path.name for path in Path("reports").rglob("*.png")}
    assert pictures == {path.name for path in file("reports").rglob("*.png")} != set()
    with np.load(file("training_rows.npz")) as known:
        assert len(road.train) == len(known["rows"])
        assert list(road.train) == json.loads(str(known["columns"]))
    version = opened(settings, lambda store: store.version("2"))
    assert card["version"] == version.tags["bundle_version"]


def test_registered_once(desk, road, opened):
    """The same files again are the same run and version; reports/run.json names them."""
    settings = desk.place(road)
    before = opened(settings, all_runs)
    said = release.register(settings)
    assert f"version 2 of garden, the challenger, in sqlite:///{desk.store}" == said
    assert set(before) == set(opened(settings, all_runs))
    assert {
        "run_id": opened(settings, run_of).info.run_id,
        "model": "garden",
        "model_version": "2",
        "bundle_version": road.predictor.card["version"],
    } == json.loads(Path("reports/run.json").read_bytes())


def test_each_trial_is_a_nested_run(desk, road, opened):
    """A search's trials lie below its run, with params, folds, value and state."""
    settings = desk.place(road)
    chosen = {"estimator": "svm", "params": {"C": 2.0}}
    trials = [
        {"number": 0, "state": "COMPLETE", "value": 0.5, "params": chosen, "folds": [0.25, 0.75]},
        {"number": 1, "state": "PRUNED", "value": None, "params": {}, "folds": [0.125]},
        {"number": 2, "state": "FAIL", "value": None, "params": {}, "folds": []},
    ]
    Path("models/trials.json").write_text(json.dumps(trials), encoding="utf-8")
    release.register(settings)
    parent = opened(settings, lambda store: run_of(store, "3")).info.run_id
    nested = {
        run.data.tags["trial"]: run
        for run in opened(settings, all_runs).values()
        if run.data.tags.get("mlflow.parentRunId") == parent
    }
    assert {"0": "COMPLETE", "1": "PRUNED", "2": "FAIL"} == {
        number: run.data.tags["state"] for number, run in nested.items()
    }
    assert {"0": "FINISHED", "1": "FINISHED", "2": "FAILED"} == {
        number: run.info.status for number, run in nested.items()
    }
    assert {"estimator": "svm", "params.C": "2.0"} == nested["0"].data.params
    assert {"balanced_accuracy": 0.5, "fold.balanced_accuracy": 0.75} == nested["0"].data.metrics
    assert {"fold.balanced_accuracy": 0.125} == nested["1"].data.metrics


@pytest.mark.parametrize("step", ["fill", "_model", "_register"])
def test_register_after_a_kill(desk, road, opened, monkeypatch, step):
    """What a killed process began is removed or used: one run more, one version, the alias."""
    settings = desk.place(road, "killed")
    with monkeypatch.context() as patch:
        patch.setattr(Runs, "_remove", kill)
        if step == "fill":
            fill = Runs.fill
            patch.setattr(Runs, step, lambda *given: [fill(*given), kill()])
        else:
            patch.setattr(Store if step == "_register" else Runs, step, kill)
        with pytest.raises(Killed):
            release.register(settings)
    release.register(settings)

    def found(store):
        experiment = store.client.get_experiment_by_name("killed").experiment_id
        runs = [run.info.status for run in store.client.search_runs([experiment])]
        models = store.client.search_logged_models([experiment])
        return runs, len(models), len(store.versions()), store.aliases()

    assert (["FINISHED"], 1, 1, {"challenger": "1"}) == opened(settings, found)


def test_another_process_was_killed(desk, road, opened):
    """A run whose process is gone is removed; one whose process lives is left alone."""
    settings = desk.place(road)
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()

    def begin(store):
        experiment = store.client.get_experiment_by_name("garden").experiment_id
        host = {"host": run_of(store).data.tags["host"]}
        return [
            store.client.create_run(experiment, tags={**host, "process": str(process)}).info.run_id
            for process in (ended.pid, os.getppid())
        ]

    dead, alive = opened(settings, begin)
    release.register(settings)
    assert (False, True) == tuple(run in opened(settings, all_runs) for run in (dead, alive))


def test_failed_registration_leaves_nothing(desk, road, opened, monkeypatch):
    """An error on the way removes the run again."""
    settings = desk.place(road, "failed")
    monkeypatch.setattr("mlflow.pyfunc.save_model", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        release.register(settings)

    def runs(store):
        experiment = store.client.get_experiment_by_name("failed").experiment_id
        return store.client.search_runs([experiment]), store.versions(), store.aliases()

    assert ([], [], {}) == opened(settings, runs)


def test_register_within_a_given_run(desk, weak_road, opened, monkeypatch):
    """Started by `mlflow run`, all goes into the run that it began; a known model stays."""
    settings = desk.place(weak_road)

    def begin(store):
        experiment = store.client.create_experiment("projects")
        return store.client.create_run(experiment).info.run_id

    given = opened(settings, begin)
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    release.register(settings)
    run = opened(settings, lambda store: store.client.get_run(given))
    assert "logistic_regression" == run.data.params["estimator"]
    assert "2" == str(len(opened(settings, lambda store: store.versions())))
    other = settings.model_copy(
        update={"tracking": settings.tracking.model_copy(update={"model": "other"})}
    )
    release.register(other)
    assert given == opened(other, lambda store: store.version("1").run_id)


def test_promotion(desk, road, opened):
    """A better challenger becomes the champion; who, when, why and the figures are kept."""
    settings = desk.place(road)
    said = release.promote(settings)
    assert "version 2 of garden is the champion instead of version 1" == said.splitlines()[0]
    assert ({"champion": "2"}, CROWNED) == opened(settings, state)
    event = opened(settings, lambda store: store.version("2").decisions[-1])
    assert ("2", "1", len(road.test)) == (event["champion"], event["previous"], event["rows"])
    assert event["who"]
    assert event["when"].endswith("+00:00")
    assert event["why"]
    assert event["figures"]["metric"] == "balanced_accuracy"


def test_first_promotion(desk, weak_road, opened):
    """Without a champion, floors and latency decide."""
    first = opened(desk.place(weak_road), lambda store: store.version("1").decisions)
    assert [("promoted", "1", None)] == [
        (event["decision"], event["champion"], event["previous"]) for event in first
    ]


def test_worse_challenger(desk, road, weak_road, opened):
    """A refused challenger leaves the champion; the reasons are said and kept."""
    release.promote(desk.place(road))
    settings = desk.place(weak_road)
    release.register(settings)
    with pytest.raises(GateError) as refused:
        release.promote(settings)
    lines = str(refused.value).splitlines()
    assert lines[0].startswith("version 1 of garden is refused: ")
    assert any(line.startswith("balanced_accuracy") and "failed" in line for line in lines)
    aliases = {"champion": "2", "challenger": "1"}
    assert (aliases, [*CROWNED, ("1", "refused")]) == opened(settings, state)
    event = opened(settings, lambda store: store.events()[-1])
    assert lines[0].endswith(event["why"])


def test_rows_of_the_training_are_left_out(desk, road, opened):
    """Held-out rows that the champion was trained on do not count."""
    settings = desk.place(road)
    pd.concat([road.test, road.train.head(20)]).to_parquet("data/test.parquet")
    release.promote(settings)
    assert len(road.test) == opened(settings, lambda store: store.events()[-1]["rows"])


def test_no_row_is_left(desk, road):
    """Where all held-out rows were trained on, there is nothing to compare with."""
    settings = desk.place(road)
    road.train.to_parquet("data/test.parquet")
    with pytest.raises(RegistryError, match="version 2 of garden was trained on all held-out rows"):
        release.promote(settings)


def test_nothing_to_promote(desk, road):
    """Without a challenger, or with the champion as one, the way out is said."""
    settings = desk.place(road)
    release.promote(settings)
    with pytest.raises(RegistryError, match=r"no challenger .*; version 2 is the champion: run"):
        release.promote(settings)
    assert "version 2 of garden, the champion already" in release.register(settings)
    with pytest.raises(RegistryError, match="garden has no challenger"):
        release.promote(settings)


def test_rollback(desk, road, opened):
    """The previous champion comes back, the demoted one does not challenge by itself again."""
    settings = desk.place(road)
    release.promote(settings)
    said = release.rollback(settings)
    assert "version 1 of garden is the champion again, instead of version 2" == said
    taken_back = ({"champion": "1"}, [*CROWNED, ("2", "rolled back")])
    assert taken_back == opened(settings, state)
    assert "was rolled back by" in release.register(settings)
    assert taken_back == opened(settings, state)
    with pytest.raises(RegistryError, match="version 1 of garden has no earlier champion"):
        release.rollback(settings)


def test_rollbacks_walk_further_back(desk, road, opened):
    """Each rollback goes one champion further back, whatever was rolled back before."""
    settings = desk.place(road)

    def replay(store):
        for number, (version, previous) in enumerate([("2", "1"), ("1", "2")], 2):
            crowned = {"number": number, "version": version, "decision": "promoted", "why": ""}
            store.crown({**crowned, "champion": version, "previous": previous})

    opened(settings, replay)
    champions = []
    for _ in range(2):
        release.rollback(settings)
        champions.append(opened(settings, lambda store: store.aliases()["champion"]))
    assert ["2", "1"] == champions
    with pytest.raises(RegistryError, match="no earlier champion"):
        release.rollback(settings)


def test_killed_before_the_champion_moved(desk, road, opened, monkeypatch):
    """A promotion that was killed before it counted did not happen."""
    settings = desk.place(road)
    with monkeypatch.context() as patch:
        patch.setattr("mlflow.MlflowClient.set_registered_model_alias", kill)
        with pytest.raises(Killed):
            release.promote(settings)
    release.register(settings)
    assert ({"champion": "1", "challenger": "2"}, CROWNED[:1]) == opened(settings, state)


def test_killed_after_the_champion_moved(desk, road, opened, monkeypatch):
    """A promotion that was killed once it counted is completed by the next command."""
    settings = desk.place(road)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "_complete", kill)
        with pytest.raises(Killed):
            release.promote(settings)
    release.register(settings)
    assert ({"champion": "2"}, CROWNED) == opened(settings, state)


def test_attach(desk, road, opened):
    """The report is kept with the run that was registered."""
    settings = desk.place(road)
    release.register(settings)
    Path("reports/report.html").write_text("<h1>Good</h1>", encoding="utf-8")
    release.attach(settings, Path("reports/report.html"))
    kept = opened(
        settings,
        lambda store: store.download_of_run(store.version("2"), "report.html", desk.folder),
    )
    assert "<h1>Good</h1>" == kept.read_text(encoding="utf-8")


def test_nothing_to_register(desk, road):
    """Before the pipeline ran, the way to run it is said."""
    settings = desk.place(road)
    Path("bundle/card.json").unlink()
    with pytest.raises(DataError, match=r"card.json not found: run the earlier steps first"):
        release.register(settings)


def test_any_mlflow_loads_the_model(desk, roads, tmp_path):
    """MLflow elsewhere, without this package, predicts what the bundle predicts, for all tasks."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for task, road in roads.items():
        release.register(desk.place(road, task))
        road.test.to_parquet(elsewhere / f"{task}.parquet")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(
        [sys.executable, "-P", "-c", LOAD, f"sqlite:///{desk.store}", *roads],
        cwd=elsewhere,
        env={**environment, "MLFLOW_DISABLE_TELEMETRY": "true"},
        check=True,
    )
    for task, road in roads.items():
        answers = pd.read_parquet(elsewhere / f"{task}.answers.parquet")
        rows = road.test.astype(object).where(road.test.notna(), None).to_dict("records")
        expected = pd.DataFrame(
            {
                "prediction": answer.prediction,
                **{f"probability_{name}": p for name, p in (answer.probabilities or {}).items()},
                **({} if answer.score is None else {"score": answer.score}),
            }
            for answer in road.predictor.predict(rows)
        )
        pd.testing.assert_frame_equal(expected, answers, rtol=1e-9)


def test_without_a_store(desk, road, monkeypatch):
    """Where nothing is kept yet there is no champion, and asking for one makes no store."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///none.db")
    assert release.compare(desk.place(road)) is None
    assert not Path("none.db").exists()


def test_what_the_gate_would_say(desk, road, weak_road, opened):
    """The report hears the gate's opinion of a challenger, and nothing is moved or recorded."""
    settings = desk.place(road)
    release.register(settings)
    before = opened(settings, state)
    assert release.compare(settings)["promoted"]
    assert before == opened(settings, state)
    release.promote(settings)
    assert "it is the champion" == release.compare(settings)["reason"]
    settings = desk.place(weak_road)
    release.register(settings)
    opinion = release.compare(settings)
    assert (False, "balanced_accuracy") == (opinion["promoted"], opinion["figures"]["metric"])
    road.train.to_parquet("data/test.parquet")
    assert "was trained on all held-out rows" in release.compare(settings)["reason"]
    assert ({"champion": "2", "challenger": "1"}, CROWNED) == opened(settings, state)
