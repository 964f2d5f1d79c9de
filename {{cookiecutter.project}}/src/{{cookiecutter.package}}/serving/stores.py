"""MLflow's registry as the service reads it: over HTTP without MLflow, which the image has not.

Nothing of this is imported where the service reads a folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from .. import registry, tracking
from ..errors import BundleError, RegistryError
from ..settings import Settings

if TYPE_CHECKING:
    import requests

    from .source import Reference

API = "api/2.0"
TIMEOUT_SECONDS = (3, 30)
BLOCK = 1 << 20
LONGEST = 200


class _AbsentError(RegistryError):
    """The server answers 404."""


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
        query = {"name": reference.name, "alias": reference.alias, "version": reference.number}
        path = "registered-models/alias" if reference.alias else "model-versions/get"
        found = self._json(path, query)
        version = found.get("model_version", {})
        if version.get("status", "READY") != "READY" or "version" not in version:
            raise RegistryError(f"{reference} is not ready: {version.get('status', 'unknown')}")
        return str(version["version"]), str(version.get("source", ""))

    def download(self, name: str, number: str, folder: Path) -> Path:
        """Get the card, and the files that it names."""
        from .. import bundle

        query = {"name": name, "version": number}
        origin = urlsplit(self._json("model-versions/get-download-uri", query)["artifact_uri"])

        def fetch(file: str) -> None:
            path = f"{registry.BUNDLE}/{file}"
            if origin.scheme == "mlflow-artifacts":
                place = quote(f"{origin.path.strip('/')}/{path}")
                answer = self._get(f"{API}/mlflow-artifacts/artifacts/{place}")
            else:
                # The server reads for us what only it has the key to.
                answer = self._get("model-versions/get-artifact", query | {"path": path})
            with answer, (folder / file).open("wb") as target:
                for block in answer.iter_content(BLOCK):
                    target.write(block)

        with self._answering():
            try:
                fetch(bundle.CARD)
                for file in bundle.files(folder):
                    fetch(file)
            except _AbsentError as error:
                raise BundleError(f"version {number} of {name} holds no bundle: {error}") from error
        return folder

    def _json(self, path: str, query: dict[str, Any]) -> dict[str, Any]:
        with self._answering(), self._get(f"{API}/mlflow/{path}", query) as answer:
            content: dict[str, Any] = answer.json()
            return content

    def _get(self, path: str, query: dict[str, Any] | None = None) -> requests.Response:
        answer = self._session.get(
            f"{self.address}/{path}", params=query, stream=True, timeout=TIMEOUT_SECONDS
        )
        if answer.status_code == HTTPStatus.OK:
            return answer
        with answer:
            said = " ".join(answer.text.split())[:LONGEST]
        absent = answer.status_code == HTTPStatus.NOT_FOUND
        raise (_AbsentError if absent else RegistryError)(
            f"{tracking.shown(self.address)}/{path} answers {answer.status_code}: {said}"
        )

    @contextmanager
    def _answering(self) -> Iterator[None]:
        import requests

        try:
            yield
        except (requests.RequestException, KeyError) as error:
            raise RegistryError(
                f"{tracking.shown(self.address)} does not answer as MLflow does "
                f"({type(error).__name__}): is it running?"
            ) from error

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
