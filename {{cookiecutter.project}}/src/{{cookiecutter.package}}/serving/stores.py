"""MLflow's registry as the service reads it: over HTTP without MLflow, which the image has not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote, urlsplit

from .. import registry, tracking
from ..errors import BundleError, RegistryError
from ..settings import Settings

if TYPE_CHECKING:
    import requests

API = "api/2.0"
TIMEOUT_SECONDS = (3, 30)
BLOCK = 1 << 20


@dataclass(frozen=True)
class Reference:
    """A registered model's name, with an alias or a number of a version."""

    name: str
    alias: str | None
    number: str | None

    def __str__(self) -> str:
        """Write it as MLflow does."""
        part = f"@{self.alias}" if self.alias else f"/{self.number}"
        return f"models:/{self.name}{part}"


class Store(Protocol):
    """A registry of models."""

    address: str

    def find(self, reference: Reference) -> tuple[str, str]:
        """Return the number of a version and its place.

        Raises
        ------
        RegistryError
            Where nobody answers, or there is no such version.
        """

    def download(self, name: str, number: str, folder: Path) -> Path:
        """Copy the bundle of a version into a folder; say where in it.

        Raises
        ------
        BundleError
            Where the version holds none.
        RegistryError
            Where nobody answers.
        """


class Server:
    """A tracking server, asked over HTTP.

    The variables of MLflow's client count: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD,
    MLFLOW_TRACKING_TOKEN, MLFLOW_TRACKING_SERVER_CERT_PATH, MLFLOW_TRACKING_INSECURE_TLS.

    Parameters
    ----------
    address : str
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")

    def find(self, reference: Reference) -> tuple[str, str]:
        """Ask which version it is."""
        query = {"name": reference.name}
        if reference.alias:
            found = self._json("mlflow/registered-models/alias", alias=reference.alias, **query)
        else:
            found = self._json("mlflow/model-versions/get", version=reference.number, **query)
        version = found.get("model_version", {})
        if version.get("status", "READY") != "READY" or "version" not in version:
            raise RegistryError(f"{reference} is not ready: {version.get('status', 'unknown')}")
        return str(version["version"]), str(version.get("source", ""))

    def download(self, name: str, number: str, folder: Path) -> Path:
        """Get the card, and the files that it names."""
        from .. import bundle

        found = self._json("mlflow/model-versions/get-download-uri", name=name, version=number)
        origin = urlsplit(found.get("artifact_uri", ""))

        def fetch(file: str) -> None:
            path = f"{registry.BUNDLE}/{file}"
            if origin.scheme == "mlflow-artifacts":
                place = quote(f"{origin.path.strip('/')}/{path}")
                answer = self._get(f"{API}/mlflow-artifacts/artifacts/{place}")
            else:
                # The server reads for us what only it has the key to.
                query = {"name": name, "version": number, "path": path}
                answer = self._get("model-versions/get-artifact", **query)
            with answer, (folder / file).open("wb") as target:
                for block in answer.iter_content(BLOCK):
                    target.write(block)

        self._transfer(bundle.CARD, fetch)
        for file in bundle.files(folder):
            self._transfer(file, fetch)
        return folder

    def _transfer(self, file: str, fetch: Callable[[str], None]) -> None:
        import requests

        try:
            fetch(file)
        except requests.RequestException as error:
            # The connection broke off in the middle of a file.
            raise self._silent(error) from error

    def _json(self, path: str, **query: Any) -> dict[str, Any]:
        import requests

        try:
            with self._get(f"{API}/{path}", **query) as answer:
                content = answer.json()
        except requests.RequestException as error:
            raise self._silent(error) from error
        except BundleError as error:
            raise RegistryError(str(error)) from error
        return content if isinstance(content, dict) else {}

    def _get(self, path: str, **query: Any) -> requests.Response:
        answer = self._session.get(
            f"{self.address}/{path}", params=query, stream=True, timeout=TIMEOUT_SECONDS
        )
        if answer.status_code == HTTPStatus.OK:
            return answer
        with answer:
            said = tracking.line(ValueError(answer.text[:500]))
        problem = f"{tracking.shown(self.address)}/{path} answers {answer.status_code}: {said}"
        gone = answer.status_code == HTTPStatus.NOT_FOUND
        raise BundleError(problem) if gone else RegistryError(problem)

    def _silent(self, error: Exception) -> RegistryError:
        shown = tracking.shown(self.address)
        return RegistryError(f"{shown} does not answer ({type(error).__name__}): is it running?")

    @cached_property
    def _session(self) -> requests.Session:
        import requests

        session = requests.Session()
        variable = os.environ.get
        insecure = variable("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1")
        session.verify = variable("MLFLOW_TRACKING_SERVER_CERT_PATH") or not insecure
        user, token = variable("MLFLOW_TRACKING_USERNAME"), variable("MLFLOW_TRACKING_TOKEN")
        if user:
            session.auth = (user, variable("MLFLOW_TRACKING_PASSWORD", ""))
        elif token:
            session.auth = _Bearer(token)
        return session


class _Bearer:
    # A header of the session would be replaced by what ~/.netrc says of the host.
    def __init__(self, token: str) -> None:
        self.token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self.token}"
        return request


class Local:
    """A store without a server, as on the machine of a developer; needs MLflow.

    Parameters
    ----------
    settings : Settings
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.address = tracking.uri(settings)

    def find(self, reference: Reference) -> tuple[str, str]:
        """Look which version it is."""
        if not tracking.exists(self.settings):
            raise RegistryError(f"{self.address} is not there yet: run the pipeline first")
        with self._opened(reference.name) as store:
            number = reference.number or store.aliases().get(str(reference.alias))
            if not number:
                raise RegistryError(f"{reference} is not in {tracking.shown(self.address)}")
            return number, store.version(number).run_id

    def download(self, name: str, number: str, folder: Path) -> Path:
        """Copy the bundle out of the model."""
        with self._opened(name) as store:
            try:
                return store.download(store.version(number), registry.BUNDLE, folder)
            except RegistryError as error:
                raise BundleError(str(error)) from error

    @contextmanager
    def _opened(self, name: str) -> Iterator[registry.Store]:
        if not find_spec("mlflow"):
            raise RegistryError(
                f"{tracking.shown(self.address)} is read with mlflow, which is not installed: "
                f"set {tracking.VARIABLE} to a tracking server"
            )
        section = self.settings.tracking.model_copy(update={"model": name})
        with registry.connect(self.settings.model_copy(update={"tracking": section})) as store:
            yield store
