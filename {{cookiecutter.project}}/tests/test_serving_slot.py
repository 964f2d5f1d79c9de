import json
import os
import re
import shutil
import threading
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from {{ cookiecutter.package }} import artifacts, bundle
from {{ cookiecutter.package }}.errors import BundleError, RegistryError
from {{ cookiecutter.package }}.inference import Predictor
from {{ cookiecutter.package }}.serving.app import create_app
from {{ cookiecutter.package }}.serving.errors import RequestError
from {{ cookiecutter.package }}.serving.holds import Holds
from {{ cookiecutter.package }}.serving.slot import Slot, watching
from {{ cookiecutter.package }}.serving.source import Directory


def offer(made, path):
    """Put a copy of a bundle into its place, as the pipeline does."""
    fresh, old = path.with_name("fresh"), path.with_name("old")
    shutil.copytree(made, fresh)
    if path.exists():
        path.rename(old)
    fresh.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def changed(made, target, name, change):
    """Copy a bundle, change one of its JSON files and seal it again."""
    shutil.copytree(made, target)
    content = json.loads((target / name).read_text(encoding="utf-8"))
    change(content)
    artifacts.write_json(content, target / name)
    card = json.loads((target / bundle.CARD).read_text(encoding="utf-8"))
    card["version"] = target.name
    card["files"] = {each: artifacts.sha256(target / each) for each in card["files"]}
    artifacts.write_json(card, target / bundle.CARD)
    return target


@pytest.fixture(name="first")
def first_fixture(weak_road):
    return weak_road.settings.serving.bundle


@pytest.fixture(name="second")
def second_fixture(road):
    return road.settings.serving.bundle


@pytest.fixture(name="versions")
def versions_fixture(road, weak_road):
    return weak_road.predictor.card["version"], road.predictor.card["version"]


@pytest.fixture(name="place")
def place_fixture(tmp_path):
    return tmp_path / "bundle"


@pytest.fixture(name="slot_of")
def slot_of_fixture(tmp_path, place):
    """The function that makes a slot, as a worker of one service."""

    def make(**options):
        return Slot(Directory(place), Holds(tmp_path / "held"), **options)

    return make


@pytest.fixture(name="slot")
def slot_fixture(slot_of, first, place):
    """A slot that serves the first bundle."""
    offer(first, place)
    slot = slot_of()
    slot.refresh()
    return slot


@pytest.fixture(name="client")
def client_fixture(road, place):
    update = {"bundle": place, "state": place.with_name("state")}
    section = road.settings.serving.model_copy(update=update)
    return TestClient(create_app(road.settings.model_copy(update={"serving": section})))


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/predict"), ("GET", "/model"), ("GET", "/health/ready")]
)
def test_without_a_bundle_there_is_no_answer(client, place, method, path):
    """What needs a model is answered 503, with the reason."""
    answer = client.request(method, path)
    assert 503 == answer.status_code
    error = answer.json()["error"]
    assert "no_model" == error["code"]
    assert error["message"].startswith(f"no model is loaded: no bundle in {place}")


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/health/live", "/metrics"])
def test_without_a_bundle_the_rest_works(client, path):
    """The process lives, and shows its page, without a model."""
    assert 200 == client.get(path).status_code


def test_a_bundle_that_appears_is_served(client, place, road):
    """The next readiness check loads it; then it answers, and OpenAPI shows its fields."""
    assert 503 == client.get("/health/ready").status_code
    assert "Row" not in client.get("/openapi.json").json()["components"]["schemas"]
    shutil.copytree(road.settings.serving.bundle, place)
    assert 200 == client.get("/health/ready").status_code
    example = road.predictor.examples[0]
    answer = client.post("/predict", json={"rows": [example["row"]]}).json()
    assert example["prediction"]["prediction"] == answer["predictions"][0]["prediction"]
    assert "Row" in client.get("/openapi.json").json()["components"]["schemas"]


def test_a_damaged_bundle_is_not_served(client, place, road, caplog):
    """A file that was altered keeps the service not ready; the log says which, once."""
    shutil.copytree(road.settings.serving.bundle, place)
    with (place / "model.onnx").open("ab") as model:
        model.write(b"x")
    caplog.clear()
    reasons = [client.get("/health/ready").json()["error"]["message"] for _ in range(2)]
    reason = f"no model is loaded: {place / 'model.onnx'} was altered"
    assert [True, True] == [each.startswith(reason) for each in reasons]
    assert [True] == [record.getMessage().startswith(reason) for record in caplog.records]


def test_a_model_is_loaded_once(second, slot_of, place, versions, monkeypatch):
    """Checks at the same time do not load it twice."""
    offer(second, place)
    loads = []
    load = Predictor.load
    monkeypatch.setattr(Predictor, "load", lambda path: loads.append(path) or load(path))
    slot = slot_of()
    threads = [threading.Thread(target=slot.fill) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [place] == loads
    assert versions[1] == slot.require().version


def test_a_new_bundle_is_swapped_in(slot, second, place, versions):
    """What takes the place of a bundle answers next; the one before is kept."""
    offer(second, place)
    slot.refresh()
    assert versions == (slot.previous.version, slot.require().version)
    assert {"loaded": 2, "refused": 0, "rolled_back": 0} == slot.swaps


def test_the_same_bundle_is_no_swap(slot, first, place):
    """Files that were only written again change nothing, and nothing is lost to roll back to."""
    served = slot.require()
    offer(first, place)
    slot.refresh()
    assert served is slot.require()
    assert 1 == slot.swaps["loaded"]


def altered(made, target):
    shutil.copytree(made, target)
    (target / "plan.json").write_text("{}", encoding="utf-8")


def incomplete(made, target):
    shutil.copytree(made, target)
    (target / "plan.json").unlink()


def foreign(made, target):
    raw = shutil.copytree(made, target.with_name("raw"))
    (raw / "model.onnx").write_bytes(b"no graph")
    changed(raw, target, "plan.json", lambda plan: None)


def strange(made, target):
    changed(made, target, "examples.json", lambda examples: examples[2].pop("prediction"))


def another_answer(made, target):
    def change(examples):
        shares = examples[1]["prediction"]["probabilities"]
        shares["tall"] += 2e-6

    changed(made, target, "examples.json", change)


def another_label(made, target):
    def change(examples):
        examples[0]["prediction"]["prediction"] = "giant"

    changed(made, target, "examples.json", change)


def narrower(made, target):
    def change(contract):
        for column in contract["columns"]:
            column["nullable"] = False

    changed(made, target, "contract.json", change)


def another_target(made, target):
    changed(
        made, target, "contract.json", lambda contract: contract["target"].update(name="species")
    )


BROKEN = {
    altered: r"plan\.json was altered",
    incomplete: r"incomplete: .*plan\.json is missing",
    foreign: "cannot run the model: .*Protobuf parsing failed",
    strange: "^KeyError: 'prediction'$",
    another_answer: r"does not answer as it did .*: probabilities of example 1 was .*, is ",
    another_label: r"prediction of example 0 was giant, is ",
    narrower: r"would break clients of .*'Höhe \(cm\)' may no longer be missing",
    another_target: "a classification of variety would become a classification of species",
}


@pytest.mark.parametrize("break_it", BROKEN, ids=lambda break_it: break_it.__name__)
def test_what_is_broken_is_refused(slot, second, place, tmp_path, caplog, break_it):
    """The old version goes on; one line says why; the same files are not tried again."""
    served = slot.require()
    break_it(second, tmp_path / "broken")
    offer(tmp_path / "broken", place)
    caplog.clear()
    for _ in range(3):
        slot.refresh()
    assert served is slot.require()
    assert {"loaded": 1, "refused": 1, "rolled_back": 0} == slot.swaps
    (record,) = caplog.records
    assert record.getMessage() == f"version {served.version} goes on: {slot.reason}"
    assert re.search(BROKEN[break_it], slot.reason)


def test_a_small_difference_is_no_refusal(slot, second, place, tmp_path):
    """Another machine may answer with another last digit."""

    def change(examples):
        examples[1]["prediction"]["probabilities"]["tall"] += 5e-7

    offer(changed(second, tmp_path / "near", "examples.json", change), place)
    slot.refresh()
    assert "near" == slot.require().version


def test_what_takes_less_is_served_if_the_operator_says_so(slot_of, first, place, tmp_path):
    """With serving.allow_breaking only what does not work is refused."""
    offer(first, place)
    slot = slot_of(allow_breaking=True)
    slot.refresh()
    narrower(first, tmp_path / "narrow")
    offer(tmp_path / "narrow", place)
    slot.refresh()
    assert ("narrow", "") == (slot.require().version, slot.reason)


def test_a_half_written_bundle_is_served_once_it_is_complete(slot, second, place, versions):
    """A bundle copied file by file over the old one is refused, until its card is there."""
    for name in sorted(os.listdir(second), reverse=True):
        assert versions[0] == slot.require().version
        shutil.copyfile(second / name, place / name)
        slot.refresh()
    assert (versions[1], "") == (slot.require().version, slot.reason)
    assert 2 == slot.swaps["loaded"]
    assert 0 < slot.swaps["refused"]


def test_a_folder_that_is_away_is_no_refusal(slot, second, place, versions, caplog):
    """For a moment nothing is said; then that the old version goes on, and then what came."""
    shutil.rmtree(place)
    slot.refresh()
    assert ([], "") == (caplog.records, slot.reason)
    for _ in range(3):
        slot.refresh()
    assert [f"version {versions[0]} goes on: {slot.reason}"] == caplog.messages
    assert slot.reason.startswith(f"no bundle in {place}")
    assert 0 == slot.swaps["refused"]
    offer(second, place)
    slot.refresh()
    assert (versions[1], "") == (slot.require().version, slot.reason)


@pytest.mark.parametrize("fails", [False, True])
def test_a_source_that_moves_on_while_it_is_read_is_read_again(
    slot, first, second, place, monkeypatch, caplog, fails
):
    """Files of two bundles are never served together, and their mixture is no refusal."""
    load, before = Predictor.load, slot.require()

    def replaced_meanwhile(path):
        loaded = load(path)
        monkeypatch.setattr(Predictor, "load", load)
        offer(second, place)
        if fails:
            raise BundleError("a mixture")
        return loaded

    third = changed(first, place.with_name("third"), "examples.json", lambda _: None)
    offer(third, place)
    monkeypatch.setattr(Predictor, "load", replaced_meanwhile)
    slot.refresh()
    assert (before, 0) == (slot.require(), slot.swaps["refused"])
    slot.refresh()
    assert (before, load(second).card) == (slot.previous, slot.require().predictor.card)
    assert [] == caplog.messages


def test_one_reason_is_told_once(slot, place, caplog):
    """Other files with the same fault are refused again, without another line."""
    for _ in range(3):
        (place / "plan.json").write_bytes((place / "plan.json").read_bytes() + b" ")
        slot.refresh()
    assert 3 == slot.swaps["refused"]
    assert 1 == len(caplog.messages)


def test_a_silent_registry_changes_nothing(slot, versions, monkeypatch, caplog):
    """It is asked again and again; that it is silent is said once, until it answers."""

    def silent():
        raise RegistryError("nobody answers")

    caplog.clear()
    with monkeypatch.context() as patch:
        patch.setattr(slot.source, "fingerprint", silent)
        for _ in range(4):
            slot.refresh()
    assert [f"version {versions[0]} goes on: nobody answers"] == caplog.messages
    assert "nobody answers" == slot.reason
    slot.refresh()
    assert "" == slot.reason


def test_a_rollback_is_immediate_and_holds(slot, second, place, versions):
    """The previous version answers; the source does not bring the other one back."""
    offer(second, place)
    slot.refresh()
    served, held = slot.rollback()
    assert versions == (served.version, held.version)
    for _ in range(2):
        slot.refresh()
        assert versions[0] == slot.require().version
    assert {"loaded": 2, "refused": 0, "rolled_back": 1} == slot.swaps
    assert f"version {versions[1]} was rolled back, and is held until" in slot.reason


def test_a_rollback_is_not_repeated(slot, second, place):
    """Twice is once: the second request says that there is nothing to go back to."""
    with pytest.raises(RequestError, match="no previous version"):
        slot.rollback()
    offer(second, place)
    slot.refresh()
    slot.rollback()
    with pytest.raises(RequestError, match="no previous version"):
        slot.rollback()


def test_another_version_ends_a_hold(slot, second, place, tmp_path, versions):
    """The next version is served, and then the one that was held, if it is offered anew."""
    offer(second, place)
    slot.refresh()
    slot.rollback()
    third = changed(second, tmp_path / "third", "examples.json", lambda _: None)
    offer(third, place)
    slot.refresh()
    assert ("third", frozenset()) == (slot.require().version, slot.holds.versions())
    offer(second, place)
    slot.refresh()
    assert versions[1] == slot.require().version


def test_the_operator_ends_a_hold(slot, second, place, versions):
    """What the source offers is served again, and can be rolled back again."""
    with pytest.raises(RequestError, match="no version is held"):
        slot.resume()
    offer(second, place)
    slot.refresh()
    slot.rollback()
    assert versions[1] == slot.resume().version
    assert "" == slot.reason
    assert versions == tuple(each.version for each in slot.rollback())


def test_workers_roll_back_together(slot, slot_of, second, place, versions):
    """Each follows when it looks next: there and back again."""
    other, late = slot_of(), slot_of()
    other.refresh()
    late.refresh()
    offer(second, place)
    for each in (slot, other):
        each.refresh()
    slot.rollback()
    for each in (other, late):
        each.refresh()
    assert [versions[0]] * 3 == [each.require().version for each in (slot, other, late)]
    assert (1, 0) == (other.swaps["rolled_back"], late.swaps["rolled_back"])
    with pytest.raises(RequestError, match="no previous version"):
        other.rollback()
    other.resume()
    for each in (slot, late):
        each.refresh()
    assert [versions[1]] * 3 == [each.require().version for each in (slot, other, late)]


def test_a_worker_that_has_nothing_else_serves_what_is_held(
    slot, slot_of, second, place, versions, caplog
):
    """A restarted worker says so, and goes on with the next version like the others."""
    offer(second, place)
    slot.refresh()
    slot.rollback()
    caplog.clear()
    restarted = slot_of()
    restarted.refresh()
    assert versions[1] == restarted.require().version
    assert [f"version {versions[1]} is held, but there is no other"] == caplog.messages
    restarted.refresh()
    assert 1 == len(caplog.messages)
    assert frozenset({versions[1]}) == slot.holds.versions()


def test_a_rollback_without_a_folder_to_write_to(slot, second, place, tmp_path, caplog):
    """It is done all the same; the log says that the other workers do not hear of it."""
    (tmp_path / "held").touch()
    offer(second, place)
    slot.refresh()
    served, _ = slot.rollback()
    slot.refresh()
    assert served is slot.require()
    assert any("do not hear of the rollback" in message for message in caplog.messages)


def test_a_swap_does_not_keep_a_rollback_waiting(slot, first, second, place, tmp_path, monkeypatch):
    """While a third version is being loaded, the first one is back at once."""
    offer(second, place)
    slot.refresh()
    loading, go_on = threading.Event(), threading.Event()
    load = Predictor.load

    def slow(path):
        loading.set()
        assert go_on.wait(30)
        return load(path)

    monkeypatch.setattr(Predictor, "load", slow)
    offer(changed(first, tmp_path / "third", "examples.json", lambda _: None), place)
    looking = threading.Thread(target=slot.refresh)
    looking.start()
    assert loading.wait(30)
    served, _ = slot.rollback()
    assert served is slot.require()
    go_on.set()
    looking.join()
    assert "third" == slot.require().version


SWAPS = 100
CLIENTS = 3


def test_swaps_under_load(road, weak_road, place):
    """A hundred swaps, no request fails, and every answer is of exactly one version."""
    made = [weak_road.settings.serving.bundle, road.settings.serving.bundle]
    rows = [example["row"] for example in road.predictor.examples]
    expected = {
        each.predictor.card["version"]: [asdict(one) for one in each.predictor.predict(rows)]
        for each in (road, weak_road)
    }
    update = {"bundle": place, "state": place.with_name("state"), "watch_seconds": 0.005}
    section = road.settings.serving.model_copy(update=update)
    offer(made[0], place)
    app = create_app(road.settings.model_copy(update={"serving": section}))
    slot, stop, answers = app.state.slot, threading.Event(), []

    def ask(client):
        while not stop.is_set():
            answer = client.post("/predict", json={"rows": rows})
            answers.append((answer.status_code, answer.json()))

    with TestClient(app) as client:
        threads = [threading.Thread(target=ask, args=(client,)) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for number in range(1, SWAPS + 1):
            offer(made[number % 2], place)
            until = time.monotonic() + 30
            while slot.swaps["loaded"] <= number and time.monotonic() < until:
                time.sleep(0.001)
        stop.set()
        for thread in threads:
            thread.join()
    assert {"loaded": SWAPS + 1, "refused": 0, "rolled_back": 0} == slot.swaps
    assert {200} == {status for status, _ in answers}
    assert set(expected) == {answer["model"]["version"] for _, answer in answers}
    for _, answer in answers:
        of_version = expected[answer["model"]["version"]]
        for stored, given in zip(of_version, answer["predictions"], strict=True):
            assert pytest.approx(stored["probabilities"]) == given["probabilities"]


def test_watching_ends_with_its_block(slot, second, place, versions):
    """Inside of the block a new bundle is found; after it nobody looks."""
    with watching(slot, 0.001):
        offer(second, place)
        until = time.monotonic() + 30
        while slot.require().version == versions[0] and time.monotonic() < until:
            time.sleep(0.001)
    assert versions[1] == slot.require().version
    assert "watcher" not in [thread.name for thread in threading.enumerate()]


def test_no_seconds_no_watcher(slot):
    """serving.watch_seconds: 0 switches it off."""
    with watching(slot, 0):
        assert "watcher" not in [thread.name for thread in threading.enumerate()]
    assert Path(slot.source.path).is_dir()
