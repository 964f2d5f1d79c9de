"""The registry: MLflow's store of runs and model versions, and the two aliases that matter.

`champion` is the version that serves, `challenger` the newest one that wants to. All that this
project knows of MLflow stands here. MLflow takes seconds to import, so only functions do it.
"""

import getpass
import json
import os
import platform
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .contract import Column, Contract
from .errors import RegistryError
from .settings import Settings

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient

CHAMPION, CHALLENGER = "champion", "challenger"
BUNDLE = "data/bundle"
VARIABLE = "MLFLOW_TRACKING_URI"
DATABASES = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
WAIT_SECONDS = 3
ELSEWHERE = f"set tracking.uri or {VARIABLE}; sqlite:///mlflow.db needs no server"

# Of a run and of a model version: what it was made from. Of a run: who is writing it.
DIGEST, HOST, PROCESS = "digest", "host", "process"
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


@dataclass(frozen=True)
class Record:
    """All that a run is to hold.

    Attributes
    ----------
    digest : str
        Of what the run was made from; a finished run with the same one is not made again.
    params : dict of str to object
        Flat.
    metrics : dict of str to float
        Flat.
    folds : tuple of str and sequence of float
        The metric of the cross-validation and its value in each fold.
    trials : list of dict
        Of a search; each has number, state, value, params and folds.
    tags : dict of str to str
        Of the run and of its model version.
    files : Path
        A folder, all of which is kept with the run.
    dataset : dict
        source, sha256, rows and columns.
    """

    digest: str
    params: dict[str, Any]
    metrics: dict[str, float]
    folds: tuple[str, list[float]]
    trials: list[dict[str, Any]]
    tags: dict[str, str]
    files: Path
    dataset: dict[str, Any]


@dataclass(frozen=True)
class PackagedModel:
    """A bundle and what MLflow wants to know of it.

    Attributes
    ----------
    bundle : Path
    contract : Contract
    frame : DataFrame
        A few rows as they came from the source: the example, and the types of the signature.
    answer : dict
        prediction, probabilities and score of one row.
    requirements : list of str
    """

    bundle: Path
    contract: Contract
    frame: "pd.DataFrame"
    answer: dict[str, Any]
    requirements: list[str]


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
                f"{address} cannot be read ({_line(error)}): were the files beside "
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
        given = os.environ.get("MLFLOW_RUN_ID")
        experiment = self.client.get_run(given).info.experiment_id if given else self._experiment()
        self._sweep(experiment, record.digest)
        known = self.made_from(record.digest)
        if given:
            self._fill(given, record)
            return known or self._register(given, self._model(given, experiment, packaged), record)
        if known:
            return known
        if run := self._finished(experiment, record.digest):
            return self._register(*run, record)
        run_id = self.client.create_run(
            experiment,
            run_name=f"{record.params.get('estimator', 'model')} {record.tags['bundle_version']}",
            tags={DIGEST: record.digest, HOST: platform.node(), PROCESS: str(os.getpid())},
        ).info.run_id
        try:
            self._fill(run_id, record)
            model = self._model(run_id, experiment, packaged)
            self.client.set_terminated(run_id)
        except BaseException:
            with suppress(Exception):
                self._remove(experiment, run_id)
            raise
        return self._register(run_id, model, record)

    def attach(self, run_id: str, path: Path) -> None:
        """Keep one more file with a run."""
        self.client.log_artifact(run_id, str(path))

    def _experiment(self) -> str:
        """Return the experiment's id; a new one beside SQLite keeps its files beside it, too."""
        from mlflow.exceptions import MlflowException

        if known := self.client.get_experiment_by_name(self.model):
            if known.lifecycle_stage != "active":
                self.client.restore_experiment(known.experiment_id)
            return str(known.experiment_id)
        place = None
        if file := _sqlite_file(self.uri):
            place = (file.absolute().parent / "mlartifacts" / self.model).as_uri()
        try:
            return str(self.client.create_experiment(self.model, place))
        except MlflowException:
            # Another process was quicker.
            if known := self.client.get_experiment_by_name(self.model):
                return str(known.experiment_id)
            raise

    def _finished(self, experiment: str, digest: str) -> tuple[str, str] | None:
        """Return the ids of the run that was made from the same files, and of its model."""
        for run in self.client.search_runs(
            [experiment], f"attributes.status = 'FINISHED' and tags.{DIGEST} = '{digest}'"
        ):
            if run.outputs and run.outputs.model_outputs:
                return run.info.run_id, run.outputs.model_outputs[0].model_id
        return None

    def _sweep(self, experiment: str, digest: str) -> None:
        """Remove the runs of this machine's processes that were killed."""
        for run in self.client.search_runs(
            [experiment],
            f"attributes.status = 'RUNNING' and tags.{HOST} = '{platform.node()}'",
        ):
            same = run.data.tags.get(DIGEST) == digest
            if same or not _alive(int(run.data.tags.get(PROCESS, 0))):
                self._remove(experiment, run.info.run_id)

    def _remove(self, experiment: str, run_id: str) -> None:
        nested = self.client.search_runs([experiment], f"tags.mlflow.parentRunId = '{run_id}'")
        models = self.client.search_logged_models([experiment], f"source_run_id = '{run_id}'")
        for model in models:
            self.client.delete_logged_model(model.model_id)
        for run in nested:
            self.client.delete_run(run.info.run_id)
        self.client.delete_run(run_id)

    def _fill(self, run_id: str, record: Record) -> None:
        from mlflow.entities import Metric

        now = _milliseconds()
        metric, folds = record.folds
        metrics = [Metric(name, value, now, 0) for name, value in named(record.metrics).items()]
        metrics += [Metric(f"fold.{metric}", value, now, i) for i, value in enumerate(folds, 1)]
        tags = {**record.tags, "mlflow.user": who()}
        if commit := record.tags.get("git_commit"):
            tags["mlflow.source.git.commit"] = commit
        self._batch(run_id, metrics, record.params, tags)
        self.client.log_inputs(run_id, [_dataset(record.dataset)])
        self.client.log_artifacts(run_id, str(record.files))
        experiment = self.client.get_run(run_id).info.experiment_id if record.trials else ""
        for trial in record.trials:
            self._trial(experiment, run_id, metric, trial)

    def _trial(self, experiment: str, parent: str, metric: str, trial: dict[str, Any]) -> None:
        from mlflow.entities import Metric

        now = _milliseconds()
        tags = {"mlflow.parentRunId": parent, "trial": str(trial["number"])}
        run_id = self.client.create_run(
            experiment, tags=tags, run_name=f"trial {trial['number']}"
        ).info.run_id
        folds = enumerate(trial.get("folds") or [], 1)
        metrics = [Metric(f"fold.{metric}", value, now, i) for i, value in folds]
        if trial["value"] is not None:
            metrics.append(Metric(metric, trial["value"], now, 0))
        self._batch(run_id, metrics, flat(trial["params"]), {"state": trial["state"]})
        failed = trial["state"].upper().startswith("FAIL")
        self.client.set_terminated(run_id, "FAILED" if failed else "FINISHED")

    def _batch(
        self, run_id: str, metrics: list[Any], params: dict[str, Any], tags: dict[str, str]
    ) -> None:
        """Log all at once, in as many requests as MLflow's limits ask for."""
        from mlflow.entities import Param, RunTag

        texts = [Param(name, _text(value)) for name, value in named(params).items()]
        marks = [RunTag(name, value) for name, value in tags.items()]
        while metrics or texts or marks:
            self.client.log_batch(run_id, metrics[:800], texts[:100], marks[:100])
            metrics, texts, marks = metrics[800:], texts[100:], marks[100:]

    def _model(self, run_id: str, experiment: str, packaged: PackagedModel) -> str:
        """Keep a bundle with a run as a model that MLflow can load; return the model's id."""
        from mlflow import pyfunc
        from mlflow.entities import LoggedModelOutput
        from mlflow.models import Model

        model = self.client.create_logged_model(experiment, self.model, run_id)
        with tempfile.TemporaryDirectory() as scratch:
            bundle, folder = Path(scratch, "bundle"), Path(scratch, "model")
            shutil.copytree(packaged.bundle, bundle)
            signature, example = _signature(packaged)
            pyfunc.save_model(
                folder,
                loader_module=f"{__package__}.flavor",
                data_path=str(bundle),
                code_paths=[str(Path(__file__).parent)],
                pip_requirements=packaged.requirements,
                signature=signature,
                input_example=example,
                mlflow_model=Model(
                    artifact_path=model.artifact_location,
                    run_id=run_id,
                    model_id=model.model_id,
                    model_uuid=model.model_id,
                ),
            )
            for compiled in folder.rglob("__pycache__"):
                shutil.rmtree(compiled)
            self.client.log_model_artifacts(model.model_id, str(folder))
        self.client.finalize_logged_model(model.model_id, "READY")
        self.client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])
        return str(model.model_id)

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

    Yields
    ------
    Store

    Raises
    ------
    RegistryError
        Where the URI is none of MLflow's, nobody answers there, or MLflow refuses something.
    """
    address = uri(settings)
    _check(address)
    _quiet()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    before = os.environ.get(VARIABLE)
    # A new version's model is looked up where the environment says, whatever the client was given.
    os.environ[VARIABLE] = address
    try:
        if (file := _sqlite_file(address)) and not file.exists():
            _create(file)
        yield Store(MlflowClient(address, address), address, settings.tracking.model)
    except MlflowException as error:
        raise RegistryError(f"{shown(address)}: {_line(error)}") from error
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
    file = _sqlite_file(uri(settings))
    return file is None or file.is_file()


def shown(address: str) -> str:
    """Return a URI without its password."""
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", address)


def who() -> str:
    """Return who is at work: the user of a workflow, or user and machine."""
    return os.environ.get("GITHUB_ACTOR") or f"{getpass.getuser()}@{platform.node()}"


def event(number: int, version: str, decision: str, why: str, **facts: Any) -> dict[str, Any]:
    """Make the record of a decision.

    Parameters
    ----------
    number : int
        Its position among all decisions.
    version : str
        Which it is about.
    decision : str
        promoted, refused or rolled back.
    why : str
    **facts
        Further ones: ``champion`` and ``previous`` where the champion changed, ``figures``.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    made = {"number": number, "version": version, "decision": decision, "who": who(), "when": now}
    return {**made, "why": why, **facts}


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Name the leaves of nested mappings by the dotted path to them."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            leaves |= flat(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def numbers(tree: Mapping[str, Any]) -> dict[str, float]:
    """Return those leaves that are numbers."""
    return {
        name: float(value)
        for name, value in flat(tree).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


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
    if scheme == "sqlite" and (file := _sqlite_file(address)):
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
            f"{shown(address)} cannot be used ({_line(error)}): start the database, or {ELSEWHERE}"
        ) from error


def _sqlite_file(address: str) -> Path | None:
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


def _dataset(facts: Mapping[str, Any]) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name=Path(facts["source"]).name,
        digest=facts["sha256"][:36],
        source_type="local",
        source=json.dumps({"uri": facts["source"]}),
        profile=json.dumps({"num_rows": facts["rows"], "num_columns": facts["columns"]}),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


def _signature(packaged: PackagedModel) -> tuple[Any, "pd.DataFrame"]:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    names = [column.name for column in packaged.contract.features]
    example = packaged.frame[names]
    taken: list[Any] = []
    for column in packaged.contract.features:
        kind = _input_type(column, example[column.name])
        if kind == "double":
            example = example.astype({column.name: "float64"})
        taken.append(ColSpec(kind, column.name, required=not column.nullable))
    given: list[Any] = [ColSpec(_answer_type(packaged), "prediction")]
    probabilities = packaged.answer["probabilities"] or {}
    given += [ColSpec("double", f"probability_{name}") for name in probabilities]
    if packaged.answer["score"] is not None:
        given.append(ColSpec("double", "score"))
    return ModelSignature(Schema(taken), Schema(given)), example


def _input_type(column: Column, series: "pd.Series[Any]") -> str:
    """Return MLflow's type of a column as the source has it.

    MLflow casts nothing but small numbers: text that is read as a date or a flag stays text, and
    whole numbers become float where some are missing.
    """
    match series.dtype.kind:
        case "M":
            return "datetime"
        case "b":
            return "boolean"
        case "i" | "u":
            return "long" if column.kind == "integer" and not column.nullable else "double"
        case "f":
            return "double"
    given = series.dropna()
    flags = column.kind == "boolean" and len(given) and isinstance(given.iloc[0], bool)
    return "boolean" if flags else "string"


def _answer_type(packaged: PackagedModel) -> str:
    contract = packaged.contract
    if contract.task == "regression":
        return "double"
    known = contract.classes or (packaged.answer["prediction"],)
    types = {type(label) for label in known}
    names = {str: "string", bool: "boolean", int: "long", float: "double"}
    if len(types) == 1:
        return names[types.pop()]
    return "double" if types == {int, float} else "string"


def named(values: Mapping[str, Any]) -> dict[str, Any]:
    """Replace what MLflow allows in no name; names stay different."""
    taken: dict[str, Any] = {}
    for name, value in values.items():
        allowed = re.sub(r"[^\w.\- :]", "_", name)[:240]
        unique, count = allowed, 1
        while unique in taken:
            count += 1
            unique = f"{allowed}_{count}"
        taken[unique] = value
    return taken


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _dump(event: dict[str, Any]) -> str:
    """Write an event as a tag; long figures are left out, as PostgreSQL has 5,000 characters."""
    text = json.dumps(event, ensure_ascii=False, default=float)
    if len(text) <= MOST_FIGURES:
        return text
    shorter = {**event, "why": event["why"][: MOST_FIGURES // 2], "figures": {}}
    return json.dumps(shorter, ensure_ascii=False, default=float)


def _version(found: Any) -> Version:
    return Version(str(found.version), str(found.run_id), dict(found.tags))


def _line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return " ".join(text.split("\n")[0].split())


def _milliseconds() -> int:
    return int(datetime.now(UTC).timestamp() * 1000)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return process > 0
