import hashlib
import os
import stat

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from {{ cookiecutter.package }} import cli
from {{ cookiecutter.package }}.errors import ServingError, SettingsError
from {{ cookiecutter.package }}.serving import keys
from {{ cookiecutter.package }}.serving.app import create_app
from {{ cookiecutter.package }}.serving.keys import Keys

OPEN = [
    *("/", "/page.css", "/page.js", "/icon.svg", "/favicon.ico", "/docs", "/openapi.json"),
    *("/health/live", "/health/ready", "/metrics", "/static-offline-docs/swagger-ui.css"),
]


@pytest.fixture(name="file")
def file_fixture(tmp_path, monkeypatch):
    """A file of keys that is looked at with every request."""
    monkeypatch.setattr(keys, "SECONDS_BETWEEN_LOOKS", 0)
    return tmp_path / "keys.txt"


@pytest.fixture(name="client")
def client_fixture(road, file):
    keys.add(file, "shop")
    section = road.settings.serving.model_copy(update={"keys": file})
    return TestClient(create_app(road.settings.model_copy(update={"serving": section})))


@pytest.fixture(name="command")
def command_fixture(file, tmp_path):
    """The function that runs a command on keys, and returns what it wrote or raised."""
    params = tmp_path / "params.yaml"
    sections = "project: {name: Garden}\ndata: {source: garden.csv}\n"
    params.write_text(f"{sections}serving:\n  keys: {file}\n", encoding="utf-8")

    def run(*arguments):
        found = CliRunner().invoke(cli.app, ["keys", *arguments, "--params", str(params)])
        return found.exception or found.stdout

    return run


def test_without_a_key_there_is_no_answer(client):
    """401 in the one shape, saying how to send a key."""
    for headers in ({}, {"x-api-key": "guess"}, {"authorization": "Basic dTpw"}):
        answer = client.post("/predict", json={}, headers=headers)
        assert 401 == answer.status_code
        assert "Bearer" == answer.headers["www-authenticate"]
        message = "expected an API key, as 'Authorization: Bearer <key>' or 'X-API-Key: <key>'"
        assert {"code": "unauthorized", "message": message, "details": []} == answer.json()["error"]
        assert answer.headers["x-request-id"]


@pytest.mark.parametrize("path", OPEN)
def test_probes_page_and_docs_are_open(client, path):
    """What shows how to ask needs no key."""
    assert 200 == client.get(path).status_code


@pytest.mark.parametrize("path", ["/model", "/nowhere", "/static-offline-docs", "/page.css/"])
def test_all_else_is_closed(client, path):
    """Whatever is added later is closed, too."""
    assert 401 == client.get(path).status_code


def test_a_key_opens(client, file, road):
    """Both headers are taken."""
    key = keys.add(file, "lab")
    body = {"rows": [road.predictor.examples[0]["row"]]}
    for headers in ({"x-api-key": key}, {"authorization": f"bearer {key}"}):
        assert 200 == client.post("/predict", json=body, headers=headers).status_code


def test_keys_rotate_without_restart(client, file):
    """A new key counts at once, a revoked one no more; the others stay."""
    old, other = keys.add(file, "old"), keys.add(file, "other")
    new = keys.add(file, "new")
    keys.revoke(file, "old")
    codes = [client.get("/model", headers={"x-api-key": k}).status_code for k in (old, other, new)]
    assert [401, 200, 200] == codes


def test_the_file_is_looked_at_once_a_second(tmp_path, monkeypatch):
    """A change counts a second after the last look, not before."""
    now = 100.0
    monkeypatch.setattr(keys, "monotonic", lambda: now)
    path = tmp_path / "keys.txt"
    keys.add(path, "shop")
    known = Keys(path)
    added = {b"x-api-key": keys.add(path, "lab").encode()}
    now = 100.9
    assert known.allowed(added) is None
    now = 101.0
    assert "lab" == known.allowed(added)


def test_a_broken_file_changes_nothing(file, caplog):
    """Where the file cannot be read any more, the keys stay, and the log says why, once."""
    headers = {b"x-api-key": keys.add(file, "shop").encode()}
    known = Keys(file)
    with file.open("a", encoding="utf-8") as stream:
        stream.write("lab 12ab\n")
    assert ["shop", "shop"] == [known.allowed(headers) for _ in range(2)]
    message = f"{file}, line 2: expected a name and the SHA-256 of a key"
    assert [f"API keys stay as they were: {message}"] == caplog.messages
    file.unlink()
    assert "shop" == known.allowed(headers)


def test_a_missing_file_is_named(tmp_path):
    """A service that should ask for keys does not start without them."""
    with pytest.raises(ServingError, match=r"absent.txt cannot be read \(No such file or dir"):
        Keys(tmp_path / "absent.txt")


def test_docs_ask_for_the_key(client, road):
    """OpenAPI names both ways to send a key, so that /docs can; without keys it names none."""
    schemes = client.get("/openapi.json").json()["components"]["securitySchemes"].values()
    assert {"bearer", "apiKey"} == {each.get("scheme", each["type"]) for each in schemes}
    free = TestClient(create_app(road.settings)).get("/openapi.json").json()
    assert "securitySchemes" not in free["components"]


def test_commands(command, file):
    """A key is shown once and kept as a hash, in a file of its owner's; others are left alone."""
    first, second = command("add", "shop").strip(), command("add", "lab").strip()
    digests = [hashlib.sha256(key.encode()).hexdigest() for key in (first, second)]
    assert f"shop {digests[0]}\nlab {digests[1]}\n" == file.read_text(encoding="utf-8")
    assert 0o600 == stat.S_IMODE(os.stat(file).st_mode)
    assert "shop\nlab\n" == command("list")
    assert "" == command("revoke", "shop")
    assert "lab\n" == command("list")
    assert [file.name, "params.yaml"] == sorted(os.listdir(file.parent))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("add", "lab"), "key 'lab' exists: revoke it first, or take another name"),
        (("add", "my shop"), "key 'my shop': expected up to 64 letters"),
        (("revoke", "shop"), r"no key 'shop' in .*; expected one of: lab"),
    ],
)
def test_wrong_names_are_refused(command, arguments, message):
    """One line says what is wrong with a name; no key changes."""
    command("add", "lab")
    with pytest.raises(ServingError, match=message):
        raise command(*arguments)
    assert "lab\n" == command("list")


def test_commands_need_a_file(tmp_path):
    """Without the setting there is nowhere to keep keys."""
    params = tmp_path / "params.yaml"
    params.write_text("project: {name: G}\ndata: {source: g.csv}\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"serving\.keys is null: name a file there"):
        raise CliRunner().invoke(cli.app, ["keys", "list", "--params", str(params)]).exception
