"""The registry: MLflow's store of runs and model versions, and the two aliases that matter.

`champion` is the version that serves, `challenger` the newest one that wants to. MLflow takes
seconds to import, so here, in `runs` and in `tracking` only functions do it.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import RegistryError
from .runs import DIGEST, PackagedModel, Record, Runs, who
from .settings import Settings
from .tracking import line, opened, shown

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION, CHALLENGER = "champion", "challenger"
BUNDLE = "data/bundle"
# Of the registered model: the move of its champion that is under way.
PENDING = "pending"
DECISION = "decision."
MOST_FIGURES = 4000


@dataclass(frozen=True)
class Version:
    """One version of the registered model."""

    number: str
    run_id: str
    tags: Mapping[str, str]

    @property
    def decisions(self) -> list[dict[str, Any]]:
        """What was decided about it, oldest first: promoted, refused, rolled back."""
        return [
            json.loads(text)
            for name, text in sorted(self.tags.items())
            if name.startswith(DECISION)
        ]


class Store:
    """MLflow's store, opened for one registered model.

    Parameters
    ----------
    client : MlflowClient
    uri : str
    model : str
        The registered model's name, which is the experiment's too.
    """

    def __init__(self, client: "MlflowClient", uri: str, model: str) -> None:
        self.client = client
        self.uri = uri
        self.model = model

    def aliases(self) -> dict[str, str]:
        """Return the version number that each alias stands for; empty where nothing is there."""
        registered = self._registered()
        aliases = registered.aliases if registered else {}
        return {name: str(number) for name, number in aliases.items()}

    def version(self, number: str) -> Version:
        """Return one version."""
        return _version(self.client.get_model_version(self.model, number))

    def aliased(self, alias: str) -> Version | None:
        """Return the version that an alias stands for, if any."""
        number = self.aliases().get(alias)
        return self.version(number) if number else None

    def versions(self, condition: str = "") -> list[Version]:
        """Return all versions, oldest first, that meet a condition in MLflow's filter language."""
        found, token = [], None
        while token != "":
            page = self.client.search_model_versions(
                f"name = '{self.model}'{condition}", max_results=1000, page_token=token
            )
            found += [_version(version) for version in page]
            token = page.token or ""
        return sorted(found, key=lambda version: int(version.number))

    def made_from(self, digest: str) -> Version | None:
        """Return the newest version that was made from the same files."""
        found = self.versions(f" and tags.{DIGEST} = '{digest}'")
        return found[-1] if found else None

    def challenge(self, version: Version) -> None:
        """Let a version be the challenger."""
        self.client.set_registered_model_alias(self.model, CHALLENGER, version.number)

    def download(self, version: Version, path: str, folder: Path) -> Path:
        """Copy a file or folder of a version's model, such as `BUNDLE`, into a folder.

        Raises
        ------
        RegistryError
            Where it is not there any more.
        """
        return self._download(f"models:/{self.model}/{version.number}/{path}", folder)

    def download_of_run(self, version: Version, path: str, folder: Path) -> Path:
        """Copy a file of the run that made a version into a folder."""
        return self._download(f"runs:/{version.run_id}/{path}", folder)

    def _download(self, address: str, folder: Path) -> Path:
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        try:
            found = download_artifacts(
                address, dst_path=str(folder), tracking_uri=self.uri, registry_uri=self.uri
            )
        except (OSError, MlflowException) as error:
            raise RegistryError(
                f"{address} cannot be read ({line(error)}): were the files beside "
                f"{shown(self.uri)} moved or deleted?"
            ) from error
        return Path(found)

    def _registered(self) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            return self.client.get_registered_model(self.model)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise

    def events(self) -> list[dict[str, Any]]:
        """Return every decision about any version, oldest first."""
        events = [event for version in self.versions() for event in version.decisions]
        return sorted(events, key=lambda event: int(event["number"]))

    def record(self, event: dict[str, Any]) -> None:
        """Keep a decision as a tag of the version that it is about."""
        name = f"{DECISION}{event['number']:04}"
        self.client.set_model_version_tag(self.model, event["version"], name, _dump(event))

    def crown(self, event: dict[str, Any]) -> None:
        """Move the alias `champion` to ``event["champion"]`` and keep the decision.

        The intention is written first, then the alias moves, then the rest follows from both: a
        kill in between leaves the old champion, or a move that `settle` completes.
        """
        self.client.set_registered_model_tag(self.model, PENDING, _dump(event))
        self.client.set_registered_model_alias(self.model, CHAMPION, event["champion"])
        self._complete(event)

    def settle(self) -> None:
        """Complete a move of the champion that was killed half-way, or forget it."""
        registered = self._registered()
        if registered is None or PENDING not in registered.tags:
            return
        event = json.loads(registered.tags[PENDING])
        if self.aliases().get(CHAMPION) == event["champion"]:
            self._complete(event)
        else:
            self.client.delete_registered_model_tag(self.model, PENDING)

    def _complete(self, event: dict[str, Any]) -> None:
        self.record(event)
        if self.aliases().get(CHALLENGER) == event["champion"]:
            self.client.delete_registered_model_alias(self.model, CHALLENGER)
        self.client.delete_registered_model_tag(self.model, PENDING)

    def log(self, record: Record, packaged: PackagedModel) -> Version:
        """Keep a run with its model, and register the model as a new version.

        Nothing is done twice: a finished run of the same digest is used again, and what a killed
        process left unfinished is removed.

        Returns
        -------
        Version
        """
        runs = Runs(self.client, self.uri, self.model)
        runs.sweep(record.digest)
        known = self.made_from(record.digest)
        if known is None:
            return self._register(*runs.keep(record, packaged), record)
        if runs.given:
            runs.fill(runs.given, record)
        return known

    def tag(self, version: Version, tags: Mapping[str, str]) -> None:
        """Tell more about a version and the run that made it."""
        for name, value in tags.items():
            self.client.set_model_version_tag(self.model, version.number, name, value)
            self.client.set_tag(version.run_id, name, value)

    def attach(self, run_id: str, path: Path) -> None:
        """Keep one more file with a run."""
        self.client.log_artifact(run_id, str(path))

    def _register(self, run_id: str, model_id: str, record: Record) -> Version:
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(self.model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        return _version(
            self.client.create_model_version(
                self.model,
                f"models:/{model_id}",
                run_id,
                tags={DIGEST: record.digest, **record.tags},
                model_id=model_id,
            )
        )


@contextmanager
def connect(settings: Settings) -> Iterator[Store]:
    """Open the store, and make it where it is a SQLite file that is not there yet.

    Raises
    ------
    RegistryError
        As `tracking.opened` does.
    """
    with opened(settings) as (client, address):
        yield Store(client, address, settings.tracking.model)


def event(number: int, version: str, decision: str, why: str, **facts: Any) -> dict[str, Any]:
    """Make the record of a decision.

    Parameters
    ----------
    number : int
        Its position among all decisions.
    version : str
        Which it is about.
    decision : str
        promoted, refused, undecided or rolled back.
    why : str
    **facts
        Further ones: ``champion`` and ``previous`` where the champion changed, ``figures``.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    made = {"number": number, "version": version, "decision": decision, "who": who(), "when": now}
    return {**made, "why": why, **facts}


def _dump(event: dict[str, Any]) -> str:
    """Write an event as a tag; long figures are left out, as PostgreSQL has 5,000 characters."""
    text = json.dumps(event, ensure_ascii=False, default=float)
    if len(text) <= MOST_FIGURES:
        return text
    shorter = {**event, "why": event["why"][: MOST_FIGURES // 2], "figures": {}}
    return json.dumps(shorter, ensure_ascii=False, default=float)


def _version(found: Any) -> Version:
    return Version(str(found.version), str(found.run_id), dict(found.tags))
