import json
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from starlette.testclient import TestClient

from {{ cookiecutter.package }} import checks, dispatch, relay
from {{ cookiecutter.package }}.dispatch import Repository
from {{ cookiecutter.package }}.errors import DispatchError, SettingsError
from {{ cookiecutter.package }}.store import opened

KEY = "retrain Garden 0123456789ab after 0.000000"
FIRING = {"status": "firing", "alerts": [{"labels": {"alertname": "ModelDrift"}}]}


class GitHub(ThreadingHTTPServer):
    """A stand-in of GitHub's API: keeps what it is asked, and answers as told."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answering)
        self.asked, self.status = [], 204
        self.repository = Repository("zoe/garden", "secret", f"http://127.0.0.1:{self.server_port}")


class Answering(BaseHTTPRequestHandler):
    def do_POST(self):  # pylint: disable=invalid-name
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append((self.path, self.headers["authorization"], body))
        self.send_response(self.server.status)
        self.send_header("content-length", "0" if self.server.status == 204 else "3")
        self.end_headers()
        self.wfile.write(b"" if self.server.status == 204 else b"no!")

    def log_message(self, *_):
        pass


@pytest.fixture
def github():
    with GitHub() as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def settings(settings_with, address):
    return settings_with(events={"store": address})


def claims(settings):
    with opened(settings.events.store) as store, store.reading() as connection:
        return [each["key"] for each in checks.actions(connection, "dispatch", 100)]


@pytest.mark.parametrize("status", ["waiting", "steady", "suspected"])
def test_without_a_confirmed_reason_nothing_is_started(settings, github, judge, status):
    """A suspicion is no reason; neither is a model that nobody looked at."""
    unseen = dispatch.dispatch(settings, github.repository)
    judge(status)
    done = dispatch.dispatch(settings, github.repository)
    assert [False, False] == [unseen.started, done.started]
    assert "nothing to do: the model is never looked at" == unseen.told
    assert f"nothing to do: the model is {status}" == done.told
    assert [[], []] == [github.asked, claims(settings)]


@pytest.mark.parametrize(
    ("status", "why"),
    [("drift", "leaves higher by 0.4"), ("degraded", "(loss) higher by 0.1")],
)
def test_a_confirmed_reason_is_told_to_github_once(settings, github, judge, status, why):
    """One POST says why, of which version, and which window shows it; then there is a pause."""
    window = judge(status)
    done = dispatch.dispatch(settings, github.repository)
    why = f"{status} of version 0123456789ab: {why}"
    payload = {
        "reason": status,
        "why": why,
        "model": "Garden",
        "version": "0123456789ab",
        "windows": [window],
        "key": KEY,
    }
    body = {"event_type": "retrain", "client_payload": payload}
    assert [("/repos/zoe/garden/dispatches", "Bearer secret", body)] == github.asked
    assert (True, f"retraining started in zoe/garden: {why}") == (done.started, done.told)
    again = dispatch.dispatch(settings, github.repository)
    assert (False, 1) == (again.started, len(github.asked))
    assert f"{status}, but a retraining was started of late: the next in 24.0 h" in again.told


def test_after_the_cooldown_it_is_started_again(settings, github, judge, monkeypatch):
    """While the reason lasts, retraining is started once a cooldown, each time under a new key."""
    judge("drift")
    now = time.time()
    found = []
    for hours in (0, 23.9, 24.1, 47, 49):
        monkeypatch.setattr(dispatch.time, "time", lambda hours=hours: now + hours * 3600)
        found.append(dispatch.dispatch(settings, github.repository).started)
    assert [True, False, True, False, True] == found
    assert 3 == len(set(claims(settings)))


def test_a_retraining_by_hand_counts(settings, github, judge):
    """One that was started in another way is followed by the same pause."""
    judge("drift")
    with opened(settings.events.store) as store:
        checks.claim(store, "by hand", "retrain", {})
    assert not dispatch.dispatch(settings, github.repository).started
    assert [] == github.asked


def test_many_at_once_start_it_once(settings, github, judge):
    """Of several processes that see the same drift, one starts the retraining."""
    judge("drift")
    with ThreadPoolExecutor(8) as threads:
        calls = [threads.submit(dispatch.dispatch, settings, github.repository) for _ in range(8)]
    assert [False] * 7 + [True] == sorted(call.result().started for call in calls)
    assert 1 == len(github.asked)


def test_a_refusal_gives_the_claim_back(settings, github, judge):
    """GitHub's words are told; the next attempt is the same retraining, of the same key."""
    judge("drift")
    github.status = 403
    with pytest.raises(DispatchError, match=r"/repos/zoe/garden/dispatches answers 403: no!; GITH"):
        dispatch.dispatch(settings, github.repository)
    assert [] == claims(settings)
    github.status = 204
    assert dispatch.dispatch(settings, github.repository).started
    assert [KEY, KEY] == [body["client_payload"]["key"] for _, _, body in github.asked]


def test_without_an_answer_the_claim_is_given_back(settings, github, judge):
    """Nobody at the address is an error of one line, too."""
    judge("drift")
    github.server_close()
    with pytest.raises(DispatchError, match="does not answer: "):
        dispatch.dispatch(settings, github.repository)
    assert [] == claims(settings)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("GITHUB_REPOSITORY", "", "GITHUB_REPOSITORY: expected owner/name, not ''"),
        ("GITHUB_REPOSITORY", "a/b/../c", "GITHUB_REPOSITORY: expected owner/name, not 'a/b/../c'"),
        ("GITHUB_TOKEN", " ", "GITHUB_TOKEN is not set"),
        ("GITHUB_API_URL", "file:///etc", "GITHUB_API_URL: expected an address such as https://"),
    ],
)
def test_the_environment_names_the_repository(monkeypatch, name, value, said):
    """What is missing or wrong is named; the address has GitHub's as its default."""
    monkeypatch.setenv("GITHUB_REPOSITORY", "zoe/garden")
    monkeypatch.setenv("GITHUB_TOKEN", "secret")
    monkeypatch.delenv("GITHUB_API_URL", raising=False)
    assert Repository("zoe/garden", "secret", dispatch.API) == Repository.from_environment()
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^{said}"):
        Repository.from_environment()


@pytest.fixture
def client(settings, github):
    with TestClient(relay.create_app(settings, github.repository, "word")) as client:
        client.headers["authorization"] = "Bearer word"
        yield client


def test_the_relay_starts_it_once(client, github, judge):
    """The first alert does, its repetition not; what is over, or alarmed in vain, neither."""
    vain = client.post("/alerts", json=FIRING)
    judge("drift")
    over = client.post("/alerts", json={**FIRING, "status": "resolved"})
    answers = [client.post("/alerts", json=FIRING) for _ in range(3)]
    told = [(answer.status_code, answer.json()["started"]) for answer in (vain, over, *answers)]
    assert [(200, False), (200, False), (200, True), (200, False), (200, False)] == told
    assert 1 == len(github.asked)


def test_several_alerts_at_two_relays_start_it_once(client, settings, github, judge):
    """Wherever they arrive at the same time, there is one retraining."""
    judge("drift")
    with TestClient(relay.create_app(settings, github.repository, "word")) as other:
        other.headers["authorization"] = "Bearer word"
        with ThreadPoolExecutor(6) as threads:
            clients = [client, other] * 3
            calls = [threads.submit(each.post, "/alerts", json=FIRING) for each in clients]
    assert [False] * 5 + [True] == sorted(call.result().json()["started"] for call in calls)
    assert 1 == len(github.asked)


def test_the_relay_asks_for_its_token(client, github, judge):
    """Whoever does not show it is refused, and starts nothing."""
    judge("drift")
    for header in ("", "Bearer", "Bearer wörd".encode(), "Basic word"):
        answer = client.post("/alerts", json=FIRING, headers={"authorization": header})
        assert 401 == answer.status_code
    assert [] == github.asked


@pytest.mark.parametrize("body", [b"", b"[]", b'{"status": 7}', b"\xff"])
def test_the_relay_refuses_what_is_no_alert(client, github, judge, body):
    """Neither JSON of another kind nor none at all starts anything."""
    judge("drift")
    assert 400 == client.post("/alerts", content=body).status_code
    assert 413 == client.post("/alerts", content=b" " * 1_000_001).status_code
    assert [] == github.asked


def test_the_relay_has_alertmanager_try_again(client, github, judge):
    """Where GitHub fails the answer is 502, and the next attempt starts the retraining."""
    judge("drift")
    github.status = 500
    failed = client.post("/alerts", json=FIRING)
    assert (502, True) == (failed.status_code, "answers 500: no!" in failed.json()["error"])
    github.status = 204
    assert client.post("/alerts", json=FIRING).json()["started"]
    assert {"status": "ok"} == client.get("/health").json()


def test_the_relay_needs_a_token_of_its_own(settings, monkeypatch):
    """Without one it does not start."""
    monkeypatch.delenv("RELAY_TOKEN", raising=False)
    with pytest.raises(SettingsError, match="RELAY_TOKEN is not set"):
        relay.serve(settings, "127.0.0.1", 0)
