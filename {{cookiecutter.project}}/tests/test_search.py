import io
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from {{ cookiecutter.package }} import encoding, inspection, search, stages, training
from {{ cookiecutter.package }}.bundle import load_model

QUICK = ("logistic_regression", "k_nearest_neighbors")
TRIALS = 10
TARGETS = {"classification": "variety", "regression": "weight", "clustering": None}


@pytest.fixture(scope="module", name="prepare")
def prepare_fixture(garden, settings_with):
    """The function that makes contract, matrix, target and settings of a kind of task."""

    def prepare(kind="classification", **budget):
        if kind == "classification":
            budget = {"estimators": QUICK, **budget}
        unseen = {*TARGETS.values(), "alive"} - {TARGETS[kind], None}
        settings = settings_with(
            data={"target": TARGETS[kind], "exclude": tuple(sorted(unseen))},
            training={"search": budget},
        )
        contract = inspection.infer(garden, settings.data)
        target = encoding.encode_target(contract, garden)
        return contract, encoding.encode_frame(contract, garden), target, settings

    return prepare


@pytest.fixture(scope="module")
def undisturbed(prepare, tmp_path_factory):
    """What a search of ten trials finds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("undisturbed"))
        return search.search(*prepare(trials=TRIALS))


@pytest.fixture
def prepared(prepare, tmp_path, monkeypatch):
    """The same function, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return prepare


def interrupt(monkeypatch, folds):
    """Let Ctrl-C come after a number of folds."""
    measure, left = training.fold_scores, [folds]

    def measured(*words):
        for score in measure(*words):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            yield score

    monkeypatch.setattr(training, "fold_scores", measured)


@pytest.fixture
def measured(monkeypatch):
    """The target of every trial that is measured, and not taken from an earlier one."""
    measure, seen = training.fold_scores, []
    monkeypatch.setattr(training, "fold_scores", lambda *d: seen.append(d[2]) or measure(*d))
    return seen


@pytest.mark.usefixtures("folder")
def test_what_was_found_is_trained(settings_with):
    """The model, its facts and its card have the choices of the best trial; all are on file."""
    settings = settings_with(
        preprocessing={"scale": "minmax"},
        training={"search": {"trials": 8, "estimators": QUICK}},
    )
    for name in ("snapshot", "contract", "prepare"):
        stages.STAGES[name](settings)
    said = stages.train(settings)
    trials = json.loads(stages.TRIALS.read_text(encoding="utf-8"))
    facts = json.loads(stages.TRAINING.read_text(encoding="utf-8"))
    complete = [trial for trial in trials if trial["state"] == "complete"]
    best = max(complete, key=lambda trial: trial["value"])
    pipeline, params = load_model(stages.MODEL), best["params"]
    assert "logistic_regression" == params["estimator"] == facts["estimator"]
    assert params["C"] == pipeline.named_steps["estimator"].C
    assert params["C"] == facts["settings"]["training"]["params"]["C"]
    assert params["scale"] == facts["settings"]["preprocessing"]["scale"]
    assert best["value"] == np.mean(best["folds"]) == facts["cross_validation"]["mean"]
    pruned = sum(trial["state"] == "pruned" for trial in trials)
    assert {"trials": 8, "pruned": pruned, "best": best["value"]} == facts["search"]
    assert said.endswith("in cross-validation, best of 8 trials")
    stages.evaluate(settings)
    stages.package(settings)
    card = json.loads((settings.serving.bundle / "card.json").read_text(encoding="utf-8"))
    assert facts["settings"]["training"] == card["settings"]["training"]
    assert "variety" == card["settings"]["data"]["target"]


def test_without_a_search(road):
    """No trials are on file, and the settings stand as they were given."""
    assert [] == json.loads((road.folder / stages.TRIALS).read_text(encoding="utf-8"))
    facts = json.loads((road.folder / stages.TRAINING).read_text(encoding="utf-8"))
    assert facts["search"] is None
    assert road.settings.preprocessing.model_dump(mode="json") == facts["settings"]["preprocessing"]


def test_what_falls_behind_is_given_up(undisturbed):
    """Pruned trials have fewer folds than the others, and no value."""
    pruned = [trial for trial in undisturbed.trials if trial["state"] == "pruned"]
    complete = [trial for trial in undisturbed.trials if trial["state"] == "complete"]
    assert TRIALS == len(pruned) + len(complete)
    assert {None} == {trial["value"] for trial in pruned}
    assert max(len(trial["folds"]) for trial in pruned) < 5
    assert {5} == {len(trial["folds"]) for trial in complete}


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_defaults_come_first(prepared, kind):
    """What is found is at least as good as the estimator that is chosen without a search."""
    names = {"classification": "logistic_regression", "regression": "ridge"}
    *data, settings = prepared(kind, trials=3, estimators=(names[kind], "k_nearest_neighbors"))
    found = search.search(*data, settings)
    plain = training.cross_validate(*data, settings)
    assert plain["folds"] == found.trials[0]["folds"]
    assert found.summary["best"] >= plain["mean"]


def test_interrupted_and_run_again(undisturbed, prepared, monkeypatch, measured):
    """After Ctrl-C the same call goes on, up to the budget, to the same trials."""
    with monkeypatch.context() as patch:
        interrupt(patch, 23)
        with pytest.raises(search.StoppedError, match=r"stopped: \d+ trials are kept in .cache"):
            search.search(*prepared(trials=TRIALS))
    kept = next(Path(".cache/search").glob("*.log")).read_text(encoding="utf-8")
    ended = kept.count('"spent"')
    assert 4 <= ended < TRIALS
    measured.clear()
    assert undisturbed == search.search(*prepared(trials=TRIALS))
    assert len(measured) <= TRIALS - ended


def test_interruption_ends_with_its_own_code():
    """The shell's code for Ctrl-C."""
    assert 130 == search.StoppedError.exit_code


def test_killed_and_run_again(undisturbed, prepared):
    """A killed process leaves what had ended, a torn last line included; the rest is made up."""
    script = (
        "import pickle, sys; from {{ cookiecutter.package }} import search\n"
        "search.search(*pickle.load(sys.stdin.buffer))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as child:
        child.stdin.write(pickle.dumps(prepared(trials=500)))
        child.stdin.close()
        deadline = time.monotonic() + 240
        while child.poll() is None and time.monotonic() < deadline:
            files = list(Path(".cache/search").glob("*.log"))
            if files and files[0].read_bytes().count(b'"spent"') >= 2:
                child.kill()
            time.sleep(0.01)
        assert -signal.SIGKILL == child.wait()
    with files[0].open("ab") as file:
        file.write(b'{"op_code": 4, "worker_id": "torn')
    assert undisturbed == search.search(*prepared(trials=TRIALS))


def test_time_is_spent_once(prepared, measured):
    """A search that used its minutes up adds nothing; with more minutes it goes on."""
    first = search.search(*prepared(minutes=0.01))
    ended = len(measured)
    assert ended >= 1
    assert first == search.search(*prepared(minutes=0.01))
    assert ended == len(measured)
    more = search.search(*prepared(minutes=5, trials=ended + 1))
    assert first.trials == more.trials[: len(first.trials)]
    assert len(more.trials) > len(first.trials)


def test_whichever_ends_first(prepared):
    """Trials end a search that had minutes left."""
    assert 4 == len(search.search(*prepared(trials=4, minutes=5)).trials)


@pytest.mark.parametrize(("budget", "shown"), [({"trials": 4}, "4/4"), ({"minutes": 0.01}, "1/1")])
def test_progress(prepared, monkeypatch, budget, shown):
    """On a terminal the bar has the best value so far and whose it is."""
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    found = search.search(*prepared(**budget))
    said = terminal.getvalue()
    assert shown in said
    best = f"balanced_accuracy {found.summary['best']:.3f}, {found.settings.training.estimator}"
    assert best in said


def test_clusters(prepared):
    """Of a clustering each number of clusters is tried once, the preprocessing stays."""
    *data, settings = prepared("clustering", trials=50)
    found = search.search(*data, settings)
    assert list(range(2, 11)) == sorted(trial["params"]["n_clusters"] for trial in found.trials)
    assert settings.preprocessing == found.settings.preprocessing
    counts = {trial["params"]["n_clusters"]: trial["value"] or 0 for trial in found.trials}
    assert max(counts, key=counts.get) == found.settings.training.params["n_clusters"]


def test_a_large_table_is_searched_by_a_sample(prepared, monkeypatch, measured):
    """The sample has the classes' shares."""
    monkeypatch.setattr(search, "ROWS", 120)
    contract, matrix, target, settings = prepared(trials=1)
    search.search(contract, matrix, target, settings)
    assert 120 == len(measured[0])
    shares = [np.bincount(codes.astype(int)) / len(codes) for codes in (target, measured[0])]
    np.testing.assert_allclose(*shares, atol=0.01)


def test_gaps_are_filled_for_those_that_need_it(prepared):
    """impute: none is where the search starts only for an estimator that takes missing values."""
    contract, matrix, target, settings = prepared(trials=2)
    steps = settings.preprocessing.model_copy(update={"impute": "none"})
    settings = settings.model_copy(update={"preprocessing": steps})
    found = search.search(contract, matrix, target, settings)
    assert ["median", "median"] == [trial["params"]["impute"] for trial in found.trials]


@pytest.mark.parametrize(
    ("kind", "name", "known"),
    [
        ("classification", "ridge", "logistic_regression, k_nearest_neighbors, hist"),
        ("regression", "logistic_regression", "ridge, k_nearest_neighbors, hist"),
        ("clustering", "isolation_forest", "k_means"),
    ],
)
def test_unknown_estimator(prepared, kind, name, known):
    """The message names the estimators that can be searched."""
    message = rf"^training.search.estimators: '{name}' cannot be searched for a {kind}; .* {known}"
    with pytest.raises(search.SettingsError, match=message):
        search.search(*prepared(kind, trials=1, estimators=(name,)))


def test_a_class_of_one_row(prepared):
    """What cannot be compared is not searched."""
    contract, matrix, target, settings = prepared(trials=1)
    kept = np.r_[np.flatnonzero(target != 0), np.flatnonzero(target == 0)[:1]]
    with pytest.raises(search.TrainingError, match="fewer than 2 training rows"):
        search.search(contract, matrix[kept], target[kept], settings)


def test_failed_trials(prepared):
    """A trial that cannot be fitted is noted; only where all are, the search fails."""
    contract, matrix, target, settings = prepared(trials=1, estimators=("k_nearest_neighbors",))
    few = np.r_[tuple(np.flatnonzero(target == code)[:2] for code in range(3))]
    with pytest.raises(search.TrainingError, match="none of 1 trials could be fitted"):
        search.search(contract, matrix[few], target[few], settings)
