"""retrain.yml: without secrets, with a reason and too few truths, and what its script tells."""

import json
import os
import re
import shutil
import subprocess

import engine
import pytest
from conftest import TEMPLATE, environment
from runner import STANDINS, TOOLS

SCRIPT = TEMPLATE / ".github/retrain.sh"
# Predictions about the training rows, each a little different, with their truths.
ASKED = """
import json, sys, time
import pandas as pd, sqlalchemy as sa
from penguins import contract, encoding, store
agreed, frame = contract.read("contract.json"), pd.read_parquet("data/train.parquet").head(160)
rows = encoding.plain_rows(agreed, frame.assign(body_mass_g=frame.body_mass_g + 1))
now = time.time()
events, truths = [], []
for i, (row, label) in enumerate(zip(rows, frame.species)):
    events.append({
        "prediction_id": f"p{i}", "request_id": f"p{i}", "ts": now - 1000 + i, "entity_key": None,
        "model_name": "Penguins", "model_version": "x", "role": "champion", "schema_hash": "",
        "features": json.dumps(row), "output": json.dumps({"prediction": label}), "score": 1.0,
        "latency_ms": 1.0, "status": 200,
    })
    truths.append({
        "prediction_id": f"p{i}", "label": json.dumps(label), "observed_at": None, "source": None
    })
with store.opened(sys.argv[1]) as opened:
    with opened.writing() as connection:
        connection.execute(sa.insert(store.prediction_event), events)
    opened.record(truths)
"""
STAND_IN = """#!/usr/bin/env bash
case $* in
  *"setting image.model") echo "$MODEL"; exit ;;
  *"setting serving.source") echo "${SOURCE:-null}"; exit ;;
  *"setting tracking.model") echo a; exit ;;
esac
printf '%s\\n' "$@" >called; echo "a stage ran"; printf '%b' "$SAID"; exit "$CODE"
"""


def retrain(folder, **own):
    """Run the script in a project in which a stand-in trains."""
    for name in (".venv/bin", "src/penguins"):
        (folder / name).mkdir(parents=True)
    (folder / "src/penguins/cli.py").touch()
    python = folder / ".venv/bin/python"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    own |= {"GITHUB_OUTPUT": str(folder / "output"), "GITHUB_STEP_SUMMARY": str(folder / "summary")}
    return subprocess.run(
        [SCRIPT, "run"], cwd=folder, env={**os.environ, **own}, capture_output=True, text=True
    )


@pytest.fixture
def hub(runner, monkeypatch):
    """The default project on a stand-in of GitHub."""
    if not engine.client() or not (TOOLS / "act").exists():
        pytest.skip("no act, or no Docker engine")
    runner.remote = runner.folder / "remote.git"
    runner.git("init", "--quiet", "--bare", str(runner.remote))
    # Act names the repository by the address that is fetched from.
    runner.git("remote", "set-url", "--push", "origin", runner.remote.as_uri())
    (runner.folder / "calls.jsonl").touch()
    private = [{"call": "^api repos/Your-Org/Penguins --jq .private$", "out": "true\n"}]
    (runner.folder / "answers.json").write_text(json.dumps(private))
    monkeypatch.setenv("STANDIN_GH", str(runner.folder))
    monkeypatch.setenv("PATH", f"{STANDINS}{os.pathsep}{os.environ['PATH']}")
    return runner


def calls(folder):
    """List the calls of gh, without those of act itself."""
    lines = map(json.loads, (folder / "calls.jsonl").read_text().splitlines())
    return [" ".join(each["argv"]) for each in lines if each["argv"] != ["auth", "token"]]


@pytest.fixture
def undecided(tmp_path, monkeypatch):
    """The script in a repository with new rows, about which a person has to decide."""
    repository, remote = tmp_path / "repository", tmp_path / "remote.git"
    for name in (".venv/bin", "src/penguins", "data/feedback"):
        (repository / name).mkdir(parents=True)
    (repository / "src/penguins/cli.py").touch()
    python = repository / ".venv/bin/python"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    for name in ("dvc.lock", "contract.json"):
        (repository / name).write_text("before\n")
    own = {"SAID": "error: version 2 waits for a person\ncheck  x\n", "CODE": "13"}
    for name, value in {**own, "STANDIN_GH": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{STANDINS}{os.pathsep}{os.environ['PATH']}")

    def run(*words):
        subprocess.run(words, cwd=repository, check=True, capture_output=True)

    run("git", "init", "--quiet", "--initial-branch=main")
    run("git", "init", "--quiet", "--bare", str(remote))
    run("git", "remote", "add", "origin", remote.as_uri())
    run("git", "add", "dvc.lock", "contract.json")
    run("git", "-c", "user.name=x", "-c", "user.email=x@x.example", "commit", "--quiet", "-m", "x")

    def propose(model, private, rows=True):
        """Run both steps, on two machines as it were; say what GitHub was asked last."""
        monkeypatch.setenv("MODEL", model)
        monkeypatch.setenv("PRIVATE", private)
        if rows:
            (repository / "data/feedback/rows.parquet").write_bytes(b"zoe@mail.example\0")
            (repository / "dvc.lock").write_text("after\n")
        run(SCRIPT, "run")
        shutil.move(repository / "proposal", tmp_path)
        run("git", "reset", "--quiet", "--hard")
        run("git", "clean", "--quiet", "--force", "-d", "data")
        run(SCRIPT, "propose", str(tmp_path / "proposal"))
        return json.loads((tmp_path / "calls.jsonl").read_text().splitlines()[-1])

    return propose


def test_without_secrets(hub):
    """A project that has no store of events yet is told so, and stays green."""
    run = hub.act("retrain.yml", "schedule")
    assert (0, {"retrain": "success"}) == (run.code, run.jobs), run.text
    assert "set the secrets EVENTS_STORE (of the environment monitoring)" in run.text
    assert [] == run.trace


def test_too_few_truths_become_a_pull_request(hub, default_project):
    """The rows and the record of the pipeline wait in one pull request, with the gate's table."""
    events = f"sqlite:///{hub.folder}/events.db"
    models = f"sqlite:///{shutil.copy(default_project / 'mlflow.db', hub.folder)}"
    python = [default_project / ".venv/bin/python"]
    variables = environment(
        MLFLOW_TRACKING_URI=models, PYTHONPATH=str(default_project / "src"), STANDIN_GH=hub.folder
    )
    for words in (["-c", ASKED, events], ["-m", "penguins", "promote"]):
        subprocess.run([*python, *words], cwd=default_project, env=variables, check=True)
    shutil.copy(default_project / "contract.json", hub.repository)
    hub.change("params.yaml", "estimator: auto", "estimator: random_forest")
    main = hub.git("rev-parse", "HEAD")
    secrets = {"EVENTS_STORE": events, "MLFLOW_TRACKING_URI": models}
    run = hub.act("retrain.yml", "workflow_dispatch", secrets=secrets, inputs={"why": "by hand"})
    assert (0, {"retrain": "success", "propose": "success"}) == (run.code, run.jobs), run.text
    # Rows that are like one of the training are not counted.
    assert re.search(r"waits for a person: \d\d truths, 300 are needed", run.text)
    assert {"reports", "proposal"} == {
        call["inputs"]["name"] for call in run.trace if call["action"] == "upload-artifact"
    }
    branch = ["--git-dir", str(hub.remote)]
    assert main == hub.git(*branch, "rev-parse", "retrain^")
    changed = hub.git(*branch, "diff", "--name-only", main, "retrain").split()
    assert ["data/feedback/rows.parquet", "dvc.lock"] == changed
    made = calls(hub.folder)
    assert ["api repos", "auth setup-git", "pr list"] == [made[0][:9], made[1], made[2][:7]]
    assert made[3].startswith("pr create --head retrain --base main")
    assert 4 == len(made)
    body = json.loads((hub.folder / "calls.jsonl").read_text().splitlines()[-1])["stdin"]
    assert body.startswith("Merge to train on these rows, close to leave")
    assert "balanced_accuracy" in body


@pytest.mark.parametrize("found", ["", "7\n"], ids=["new", "open"])
def test_a_public_repository_gets_no_rows(undecided, tmp_path, found):
    """An issue says how a person decides; artifact and branch have nothing that a client sent."""
    answers = [{"call": "^issue list", "out": found}]
    (tmp_path / "answers.json").write_text(json.dumps(answers))
    asked = undecided("train", "false")
    assert ["body.md"] == [each.name for each in (tmp_path / "proposal").iterdir()]
    assert not any((tmp_path / "remote.git/refs/heads").iterdir())
    assert ["issue", *(["edit", "7"] if found else ["create"])] == asked["argv"][
        : 3 if found else 2
    ]
    assert "    .venv/bin/python -m penguins retrain --force --why" in asked["stdin"]
    assert "    .venv/bin/python -m penguins promote\n" in asked["stdin"]
    assert "(`image.model: train`) never holds that model" in asked["stdin"]
    assert "<pre>\nerror: version 2 waits for a person\ncheck  x\n</pre>" in asked["stdin"]


def test_a_refused_pull_request(undecided, tmp_path):
    """Where workflows may open none, an issue says so and asks for it: the rows wait for nobody."""
    refusal = {"call": "^pr create", "code": 1, "err": "GitHub Actions is not permitted to\n"}
    (tmp_path / "answers.json").write_text(json.dumps([refusal]))
    asked = undecided("train", "true")
    assert ["issue", "create"] == asked["argv"][:2]
    first, _, body = asked["stdin"].split("\n", 2)
    assert first.startswith("GitHub opens no pull request for the branch `retrain`: `make github`")
    assert body.startswith("Merge to train on these rows")
    assert (tmp_path / "remote.git/refs/heads/retrain").exists()


def test_without_an_answer_a_repository_is_public(undecided, tmp_path):
    """Where nobody says that it is private, no row leaves."""
    assert "issue" == undecided("models:/a@champion", "")["argv"][0]
    assert not (tmp_path / "proposal/retrain.patch").exists()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("train", "Merge to train on these rows, close to leave the champion as it is.\n<pre>"),
        ("models:/a@champion", "Merging lets nothing serve, as the image holds models:/a@champion"),
    ],
    ids=["train", "models"],
)
def test_what_merging_does_is_said(undecided, tmp_path, model, words):
    """In a private repository the rows are proposed; what a merge does with them depends."""
    asked = undecided(model, "true")
    assert ["pr", "create"] == asked["argv"][:2]
    assert asked["stdin"].startswith(words)
    assert ("penguins promote" in asked["stdin"]) is (model != "train")
    assert (tmp_path / "remote.git/refs/heads/retrain").exists()


@pytest.mark.parametrize(
    ("code", "said", "model", "told"),
    [
        (0, "retrain   nothing: nothing wants it\\n", "train", "outcome=nothing\n"),
        (0, "retrain   promoted: drift\\ncheck  x\\n", "train", "outcome=promoted\n"),
        (
            0,
            "retrain   promoted: drift\\n",
            "models:/a@champion",
            "outcome=promoted\ndeploy=true\n",
        ),
        (0, "retrain   rolled back: v\\n", "models:/a/1", "outcome=rolled back\ndeploy=true\n"),
        (10, "error: version 2 is refused\\ncheck  x\\n", "models:/a/1", "outcome=refused\n"),
        (6, "error: a stage failed\\n", "train", None),
    ],
    ids=["nothing", "promoted", "image", "rolled back", "refused", "failed"],
)
def test_what_the_script_tells(tmp_path, code, said, model, told):
    """Refusals are green, failures are red; only an image that holds the champion is built."""
    output, summary = tmp_path / "output", tmp_path / "summary"
    run = retrain(tmp_path, CODE=str(code), SAID=said, MODEL=model, WHY="a $(touch x) reason")
    words = ["-m", "penguins", "retrain", "--why", "a $(touch x) reason"]
    assert words == (tmp_path / "called").read_text().splitlines()
    if told is None:
        assert (code, False, False) == (run.returncode, output.exists(), summary.exists())
        return
    assert (0, told) == (run.returncode, output.read_text())
    outcome = told.split("\n")[0].partition("=")[2]
    last = said.replace("\\n", "\n")
    assert f"### Retraining: {outcome}\n<pre>\n{last}</pre>\n" == summary.read_text()


@pytest.mark.parametrize(
    ("outcome", "model", "source", "warned"),
    [
        ("promoted", "train", "null", True),
        ("rolled back", "train", "null", True),
        ("promoted", "train", "models:/a@champion", False),
        ("promoted", "models:/a@champion", "null", False),
        ("nothing", "train", "null", False),
        ("shadow", "train", "null", False),
    ],
)
def test_who_deploys_nothing_is_told(tmp_path, outcome, model, source, warned):
    """A champion that reaches no service is a warning, which names what to set."""
    said = f"retrain   {outcome}: a reason\\n"
    run = retrain(tmp_path, CODE="0", SAID=said, MODEL=model, SOURCE=source)
    warning = "nothing is deployed: set image.model in params.yaml to models:/a@champion, or"
    assert (0, warned) == (
        run.returncode,
        f"::warning::The champion is another one, and {warning}" in run.stdout,
    )


def test_a_challenger_that_waited_too_long_is_an_issue(undecided, tmp_path):
    """Nothing was trained, so there is nothing to merge, and nothing to train again."""
    asked = undecided("train", "true", rows=False)
    assert ["issue", "create"] == asked["argv"][:2]
    assert ["body.md"] == [each.name for each in (tmp_path / "proposal").iterdir()]
    assert "    .venv/bin/python -m penguins promote\n" in asked["stdin"]
    assert "retrain --force" not in asked["stdin"]
    assert "version 2 waits for a person" in asked["stdin"]


@pytest.mark.parametrize("workflow", ["deploy.yml", "main.yml"])
def test_the_image_is_built_by_what_the_project_has(tmp_path, workflow):
    """The new champion is deployed as a push to main would be."""
    (tmp_path / ".github/workflows").mkdir(parents=True)
    (tmp_path / ".github/workflows" / workflow).touch()
    path = f"{STANDINS}{os.pathsep}{os.environ['PATH']}"
    own = {"PATH": path, "STANDIN_GH": str(tmp_path)}
    subprocess.run([SCRIPT, "deploy"], cwd=tmp_path, env={**os.environ, **own}, check=True)
    assert [f"workflow run {workflow} --ref main"] == calls(tmp_path)
