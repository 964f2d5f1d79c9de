"""Monitor.yml by act, and what it asks of GitHub: one issue, opened, renewed and closed."""

import http.server
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time

import engine
import pytest
from conftest import KIT, TEMPLATE, environment
from runner import STANDINS, TOOLS

RUN = "https://github.com/zoe/penguins/actions/runs/7"
HEADLINE = "height is higher than in training since 14:05 UTC today; confirmed in 2 checks"
BLIND = "The monitor could not look"
LISTING = ["issue", "list", "--label", "monitoring", "--state", "open", "--limit", "1"]
LISTING += ["--json", "number,title", "--jq", ".[] | [.number, .title] | @tsv"]


class Hub:
    """A folder with a report, in which the script talks to a gh that records."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "reports").mkdir()
        path = f"{STANDINS}{os.pathsep}{os.environ['PATH']}"
        address = {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "zoe/penguins"}
        own = {"PATH": path, "STANDIN_GH": str(folder), "GITHUB_RUN_ID": "7"}
        self.environment = {**environment(), **own, **address}

    def say(self, command, *answers, status="drift", headline=HEADLINE):
        """Run the script after a look; return the calls of gh, and what it was given."""
        facts = {"status": status, "headline": headline}
        (self.folder / "reports/monitoring.json").write_text(json.dumps(facts))
        (self.folder / "reports/monitoring.md").write_text(f"**{headline}.**\n")
        (self.folder / "answers.json").write_text(json.dumps(answers))
        (self.folder / "calls.jsonl").write_text("")
        subprocess.run(
            [TEMPLATE / ".github/monitor.sh", command],
            cwd=self.folder,
            env=self.environment,
            check=True,
        )
        lines = (self.folder / "calls.jsonl").read_text().splitlines()
        calls = map(json.loads, lines)
        return [(each["argv"], each["stdin"]) for each in calls]


@pytest.fixture
def hub(tmp_path):
    """A folder with a report."""
    return Hub(tmp_path)


def opened(title):
    """The answer of gh while there is an issue of this title."""
    return {"call": "^issue list", "out": f"5\t{title}\n"}


BODY = f"**{HEADLINE}.**\n\n[The report]({RUN}) is an artifact of this run.\n"


@pytest.mark.parametrize("status", ["drift", "degraded"])
def test_an_issue_is_opened_once(hub, status):
    """What is confirmed opens an issue with the report; the next look renews it, in silence."""
    label = ["label", "create", "monitoring", "--force", "--color", "d93f0b"]
    create = ["issue", "create", "--title", HEADLINE, "--label", "monitoring", "--body-file", "-"]
    assert [
        (LISTING, None),
        ([*label, "--description", "What the monitor found"], None),
        (create, BODY),
    ] == hub.say("issue", status=status)
    renew = ["issue", "edit", "5", "--title", HEADLINE, "--body-file", "-"]
    calls = hub.say("issue", opened("height is higher"), status=status)
    assert [(LISTING, None), (renew, BODY)] == calls


def test_an_issue_is_closed_when_it_is_over(hub):
    """A look without an alarm closes it, and says why."""
    calm = "No drift in the last 1,000 predictions"
    close = ["issue", "close", "5", "--comment", f"Over: {calm}."]
    calls = hub.say("issue", opened(HEADLINE), status="steady", headline=calm)
    assert [(LISTING, None), (close, None)] == calls


@pytest.mark.parametrize("status", ["steady", "suspected", "waiting"])
def test_no_issue_without_a_reason(hub, status):
    """A suspicion is none, nor are too few events."""
    assert [(LISTING, None)] == hub.say("issue", status=status)


@pytest.mark.parametrize("status", ["suspected", "waiting"])
def test_an_issue_stays_while_nobody_knows(hub, status):
    """Before a new version has enough events, or with one alarm left, the issue stays open."""
    edit = ["issue", "edit", "5", "--body-file", "-"]
    assert [(LISTING, None), (edit, BODY)] == hub.say("issue", opened(HEADLINE), status=status)


def test_a_monitor_that_cannot_look_has_an_issue(hub):
    """It is opened as for drift, and closed by the first look, whatever that finds."""
    create = hub.say("issue", status="failed", headline=BLIND)[-1]
    assert ["issue", "create", "--title", BLIND] == create[0][:4]
    closed = hub.say("issue", opened(BLIND), status="waiting", headline="No predictions yet")[-1]
    assert ["issue", "close", "5", "--comment", "Over: No predictions yet."] == closed[0]


def test_what_was_told_is_known_on_a_new_machine(hub):
    """While that issue is open, nobody is told every hour that the monitor cannot look."""
    memory = hub.folder / ".cache/monitoring/blind.json"
    hub.say("fetch", opened(HEADLINE))
    assert not memory.exists()
    hub.say("fetch", opened(BLIND))
    assert ["webhook", "email"] == json.loads(memory.read_text())


GONE_BACK = {9: "c", 8: "a", 7: "c", 6: "b", 5: "a"}


@pytest.mark.parametrize(
    ("images", "bundles", "found"),
    [
        (GONE_BACK, [9, 7, 5], 9),
        (GONE_BACK, [8, 7, 6, 5], 7),
        (dict.fromkeys(GONE_BACK, "c"), [5], 5),
        (GONE_BACK, [8, 6], None),
        ({}, [8], None),
        ({}, [9], 9),
    ],
    ids=["pushed", "gone back", "far back", "expired", "unknown", "no target"],
)
def test_the_bundle_is_of_what_serves(hub, images, bundles, found):
    """It is the last deployment's; where that went back to an image, that of the image."""
    kept = [(f"{run}/bundle/card.json", {"run": run}) for run in bundles]
    kept += [
        (f"{run}/deployment/deployment.json", {"image": image}) for run, image in images.items()
    ]
    for path, content in kept:
        file = hub.folder / "kept" / path
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(content))
    answers = [
        {"call": "^run list", "out": "".join(f"{run}\n" for run in GONE_BACK)},
        # gh run download RUN --name NAME --dir FOLDER
        {"call": "^run download", "run": 'cp -r "kept/$3/$5/." "$7" 2>/dev/null || kill $PPID'},
    ]
    hub.say("fetch", *answers)
    card = hub.folder / "bundle/card.json"
    assert found == (json.loads(card.read_text())["run"] if card.exists() else None)


def test_no_shell_in_a_headline(hub):
    """A name of a column or category that came from outside is a word, not a command."""
    nasty = "$(touch owned) `touch owned` \"quoted\" 'single' is higher"
    create = hub.say("issue", headline=nasty)[-1]
    assert nasty == create[0][3]
    assert not (hub.folder / "owned").exists()


@pytest.fixture
def api():
    """GitHub's API, as far as retraining is started by it."""

    class Api(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.server.got.append((self.path, body["event_type"], body["client_payload"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api)
    server.got = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def words(line):
    """Read the words of a call of gh."""
    return " ".join(json.loads(line)["argv"])


def fill(project, store, wrong):
    """Put 400 predictions with their truths into a new store; so many are wrong."""
    subprocess.run(
        [project / ".venv/bin/python", "-m", "penguins", "events", "migrate"],
        cwd=project,
        env=environment(APP_EVENTS__STORE=f"sqlite:///{store}"),
        check=True,
    )
    card = json.loads((project / "bundle/card.json").read_text())
    now = time.time() - 600
    said = json.dumps({"prediction": "Adelie", "probabilities": {"Adelie": 1.0}})
    columns = "prediction_id request_id ts model_name model_version role schema_hash features"
    columns = f"{columns} output score latency_ms status".replace(" ", ", ")
    named = (card["name"], card["version"], "champion", "x", '{"island": "Dream"}', said)
    with sqlite3.connect(store) as connection:
        for i in range(400):
            event = (f"{i}", f"r{i}", now + i / 100, *named, 1.0, 1.0, 200)
            connection.execute(
                f"INSERT INTO prediction_event ({columns}) VALUES ({', '.join('?' * 12)})", event
            )
            label = '"Gentoo"' if i < wrong else '"Adelie"'
            truth = (f"{i}", 1, label, now + 300)
            connection.execute(
                "INSERT INTO ground_truth (prediction_id, revision, label, received_at) "
                "VALUES (?, ?, ?, ?)",
                truth,
            )
    connection.close()


@pytest.mark.skipif(not engine.client(), reason="no Docker engine")
@pytest.mark.skipif(not (TOOLS / "act").exists(), reason="no act")
def test_the_workflow(runner, default_project, api, tmp_path):
    """Without a store it is green and says what to set; with errors it tells, and retrains."""
    runner.place(
        "gh", f'#!/bin/sh\nSTANDIN_GH={runner.folder} exec {sys.executable} {STANDINS}/gh "$@"\n'
    )
    calls = runner.folder / "calls.jsonl"
    run = runner.act("monitor.yml", "schedule")
    assert (0, {"monitor": "success"}) == (run.code, run.jobs), run.text[-3000:]
    assert "set the secret EVENTS_STORE of the environment monitoring" in run.text
    assert ["auth token"] == list(map(words, calls.read_text().splitlines()))  # by act itself

    store = tmp_path / "store.db"
    fill(default_project, store, wrong=200)
    runner.change("params.yaml", "confirmations: 2 ", "confirmations: 1 ")
    answers = [
        {"call": "^run list", "out": "7\n"},
        {"call": "^run download", "run": f"cp -r {default_project}/bundle bundle"},
    ]
    (runner.folder / "answers.json").write_text(json.dumps(answers))
    secrets = {"EVENTS_STORE": f"sqlite:///{store}", "GITHUB_TOKEN": "token"}
    there = f"--env=GITHUB_API_URL=http://127.0.0.1:{api.server_port}"
    run = runner.act("monitor.yml", "schedule", there, secrets=secrets)
    assert (0, {"monitor": "success"}) == (run.code, run.jobs), run.text[-5000:]
    version = json.loads((default_project / "bundle/card.json").read_text())["version"]
    kept = json.loads((runner.folder / "artifacts/monitoring/monitoring.json").read_text())
    assert ("degraded", version) == (kept["status"], kept["version"])
    create = json.loads(calls.read_text().splitlines()[-1])
    assert ["issue", "create", "--title", kept["headline"]] == create["argv"][:4]
    assert create["stdin"].startswith("**The model errs more than on the held-out rows: 50")
    ((path, event, payload),) = api.got
    assert ("/repos/Your-Org/Penguins/dispatches", "retrain") == (path, event)
    assert ("degraded", version) == (payload["reason"], payload["version"])

    away = {"EVENTS_STORE": "postgresql://zoe:geheim@127.0.0.1:9/events"}
    shutil.rmtree(runner.folder / "artifacts")
    run = runner.act("monitor.yml", "schedule", there, secrets=away)
    assert ({"monitor": "failure"}, {("monitor", "make monitor")}) == (run.jobs, run.failed)
    create = json.loads(calls.read_text().splitlines()[-1])
    assert ["issue", "create", "--title", BLIND] == create["argv"][:4]
    assert "//zoe:***@" in create["stdin"].replace("\u200b", "")
    assert 1 == len(api.got)


def test_a_viewer_without_a_registry(default_project, tmp_path):
    """What cannot be installed is said in a line, and nothing half-installed is taken for it."""
    code = (
        "from pathlib import Path; from penguins.monitoring import viewers; "
        "viewers.shutil.which = lambda name: None; "
        "viewers._environment(Path('popmon'), viewers.TOOLS['popmon'])"
    )
    run = subprocess.run(
        [default_project / ".venv/bin/python", "-c", code],
        cwd=tmp_path,
        env=environment(PIP_INDEX_URL="http://127.0.0.1:9/", PIP_RETRIES="0", PIP_FIND_LINKS=""),
        capture_output=True,
        text=True,
    )
    said = "cannot install popmon==1.4.12 into popmon, which takes a package registry: ERROR: "
    assert f"ViewerError: {said}" in run.stderr
    assert not (tmp_path / "popmon/installed.txt").exists()


@pytest.mark.parametrize("tool", ["evidently", "popmon"])
def test_a_viewer_is_what_was_measured(tool):
    """RESULTS.md tells of the version that a project installs."""
    source = next(TEMPLATE.glob("src/*/monitoring/viewers.py")).read_text()
    (version,) = re.findall(rf'"{tool}==(\S+)"', source)
    pins = (KIT / f"benchmarks/monitors-{tool}.txt").read_text().splitlines()
    assert f"{tool}=={version}" in pins


@pytest.mark.skipif("VIEWERS" not in os.environ, reason="VIEWERS is not set: takes minutes")
@pytest.mark.parametrize("tool", ["evidently", "popmon"])
def test_a_viewer(default_project, tmp_path, tool):
    """The tool is really installed, and shows a window of the project's own rows."""
    code = f"""
import numpy, pandas
from pathlib import Path
from penguins.monitoring import viewers
tool, folder = viewers.TOOLS[{tool!r}], Path({tool!r})
python = viewers._environment(folder, tool)
rows = pandas.read_parquet({str(default_project / "data/train.parquet")!r})
rows = rows[["island", "body_mass_g", "bill_depth_mm"]]
rows.insert(0, viewers.MOMENT, pandas.date_range("2026-01-01", periods=len(rows), freq="s"))
for name in ("reference", "window"):
    rows.to_parquet(folder / f"{{name}}.parquet", index=False)
data = [folder / "reference.parquet", folder / "window.parquet"]
viewers.run([python, "-c", tool.program, *data, "made.html"], "failed")
"""
    words = [default_project / ".venv/bin/python", "-c", code]
    subprocess.run(words, cwd=tmp_path, env=environment(), check=True)
    assert "body_mass_g" in (tmp_path / "made.html").read_text()
