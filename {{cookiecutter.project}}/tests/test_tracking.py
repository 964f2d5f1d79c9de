import socket
import sqlite3
import sys

import pytest

from {{ cookiecutter.package }} import registry, tracking
from {{ cookiecutter.package }}.errors import RegistryError


@pytest.fixture
def at(settings_with, monkeypatch):
    """The function that makes settings whose store is at an address."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return lambda address: settings_with(tracking={"uri": address})


def refused(settings) -> str:
    """What is said where a store cannot be opened."""
    with pytest.raises(RegistryError) as error, registry.connect(settings):
        pass
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def closed_port():
    """A port of this machine at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_without_mlflow(at, monkeypatch, tmp_path):
    """Where MLflow is not installed, as in the image of the monitor, a line says so."""
    monkeypatch.setitem(sys.modules, "mlflow", None)
    said = refused(at(f"sqlite:///{tmp_path}/mlflow.db"))
    assert "the registry needs MLflow: install the group train as well" == said


@pytest.mark.parametrize("address", ["./mlruns", "ftp://runs", "mlflow.db", "file:///runs"])
def test_other_stores(at, address):
    """What is no store of MLflow's is refused with what was expected."""
    assert refused(at(address)) == (
        f"tracking.uri: {address!r} is no store of MLflow's; expected sqlite:///<file>, "
        "postgresql://<host>/<database> or http(s)://<server>"
    )


@pytest.mark.parametrize("scheme", ["http", "https", "postgresql+psycopg"])
def test_nobody_answers(at, scheme, closed_port, monkeypatch):
    """An unreachable server is named, without its password, and so is the way out."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    said = refused(at(f"{scheme}://lea:secret@127.0.0.1:{closed_port}/runs"))
    assert said.startswith(f"{scheme}://lea:***@127.0.0.1:{closed_port}/runs ")
    assert said.endswith("MLFLOW_TRACKING_URI; sqlite:///mlflow.db needs no server")


def test_locked_database(at, tmp_path, monkeypatch):
    """A store that another program holds is not waited for for long."""
    monkeypatch.setattr(tracking, "WAIT_SECONDS", 0.1)
    holder = sqlite3.connect(tmp_path / "mlflow.db")
    holder.execute("BEGIN IMMEDIATE")
    said = refused(at(f"sqlite:///{tmp_path}/mlflow.db"))
    holder.close()
    assert "mlflow.db cannot be written (database is locked): wait for the program" in said


def test_no_database(at, tmp_path):
    """A file that is no database is not touched."""
    (tmp_path / "mlflow.db").write_text("runs\n" * 1000, encoding="utf-8")
    said = refused(at(f"sqlite:///{tmp_path}/mlflow.db"))
    assert "mlflow.db is no SQLite database (file is not a database): move it away" in said
    assert "runs\n" * 1000 == (tmp_path / "mlflow.db").read_text(encoding="utf-8")


def test_no_folder_for_the_store(at, tmp_path):
    """A store that cannot be made leaves nothing behind."""
    (tmp_path / "file").touch()
    assert "cannot be made" in refused(at(f"sqlite:///{tmp_path}/file/mlflow.db"))
    assert ["file"] == [path.name for path in tmp_path.iterdir()]


def test_what_mlflow_refuses(at, desk):
    """MLflow's own refusals are said in a line, with the store."""
    settings = at(f"sqlite:///{desk.store}")
    with pytest.raises(RegistryError) as error, registry.connect(settings) as store:
        store.version("99")
    assert str(error.value).startswith(f"sqlite:///{desk.store}: ")
    assert "\n" not in str(error.value)


def test_the_environment_comes_first(at, monkeypatch):
    """MLFLOW_TRACKING_URI is where the store is, whatever params.yaml says."""
    settings = at("sqlite:///mlflow.db")
    assert "sqlite:///mlflow.db" == tracking.uri(settings)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://runs.example")
    assert "https://runs.example" == tracking.uri(settings)


def test_browse(at, tmp_path, monkeypatch, capsys):
    """A server's pages are pointed at; without a store there is nothing to show."""
    with pytest.raises(RegistryError, match=r"none.db is not there yet: run the pipeline first"):
        tracking.browse(at(f"sqlite:///{tmp_path}/none.db"), 5000)
    monkeypatch.setattr(tracking, "_check", lambda address: None)
    tracking.browse(at("https://lea:secret@runs.example"), 5000)
    assert "MLflow's pages are at https://lea:***@runs.example\n" == capsys.readouterr().out
