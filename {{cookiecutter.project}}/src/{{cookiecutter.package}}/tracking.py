"""Tracking: where MLflow keeps runs and models, whether that can be used, how it is opened."""

import os
import re
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .errors import RegistryError
from .settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

VARIABLE = "MLFLOW_TRACKING_URI"
DATABASES = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
WAIT_SECONDS = 3
ELSEWHERE = f"set tracking.uri or {VARIABLE}; sqlite:///mlflow.db needs no server"


@contextmanager
def opened(settings: Settings) -> Iterator[tuple["MlflowClient", str]]:
    """Open the store, and make it where it is a SQLite file that is not there yet.

    Yields
    ------
    client : MlflowClient
    address : str
        Where it is.

    Raises
    ------
    RegistryError
        Where the URI is none of MLflow's, nobody answers there, MLflow refuses something, or is
        not installed.
    """
    address = uri(settings)
    _check(address)
    _quiet()
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise RegistryError("the registry needs MLflow: install the group train as well") from error

    before = os.environ.get(VARIABLE)
    # A new version's model is looked up where the environment says, whatever the client was given.
    os.environ[VARIABLE] = address
    try:
        if (file := sqlite_file(address)) and not file.exists():
            _create(file)
        yield MlflowClient(address, address), address
    except MlflowException as error:
        raise RegistryError(f"{shown(address)}: {line(error)}") from error
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def uri(settings: Settings) -> str:
    """Return where runs and models are kept; MLFLOW_TRACKING_URI comes first."""
    return os.environ.get(VARIABLE) or settings.tracking.uri


def browse(settings: Settings, port: int) -> None:
    """Show the store in MLflow's pages until Ctrl-C; a server has them already.

    Raises
    ------
    RegistryError
        Where there is no store yet, or it cannot be used.
    """
    address = uri(settings)
    if not exists(settings):
        raise RegistryError(f"{address} is not there yet: run the pipeline first")
    _check(address)
    if urlsplit(address).scheme.startswith("http"):
        print(f"MLflow's pages are at {shown(address)}", flush=True)
        return
    _quiet()
    place = f"http://127.0.0.1:{port}"
    print(f"MLflow's pages come up at {place} in a few seconds; Ctrl-C ends them", flush=True)
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", address]
    with suppress(KeyboardInterrupt):
        subprocess.run([*command, "--port", str(port), "--workers", "1"], check=False)


def exists(settings: Settings) -> bool:
    """Say whether there is a store, as far as that can be told without asking a server."""
    file = sqlite_file(uri(settings))
    return file is None or file.is_file()


def shown(address: str) -> str:
    """Return a URI without its password."""
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", address)


def _quiet() -> None:
    """Set what MLflow reads when it is imported: errors are raised here, not printed there."""
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "CRITICAL",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    }.items():
        os.environ.setdefault(name, value)


def _check(address: str) -> None:
    """Refuse a store that cannot be used, sooner and more plainly than MLflow does."""
    scheme = urlsplit(address).scheme.split("+")[0]
    if scheme == "sqlite" and (file := sqlite_file(address)):
        if file.exists():
            _check_sqlite(file, address)
    elif scheme in ("http", "https"):
        _check_server(address)
    elif scheme in DATABASES:
        _check_database(address, DATABASES[scheme])
    elif scheme != "databricks" and address != "databricks":
        raise RegistryError(
            f"tracking.uri: {shown(address)!r} is no store of MLflow's; expected "
            "sqlite:///<file>, postgresql://<host>/<database> or http(s)://<server>"
        )


def _check_sqlite(file: Path, address: str) -> None:
    connection = sqlite3.connect(file, timeout=WAIT_SECONDS)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.rollback()
    except sqlite3.OperationalError as error:
        raise RegistryError(
            f"{address} cannot be written ({error}): "
            f"wait for the program that holds it, or {ELSEWHERE}"
        ) from error
    except sqlite3.DatabaseError as error:
        raise RegistryError(
            f"{address} is no SQLite database ({error}): move it away, or {ELSEWHERE}"
        ) from error
    finally:
        connection.close()


def _check_server(address: str) -> None:
    import requests

    try:
        requests.get(f"{address.rstrip('/')}/health", timeout=WAIT_SECONDS)
    except requests.RequestException as error:
        reason = type(error).__name__
        raise RegistryError(
            f"{shown(address)} does not answer ({reason}): start the server, or {ELSEWHERE}"
        ) from error


def _check_database(address: str, port: int) -> None:
    import sqlalchemy

    parts = urlsplit(address)
    try:
        if parts.hostname:
            socket.create_connection((parts.hostname, parts.port or port), WAIT_SECONDS).close()
        engine = sqlalchemy.create_engine(address)
        engine.connect().close()
        engine.dispose()
    except (OSError, ImportError, ValueError, sqlalchemy.exc.SQLAlchemyError) as error:
        raise RegistryError(
            f"{shown(address)} cannot be used ({line(error)}): start the database, or {ELSEWHERE}"
        ) from error


def sqlite_file(address: str) -> Path | None:
    """Return the file behind a URI; None where it is another kind of store."""
    _, separator, path = address.partition(":///")
    if not separator or not address.startswith("sqlite"):
        return None
    return Path(path.split("?")[0])


def _create(file: Path) -> None:
    """Make a new store beside, and move it in: a kill leaves no half of its tables behind."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    file = file.absolute()
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RegistryError(f"{file} cannot be made ({error}): {ELSEWHERE}") from error
    try:
        store = SqlAlchemyStore(  # type: ignore[no-untyped-call]
            f"sqlite:///{partial}", (file.parent / "mlartifacts").as_uri()
        )
        store.engine.dispose()
        if not file.exists():
            partial.replace(file)
    except OSError as error:
        raise RegistryError(f"{file} cannot be made ({error}): {ELSEWHERE}") from error
    finally:
        partial.unlink(missing_ok=True)


def line(error: BaseException) -> str:
    """Return the first line of an error, or its name."""
    text = str(error).strip() or type(error).__name__
    return " ".join(text.split("\n")[0].split())
