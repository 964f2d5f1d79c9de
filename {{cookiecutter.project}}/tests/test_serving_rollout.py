import json
import time

import pytest
from fastapi.testclient import TestClient

from {{ cookiecutter.package }} import events
from {{ cookiecutter.package }}.serving import shadow
from {{ cookiecutter.package }}.serving.app import create_app


@pytest.fixture(name="service")
def service_fixture(road, weak_road, tmp_path):
    """A service with a challenger, that of the weak road or another one, and its event log."""

    def build(challenger=weak_road.settings.serving.bundle, hot=True, **serving):
        own = {"challenger": str(challenger), "state": tmp_path / "state", **serving}
        section = road.settings.serving.model_copy(update=own)
        log = road.settings.events.model_copy(update={"folder": tmp_path / "events"})
        settings = road.settings.model_copy(update={"serving": section, "events": log})
        return TestClient(create_app(settings, hot=hot))

    return build


def kept(folder):
    """The events that are in a log."""
    return [event for path in events.segments(folder) for event, _ in events.read(path)]


def versions(client, road, count):
    """Which version answered each of some requests."""
    row = road.predictor.examples[0]["row"]
    body, names = {"rows": [row]}, [{"x-request-id": f"order-{i}"} for i in range(count)]
    answers = [client.post("/predict", json=body, headers=name).json() for name in names]
    return [answer["model"]["version"] for answer in answers]


@pytest.mark.parametrize("hot", [True, False], ids=["hot", "ordinary"])
def test_a_canary_answers_its_share(service, road, weak_road, tmp_path, hot):
    """The challenger answers about its share; a request id has the same version each time."""
    client = service(canary=0.3, hot=hot)
    champion, challenger = (each.predictor.card["version"] for each in (road, weak_road))
    found = versions(client, road, 200)
    assert {champion, challenger} == set(found)
    assert 35 < found.count(challenger) < 85
    assert found == versions(client, road, 200)
    roles = {event.version: event.role for event in kept(tmp_path / "events")}
    assert {champion: "champion", challenger: "canary"} == roles
    told = client.get("/metrics").text
    assert f'role="canary",version="{challenger}"' in told


def test_a_canary_that_would_refuse_clients_answers_nobody(service, road, caplog):
    """A challenger whose contract takes less is left aside, and the log says why."""
    client = service(canary=1.0)
    narrow = client.app.state.rollout.challenger.served.predictor.contract
    column = next(each for each in narrow.features if each.name == "bed")
    object.__setattr__(column, "nullable", False)
    assert {road.predictor.card["version"]} == set(versions(client, road, 5))
    assert "answers no requests: 'bed' may no longer be missing" in caplog.text


def test_a_shadow_answers_beside(service, road, weak_road, tmp_path):
    """The client hears the champion; what the challenger says is an event of the same id."""
    with service() as client:
        counted = client.app.state.metrics.exposition
        champion, challenger = (each.predictor.card["version"] for each in (road, weak_road))
        assert {champion} == set(versions(client, road, 20))
    found = kept(tmp_path / "events")
    pairs = {role: {e.base: e for e in found if e.role == role} for role in ("champion", "shadow")}
    assert 20 == len(pairs["champion"])
    for role in pairs:
        assert 'model_predictions_total{role="' + role + '"} 20.0' in counted().decode()
    assert pairs["champion"].keys() == pairs["shadow"].keys()
    row = road.predictor.examples[0]["row"]
    (expected,) = weak_road.predictor.predict([row])
    for base, event in pairs["shadow"].items():
        assert challenger == event.version
        assert pairs["champion"][base].body == event.body
        answer = json.loads(event.answer)["predictions"][0]
        assert pytest.approx(expected.probabilities) == answer["probabilities"]


def test_a_slow_shadow_is_passed_over(service, road, tmp_path, monkeypatch):
    """What it has no time for is counted, and keeps no client waiting."""
    monkeypatch.setattr(shadow, "MOST_WAITING", 2)
    answered = shadow.predict
    monkeypatch.setattr(shadow, "predict", lambda *given: time.sleep(0.3) or answered(*given))
    with service() as client:
        versions(client, road, 12)
        told = client.get("/metrics").text
    (line,) = (each for each in told.splitlines() if each.startswith("prediction_shadow_dropped_t"))
    shadows = [event for event in kept(tmp_path / "events") if event.role == "shadow"]
    assert 0 < float(line.split()[1]) == 12 - len(shadows)


def test_a_challenger_may_be_missing(service, road, tmp_path):
    """Without it the champion answers all."""
    client = service(challenger=tmp_path / "nothing", canary=1.0)
    assert {road.predictor.card["version"]} == set(versions(client, road, 3))
