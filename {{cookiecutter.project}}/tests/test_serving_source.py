import base64
import json
import os
import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest

from {{ cookiecutter.package }} import bundle, release
from {{ cookiecutter.package }}.errors import (
    BundleError,
    RegistryError,
    SettingsError,
)
from {{ cookiecutter.package }}.serving import source
from {{ cookiecutter.package }}.serving.holds import Holds
from {{ cookiecutter.package }}.serving.slot import Slot
from {{ cookiecutter.package }}.serving.stores import Server

API = "/api/2.0/"
ALIAS = "models:/Küche 7@champion"


class Tracker(ThreadingHTTPServer):
    """What a tracking server answers to those who read one model's versions from it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.bundles = {}
        self.champion = None
        self.status = "READY"
        self.scheme = "mlflow-artifacts"
        self.asked = []
        self.broken = "nothing"

    def answer(self, path, query):
        version = query.get("version", self.champion)
        if path in (f"{API}mlflow/registered-models/alias", f"{API}mlflow/model-versions/get"):
            if query["name"] != "Küche 7" or version not in self.bundles:
                return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "not\nfound"}
            facts = {"version": version, "source": f"models:/m-{version}", "status": self.status}
            return 200, {"model_version": facts}
        if path == f"{API}mlflow/model-versions/get-download-uri":
            return 200, {"artifact_uri": f"{self.scheme}:/1/models/m {version}/artifacts"}
        if path == "/model-versions/get-artifact":
            path = f"{API}mlflow-artifacts/artifacts/1/models/m {version}/artifacts/{query['path']}"
        if path.startswith(f"{API}mlflow-artifacts/artifacts/1/models/m "):
            version, _, file = path.rpartition("/m ")[2].partition("/artifacts/data/bundle/")
            if (found := self.bundles[version] / file).is_file():
                return 200, found.read_bytes()
            return 404, {"message": f"no such artifact: {file}"}
        return 500, {"message": path}


class Answers(BaseHTTPRequestHandler):
    """One request."""

    server: Tracker

    def do_GET(self):  # pylint: disable=invalid-name
        address = urlsplit(self.path)
        path = unquote(address.path)
        self.server.asked.append((path, self.headers.get("authorization")))
        status, content = self.server.answer(path, dict(parse_qsl(address.query)))
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:9] if path.endswith(self.server.broken) else body)

    def log_message(self, *_):
        pass


@pytest.fixture(name="tracker")
def tracker_fixture(road, weak_road, monkeypatch):
    for name in ("USERNAME", "PASSWORD", "TOKEN", "URI"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    tracker = Tracker()
    tracker.bundles = {
        "1": weak_road.settings.serving.bundle,
        "2": road.settings.serving.bundle,
    }
    tracker.champion = "1"
    threading.Thread(target=tracker.serve_forever, args=(0.01,)).start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{tracker.address}/")
    yield tracker
    tracker.shutdown()
    tracker.server_close()


@pytest.fixture(name="state")
def state_fixture(tmp_path):
    return tmp_path / "state"


@pytest.fixture(name="open_source")
def open_source_fixture(road, state):
    """The function that opens a source as the settings name it."""

    def open_it(given, base=road.settings):
        section = base.serving.model_copy(update={"source": given, "state": state})
        return source.of(base.model_copy(update={"serving": section}))

    return open_it


def version_of(folder):
    return json.loads((folder / "card.json").read_text(encoding="utf-8"))["version"]


def kept(state):
    return sorted(path.name for path in (state / "models").iterdir())


def test_the_bundle_of_the_pipeline_is_the_default(open_source, road):
    """Without a setting the folder is served that the pipeline writes to."""
    assert road.settings.serving.bundle == open_source(None).path
    assert Path("elsewhere/bundle") == open_source("elsewhere/bundle").path


@pytest.mark.parametrize("given", ["models:/a", "models:a@x", "models:/a/latest", "models:/a@b/c"])
def test_an_address_without_a_version_is_refused(open_source, given):
    """One line says what was expected."""
    with pytest.raises(SettingsError, match=f"serving.source: '{given}' .* models:/<name>@<alias>"):
        open_source(given)


def test_a_folder_is_told_apart_by_its_files(open_source, road, tmp_path):
    """A file that is written anew, renamed, added or removed changes the fingerprint."""
    place = shutil.copytree(road.settings.serving.bundle, tmp_path / "bundle")
    opened = open_source(str(place))
    seen = [opened.fingerprint()]
    assert seen[0] == opened.fingerprint()
    content = (place / "plan.json").read_bytes()
    (place / "plan.json").unlink()
    seen.append(opened.fingerprint())
    (place / "plan.json").write_bytes(content)
    seen.append(opened.fingerprint())
    os.utime(place / "plan.json", ns=(0, 0))
    seen.append(opened.fingerprint())
    shutil.copytree(place, tmp_path / "copy")
    place.rename(tmp_path / "old")
    (tmp_path / "copy").rename(place)
    seen.append(opened.fingerprint())
    assert 5 == len(set(seen))
    assert place == opened.fetch(seen[-1])


def test_a_folder_without_a_bundle_is_named(open_source, tmp_path):
    """Missing or empty, it is the same."""
    for place in (tmp_path, tmp_path / "absent"):
        with pytest.raises(BundleError, match=f"no bundle in {place}: run `make pipeline`, or set"):
            open_source(str(place)).fingerprint()


@pytest.mark.parametrize("scheme", ["mlflow-artifacts", "s3"])
def test_the_champion_is_fetched(open_source, tracker, state, scheme):
    """Whole, from the server itself or from the store that the server reads; and only once."""
    tracker.scheme = scheme
    opened = open_source(ALIAS)
    offered = opened.fingerprint()
    folder = opened.fetch(offered)
    assert bundle.verify(tracker.bundles["1"]) == bundle.verify(folder)
    assert sorted(os.listdir(tracker.bundles["1"])) == sorted(os.listdir(folder))
    assert [folder.name] == kept(state)
    asked = len(tracker.asked)
    assert folder == opened.fetch(offered)
    assert asked == len(tracker.asked)


def test_a_look_at_an_alias_is_one_request(open_source, tracker):
    """The fingerprint changes with the version that the alias stands for, and only then."""
    opened = open_source(ALIAS)
    seen = [opened.fingerprint(), opened.fingerprint()]
    tracker.champion = "2"
    seen.append(opened.fingerprint())
    assert [(f"{API}mlflow/registered-models/alias", None)] * 3 == tracker.asked
    assert seen[0] == seen[1] != seen[2]


def test_what_was_offered_is_fetched(open_source, tracker):
    """An alias that moves on in between does not change what a fingerprint stands for."""
    opened = open_source(ALIAS)
    offered = opened.fingerprint()
    tracker.champion = "2"
    assert version_of(tracker.bundles["1"]) == version_of(opened.fetch(offered))


def test_a_number_stays(open_source, tracker):
    """A version named by its number is served wherever the alias is."""
    opened = open_source("models:/Küche 7/2")
    assert version_of(tracker.bundles["2"]) == version_of(opened.fetch(opened.fingerprint()))


def test_the_slot_follows_the_champion(open_source, tracker, state):
    """A promotion is served at the next look; what is no bundle is refused, and not tried again."""
    slot = Slot(open_source(ALIAS), Holds(state / "held"))
    slot.refresh()
    assert version_of(tracker.bundles["1"]) == slot.require().version
    tracker.champion = "2"
    slot.refresh()
    assert version_of(tracker.bundles["2"]) == slot.require().version
    tracker.bundles["3"], tracker.champion = state, "3"
    slot.refresh()
    asked = len(tracker.asked)
    slot.refresh()
    assert (asked + 1, 1) == (len(tracker.asked), slot.swaps["refused"])
    assert slot.reason.startswith("version 3 of Küche 7 holds no bundle: ")
    assert "answers 404" in slot.reason
    assert version_of(tracker.bundles["2"]) == slot.require().version


def test_a_transfer_that_breaks_off_is_repeated(open_source, tracker, state):
    """Half a model is never kept; the next look gets it whole, and nothing was refused."""
    tracker.broken = "model.onnx"
    slot = Slot(open_source(ALIAS), Holds(state / "held"))
    slot.refresh()
    assert slot.served is None
    assert slot.reason.startswith(f"{tracker.address} does not answer as MLflow does (")
    assert [] == kept(state)
    tracker.broken = "nothing"
    slot.refresh()
    assert (version_of(tracker.bundles["1"]), 0) == (slot.require().version, slot.swaps["refused"])


def test_what_was_damaged_in_the_folder_is_fetched_again(open_source, tracker):
    """Only what its card was written for is taken from the folder."""
    opened = open_source(ALIAS)
    folder = opened.fetch(opened.fingerprint())
    (folder / "model.onnx").write_bytes(b"damaged")
    assert folder == opened.fetch(opened.fingerprint())
    assert bundle.verify(tracker.bundles["1"]) == bundle.verify(folder)


def test_old_versions_are_removed(open_source, tracker, state):
    """The versions used last are kept, and what another worker is fetching."""
    for number in ("3", "4", "5"):
        tracker.bundles[number] = tracker.bundles["1"]
    (state / "models/.fetching-now").mkdir(parents=True)
    (state / "models/.fetching-once").mkdir()
    os.utime(state / "models/.fetching-once", (0, time.time() - 7200))
    for number in ("1", "2", "3", "4", "5"):
        opened = open_source(f"models:/Küche 7/{number}")
        folder = opened.fetch(opened.fingerprint())
        os.utime(folder, (0, time.time() - 100 + int(number)))
    assert [".fetching-now", "K%C3%BCche%207-3", "K%C3%BCche%207-4", "K%C3%BCche%207-5"] == [
        name.rsplit("-", 1)[0] if "%" in name else name for name in kept(state)
    ]


def test_a_card_cannot_reach_out_of_its_folder(open_source, tracker, tmp_path):
    """A name that is a path is no file of a bundle."""
    forged = tmp_path / "forged"
    forged.mkdir()
    (forged / "card.json").write_text('{"files": {"../../evil": "0"}}', encoding="utf-8")
    tracker.bundles["1"] = forged
    opened = open_source(ALIAS)
    with pytest.raises(BundleError, match=r"damaged: '\.\./\.\./evil' is no name of a file"):
        opened.fetch(opened.fingerprint())


@pytest.mark.parametrize(
    ("variables", "header"),
    [
        ({"USERNAME": "ann", "PASSWORD": "x:y"}, f"Basic {base64.b64encode(b'ann:x:y').decode()}"),
        ({"TOKEN": "t-1"}, "Bearer t-1"),
    ],
    ids=["password", "token"],
)
def test_the_variables_of_mlflow_open_the_server(
    open_source, tracker, monkeypatch, variables, header
):
    """User and password, or a token, go with every request."""
    for name, value in variables.items():
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", value)
    opened = open_source(ALIAS)
    opened.fetch(opened.fingerprint())
    assert {header} == {given for _, given in tracker.asked}
    assert len(tracker.asked) > 5


def test_what_the_server_refuses_is_told(open_source, tracker):
    """One line: the address, its status and its first words."""
    opened = open_source("models:/nobody@champion")
    with pytest.raises(RegistryError, match=r"s/alias answers 404: .*not") as caught:
        opened.fingerprint()
    assert "\n" not in str(caught.value)
    tracker.status = "PENDING_REGISTRATION"
    with pytest.raises(RegistryError, match="is not ready: PENDING_REGISTRATION"):
        open_source(ALIAS).fingerprint()


def test_nobody_there(tracker):
    """A server that is down is named, without its password."""
    tracker.shutdown()
    tracker.server_close()
    address = tracker.address.replace("//", "//ann:secret@")
    opened = source.Registry(Server(address), source.Reference("x", "champion", None), Path())
    with pytest.raises(RegistryError, match=r"ann:\*\*\*@127.* does not answer .*\(Connection"):
        opened.fingerprint()


def test_a_store_without_a_server(desk, road, weak_road, open_source):
    """On a developer's machine the champion comes from MLflow's own store."""
    settings = desk.place(road)
    opened = open_source("models:/garden@champion", settings)
    offered = opened.fingerprint()
    assert weak_road.predictor.card["version"] == version_of(opened.fetch(offered))
    release.promote(settings)
    assert offered != opened.fingerprint()
    assert road.predictor.card["version"] == version_of(opened.fetch(opened.fingerprint()))
    with pytest.raises(RegistryError, match="models:/garden@none is not in sqlite"):
        open_source("models:/garden@none", settings).fingerprint()


def test_a_store_that_is_not_there(open_source, tmp_path, monkeypatch):
    """It is not made by looking for a champion in it."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RegistryError, match=r"mlflow\.db is not there yet: run the pipeline first"):
        open_source("models:/garden@champion").fingerprint()
    assert [] == os.listdir(tmp_path)
