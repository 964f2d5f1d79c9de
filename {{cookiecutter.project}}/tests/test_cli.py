import json
import subprocess
import sys

import pandas as pd
import pytest
import yaml

from {{ cookiecutter.package }} import cli
from {{ cookiecutter.package }}.events import EventLog
from {{ cookiecutter.package }}.stages import STAGES

SECTIONS = {
    "project": {"name": "Garden"},
    "data": {"source": "garden.csv", "target": "variety"},
    "evaluation": {"importance_repeats": 1},
}


@pytest.fixture
def params(folder):
    """A folder with a source and settings."""
    (folder / "params.yaml").write_text(yaml.safe_dump(SECTIONS), encoding="utf-8")
    return folder


@pytest.fixture
def run(monkeypatch, capsys):
    """Call the command line; give back exit code, output and error output."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["garden", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return ended.value.code or 0, said.out, said.err

    return call


def test_stage_by_stage_and_all_at_once(params, run):
    """The stages one by one make the same bundle as the pipeline."""
    for stage in list(STAGES)[:-2]:
        code, out, _ = run(stage)
        assert (0, stage) == (code, out.split()[0])
    single = (params / "bundle" / "contract.json").read_bytes()
    code, out, _ = run("pipeline")
    assert 0 == code
    said = [line.split()[0] for line in out.splitlines() if not line.startswith(" ")]
    assert list(STAGES) == said
    assert single == (params / "bundle" / "contract.json").read_bytes()
    assert 0 == run("contract", "--accept")[0]


def test_score(road, params, run, monkeypatch):
    """A file is scored with the bundle that the settings name."""
    monkeypatch.setenv("APP_SERVING__BUNDLE", str(road.settings.serving.bundle))
    code, out, _ = run("score", "--in", "garden.csv", "--out", "out/answers.csv")
    version = road.predictor.card["version"]
    assert 0 == code
    assert out.startswith(f"240 predictions of version {version} in out/answers.csv, ")
    assert out.endswith(" rows/s\n")
    assert 240 == len(pd.read_csv(params / "out" / "answers.csv"))


@pytest.mark.parametrize(
    ("variable", "code", "message"),
    [
        ("APP_TRAINING__FOLDS=x", 3, "params.yaml: training.folds: "),
        ("APP_DATA__SOURCE=absent.csv", 4, "absent.csv not found; "),
        ("APP_DATA__TARGET=absent", 5, "data.target: no column 'absent' in garden.csv"),
        ('APP_TRAINING__PARAMS={"C": -1}', 6, "LogisticRegression cannot be fitted: "),
    ],
)
def test_errors_are_one_line_and_an_exit_code(params, run, monkeypatch, variable, code, message):
    """Each family of errors has its exit code; no traceback is shown."""
    monkeypatch.setenv(*variable.split("=", 1))
    ended, _, err = run("pipeline")
    assert code == ended
    assert err.splitlines()[-1].startswith(f"error: {message}")
    assert not (params / "bundle").exists()


def test_score_without_a_bundle(params, run):
    """Scoring before training says what to do."""
    code, _, err = run("score", "--in", "garden.csv", "--out", "answers.csv")
    assert (7, "error: no bundle in bundle: run `make pipeline`, or set serving.bundle\n") == (
        code,
        err,
    )
    assert not (params / "answers.csv").exists()


def test_events(params, run, monkeypatch, made_event):
    """Events are ingested, exported and deleted by command, where the settings say."""
    monkeypatch.setenv("APP_EVENTS__RETENTION_DAYS", "0")
    log = EventLog("events")
    log.append([made_event(number, rows=2) for number in range(3)])
    log.close()
    revision = (0, "the tables of the store are of revision 0002\n", "")
    assert revision == run("events", "migrate")
    assert (0, "3 events ingested\n", "") == run("events", "ingest")
    exported = (0, "6 predictions in out.parquet\n", "")
    assert exported == run("events", "export", "--out", "out.parquet")
    assert 6 == len(pd.read_parquet(params / "out.parquet"))
    kept = (0, "0 predictions deleted; events.retention_days is 0\n", "")
    assert kept == run("events", "prune")
    monkeypatch.setenv("APP_EVENTS__RETENTION_DAYS", "7")
    gone = (0, "6 predictions deleted; events.retention_days is 7\n", "")
    assert gone == run("events", "prune")
    code, _, err = run("events", "export", "--out", "out.parquet", "--since", "x")
    assert (11, True) == (code, err.startswith("error: --since: 'x' is no moment; expected ISO"))


def test_what_is_known_of_an_entity_is_erased(params, run, monkeypatch, made_event):
    """Also what still waits in the log; the entity itself is nowhere in the store."""
    monkeypatch.setenv("APP_EVENTS__RETENTION_DAYS", "0")
    code, _, err = run("events", "erase", "--entity", "Ada")
    assert (3, True) == (code, err.startswith("error: events.entity is null: name the column"))
    monkeypatch.setenv("APP_EVENTS__ENTITY", "who")
    log = EventLog("events")
    bodies = [json.dumps({"rows": [{"who": who, "leaves": 1}]}) for who in ("Ada", "Bob", "Ada")]
    log.append([made_event(number, body=body.encode()) for number, body in enumerate(bodies)])
    log.close()
    assert (0, "2 predictions deleted\n", "") == run("events", "erase", "--entity", "Ada")
    assert b"Bob" not in (params / "events/store.db").read_bytes()
    assert (0, "1 predictions deleted\n", "") == run("events", "erase", "--entity", "Bob")


def test_help_is_instant_because_it_imports_nothing():
    """Help lists the commands without importing what only the commands need."""
    heavy = ["numpy", "pandas", "sklearn", "fastapi", "pydantic", "matplotlib", "sqlalchemy"]
    code = (
        "import sys; from {{ cookiecutter.package }} import cli; "
        f"sys.exit(str([name for name in {heavy} if name in sys.modules] or 0))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert "0\n" == found.stderr
    shown = subprocess.run(
        [sys.executable, "-m", "{{ cookiecutter.package }}", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    for command in ("pipeline", "score", "serve", "train"):
        assert f"\n  {command} " in shown.stdout
