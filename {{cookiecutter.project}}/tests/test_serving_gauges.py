import logging
from threading import Event
from typing import get_args

import pytest
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from {{ cookiecutter.package }} import checks
from {{ cookiecutter.package }}.errors import StoreError
from {{ cookiecutter.package }}.serving import gauges
from {{ cookiecutter.package }}.serving.app import create_app
from {{ cookiecutter.package }}.serving.gauges import Gauges, Known
from {{ cookiecutter.package }}.store import opened

UP = ("model_monitor_store_up",)


@pytest.fixture(name="scrape")
def scrape_fixture(address, monkeypatch):
    """The function that collects once more, and gives all numbers by name and labels."""
    monkeypatch.setattr(gauges, "PATIENCE_SECONDS", 30)
    registry = CollectorRegistry()
    registry.register(Gauges(address))

    def numbers():
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(generate_latest(registry).decode())
            for sample in family.samples
        }

    return numbers


def test_what_the_monitor_found_is_told(scrape, judge, address):
    """Each finding has its gauge; a state is 1, the others 0; labels are columns and kinds."""
    for status in ("drift", "steady", "drift", "drift"):
        judge(status)
    with opened(address) as store, store.reading() as connection:
        moment = checks.last_look(connection).ts
    states = dict.fromkeys(gauges.STATES, 0) | {"drift": 1}
    assert {
        UP: 1,
        **{("model_monitor_state", state): told for state, told in states.items()},
        ("model_monitor_last_success_timestamp_seconds",): moment,
        ("model_monitor_events", "waiting"): 7,
        ("model_monitor_events", "late"): 2,
        ("model_monitor_events", "future"): 0,
        ("model_monitor_events", "skipped"): 0,
        ("model_drift_score", "leaves", "shape"): 0.4,
        ("model_drift_score", "bed", "unseen"): 0,
        ("model_drift_consecutive_alarms",): 2,
        ("model_drift_untested_columns",): 1,
        ("model_loss_labelled_events",): 320,
        ("model_truths_import_unknown",): 0,
        ("model_loss_excess_lower_bound",): 0.05,
    } == scrape()


def test_before_any_monitor_nothing_is_claimed(scrape):
    """Without a look no state is 1, and the last success is never."""
    told = scrape()
    assert 1 == told[UP]
    assert {0} == {told["model_monitor_state", state] for state in gauges.STATES}
    assert 0 == told["model_monitor_last_success_timestamp_seconds",]


def test_truths_of_unknown_predictions_are_told(scrape, address):
    """Those of the last import, whether a monitor ever looked or not."""
    with opened(address) as store:
        for number, unknown in enumerate((7, 3)):
            detail = {"rows": 10, "unknown": unknown}
            checks.claim(store, f"import {number}", checks.IMPORT, detail)
    assert 3 == scrape()["model_truths_import_unknown",]


def test_states_are_those_of_the_monitor():
    """What a look may say has its series."""
    assert get_args(checks.Status) == gauges.STATES


def test_many_scrapes_are_one_reading(scrape, monkeypatch):
    """Within some seconds the store is asked once."""
    asked = []
    monkeypatch.setattr(gauges, "read", lambda address: asked.append(address) or Known("steady"))
    for _ in range(10):
        told = scrape()
    assert 1 == told["model_monitor_state", "steady"]
    assert 1 == len(asked)


@pytest.fixture
def always(monkeypatch):
    """Every scrape asks the store again."""
    monkeypatch.setattr(gauges, "FRESH_SECONDS", 0)


@pytest.mark.usefixtures("always")
def test_a_store_that_fails_is_told(scrape, monkeypatch, caplog):
    """What was known before is told on, the failure once in the log; then all is well again."""

    def fail(_):
        raise StoreError("events.store: away")

    answers = [lambda _: Known("drift", 5.0), fail, fail, lambda _: Known("steady", 6.0)]
    found = []
    for answer in answers:
        monkeypatch.setattr(gauges, "read", answer)
        with caplog.at_level(logging.WARNING):
            told = scrape()
        state = next(each for each in gauges.STATES if told["model_monitor_state", each])
        moment = told["model_monitor_last_success_timestamp_seconds",]
        found.append((told[UP], state, moment))
    assert [(1, "drift", 5), (0, "drift", 5), (0, "drift", 5), (1, "steady", 6)] == found
    assert ["what the monitor found is not told: events.store: away"] == caplog.messages


@pytest.mark.usefixtures("always")
def test_a_store_that_hangs_keeps_nobody(scrape, monkeypatch):
    """The answer comes without it, from one thread that waits however often is scraped."""
    answers, asked = Event(), []

    def hang(address):
        asked.append(address)
        answers.wait(60)
        return Known("steady")

    monkeypatch.setattr(gauges, "read", lambda _: Known("steady"))
    known = scrape()
    assert 1 == known[UP]
    monkeypatch.setattr(gauges, "read", hang)
    monkeypatch.setattr(gauges, "PATIENCE_SECONDS", 0.05)
    assert [known | {UP: 0}] * 5 == [scrape() for _ in range(5)]
    assert 1 == len(asked)
    answers.set()
    monkeypatch.setattr(gauges, "PATIENCE_SECONDS", 30)
    assert 1 == scrape()[UP]


@pytest.mark.parametrize("mode", ["off", "process"])
def test_the_service_tells_it(road, tmp_path, mode, monkeypatch):
    """Where events are kept /metrics has the monitor's gauges; without events it has none."""
    monkeypatch.setattr(gauges, "PATIENCE_SECONDS", 30)
    own = {"mode": mode, "folder": tmp_path, "store": f"sqlite:///{tmp_path}/none/store.db"}
    events = road.settings.events.model_copy(update=own)
    client = TestClient(create_app(road.settings.model_copy(update={"events": events})))
    row = road.predictor.examples[0]["row"]
    assert 200 == client.post("/predict", json={"rows": [row]}).status_code
    assert (mode == "process") == ("model_monitor_store_up 1.0" in client.get("/metrics").text)
