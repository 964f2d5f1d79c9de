"""The way of an alarm: a service, Prometheus, Alertmanager, two relays and a stand-in of GitHub."""

import contextlib
import json
import re
import shutil
import subprocess
import time
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlencode

import pytest
import yaml
from conftest import PATIENCE_S, environment, wait_until_answered, wait_until_ready

from scripts.demo import ask, free_port

TOKEN = "between-the-two"
SAMPLE = re.compile(r"^(?P<name>[a-z]\w+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$", re.MULTILINE)
SOW = """
import sys
from dataclasses import replace
from penguins import checks
from penguins.checks import Finding, Look, Model, Window
from penguins.store import opened

address, status = sys.argv[1:]
model, more = Model("Penguins", "0123456789ab"), status == "drift"
found = Finding("body_mass_g", "shape", 0.31, 1e-9, more, 1000, "higher")
loss = Finding("(loss)", "loss", 0.0, 0.5, False, 320, "same", -0.01)
with opened(address) as store:
    with store.reading() as connection:
        known = checks.read(connection, model, "drift", 1)
    drift = Window(model, "drift", "checked", 1000, 1000, alarm=more, confirmed=more)
    drift = replace(drift, findings=(found,))
    checks.write(store, drift, known[-1].id if known else None)
    if not known:
        checks.write(store, Window(model, "performance", "checked", findings=(loss,)), None)
    ended = {"state": "checked", "detail": {"waiting": 3}}
    checks.looked(store, Look(model, status, ended, ended))
"""


def program(*names):
    """Find one of some programs, or skip the test by its name."""
    found = next(filter(None, map(shutil.which, names)), None)
    if not found:
        pytest.skip(f"{names[0]} is not on this machine")
    return found


class Place:
    """A running service of the default project, with a store of its own."""

    def __init__(self, project, folder):
        self.project, self.folder, self.port = project, folder, free_port()
        self.store = f"sqlite:///{folder}/store.db"
        self.environment = environment(
            APP_EVENTS__FOLDER=str(folder / "events"),
            APP_EVENTS__STORE=self.store,
            APP_SERVING__STATE=str(folder / "state"),
            APP_SERVING__PORT=str(self.port),
        )
        self.address = f"http://127.0.0.1:{self.port}"

    def python(self, *words, **extra):
        """Name a command of the project's Python, and where it is to run."""
        command = [self.project / ".venv/bin/python", *words]
        return {"args": command, "cwd": self.project, "env": {**self.environment, **extra}}

    def sow(self, status):
        """Let a monitor find something."""
        subprocess.run(**self.python("-c", SOW, self.store, status), check=True)


@contextlib.contextmanager
def running(**command):
    """Run a program for a while."""
    process = subprocess.Popen(**command)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


class GitHub(ThreadingHTTPServer):
    """A stand-in of GitHub's API, which fails at first."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answering)
        self.statuses, self.asked = [500, 204], []


class Answering(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        status = self.server.statuses[min(len(self.server.asked), 1)]
        self.server.asked.append((time.time(), status, self.path, body))
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def answering():
    """Run the stand-in for a while."""
    with GitHub() as server:
        Thread(target=server.serve_forever, args=(0.05,)).start()
        yield server
        server.shutdown()


def replaced(source, target, *pairs):
    """Write a configuration with other addresses and intervals."""
    text = source.read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    target.write_text(text)


@contextlib.contextmanager
def chain(place, project, folder, github, interval="1s"):
    """Run two relays, Alertmanager and Prometheus as compose does, which looks every 15 s."""
    prometheus, alertmanager, *relays = (free_port() for _ in range(4))
    with contextlib.ExitStack() as exits:
        for port in relays:
            words = ("-m", "penguins", "relay", "--port", str(port))
            known = {
                "RELAY_TOKEN": TOKEN,
                "GITHUB_TOKEN": "token",
                "GITHUB_REPOSITORY": "your-org/penguins",
                "GITHUB_API_URL": f"http://127.0.0.1:{github.server_port}",
            }
            exits.enter_context(running(**place.python(*words, **known)))
            wait_until_answered(f"http://127.0.0.1:{port}/health")
        configured = project / "monitoring"
        (folder / "token").write_text(TOKEN)
        content = yaml.safe_load((configured / "alertmanager.yml").read_text())
        (hook,) = content["receivers"][1]["webhook_configs"]
        assert "http://relay:9095/alerts" == hook["url"]
        hook["http_config"]["authorization"]["credentials_file"] = str(folder / "token")
        hooks = [{**hook, "url": f"http://127.0.0.1:{port}/alerts"} for port in relays]
        content["receivers"][1]["webhook_configs"] = hooks
        (folder / "alertmanager.yml").write_text(yaml.safe_dump(content))
        shutil.copyfile(configured / "alerts.yml", folder / "alerts.yml")
        replaced(
            configured / "prometheus.yml",
            folder / "prometheus.yml",
            ("15s", interval),
            ("api:8000", f"127.0.0.1:{place.port}"),
            ("alertmanager:9093", f"127.0.0.1:{alertmanager}"),
        )
        for name, port, words in (
            ("alertmanager", alertmanager, ["--cluster.listen-address="]),
            ("prometheus", prometheus, []),
        ):
            path = "--storage.path" if words else "--storage.tsdb.path"
            command = [
                program(name, f"prometheus-{name}"),
                f"--config.file={folder / name}.yml",
                f"{path}={folder / name}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=warn",
                *words,
            ]
            exits.enter_context(running(args=command, cwd=folder))
            wait_until_answered(f"http://127.0.0.1:{port}/-/ready")
        yield f"http://127.0.0.1:{prometheus}", f"http://127.0.0.1:{alertmanager}"


def until(what):
    """Wait until something is true; give it back."""
    end = time.monotonic() + PATIENCE_S
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


def series(prometheus, query):
    """Ask Prometheus."""
    answer = ask(f"{prometheus}/api/v1/query?{urlencode({'query': query})}")
    return answer["data"]["result"]


def notified(alertmanager):
    """Count what Alertmanager tried to tell by webhook, and what failed."""
    text = wait_until_answered(f"{alertmanager}/metrics")
    numbers = {
        sample["name"]: float(sample["value"])
        for sample in SAMPLE.finditer(text)
        if 'integration="webhook"' in (sample["labels"] or "")
    }
    kinds = ("notifications_total", "notification_requests_failed_total")
    return tuple(numbers[f"alertmanager_{kind}"] for kind in kinds)


@contextlib.contextmanager
def watched(project, folder):
    """Run a service that was asked once, whose monitor found nothing yet."""
    place = Place(project, folder)
    place.sow("steady")
    with running(**place.python("-m", "penguins", "serve")):
        wait_until_ready(place.address)
        example = json.loads((project / "bundle/examples.json").read_text())[0]
        ask(f"{place.address}/predict", {"rows": [example["row"]]})
        yield place


def raised(place, prometheus, alertmanager, github):
    """Let drift be found; give back the alert and the request that GitHub accepted."""
    until(lambda: series(prometheus, 'model_monitor_state{state="steady"} == 1'))
    assert ([], []) == (github.asked, series(prometheus, 'ALERTS{alertstate="firing"}'))
    place.sow("drift")
    (accepted,) = until(lambda: [asked for asked in github.asked if asked[1] == 204])
    until(lambda: notified(alertmanager) == (2, 1))
    (alert,) = ask(f"{alertmanager}/api/v2/alerts?receiver=retraining")
    return alert, accepted


def delay(alert, accepted):
    """Return the seconds from the alert to the request."""
    return accepted[0] - datetime.fromisoformat(alert["startsAt"]).timestamp()
