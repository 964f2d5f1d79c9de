"""Runs: what MLflow keeps of a finished pipeline, written at once and never twice."""

import getpass
import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .contract import Column, Contract
from .tracking import sqlite_file

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient

# Tags: what a run was made from, and who is writing it.
DIGEST, HOST, PROCESS = "digest", "host", "process"


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


class Runs:
    """The runs of one registered model.

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
        # Where `mlflow run` began a run, all goes into that.
        self.given = os.environ.get("MLFLOW_RUN_ID")
        self.experiment = (
            client.get_run(self.given).info.experiment_id if self.given else self._experiment()
        )

    def keep(self, record: Record, packaged: PackagedModel) -> tuple[str, str]:
        """Keep a run with its model; a finished one of the same digest is used again.

        Returns
        -------
        run_id, model_id : str
        """
        if self.given:
            self.fill(self.given, record)
            return self.given, self._model(self.given, packaged)
        if run := self._finished(record.digest):
            return run
        run_id = self.client.create_run(
            self.experiment,
            run_name=f"{record.params.get('estimator', 'model')} {record.tags['bundle_version']}",
            tags={DIGEST: record.digest, HOST: platform.node(), PROCESS: str(os.getpid())},
        ).info.run_id
        try:
            self.fill(run_id, record)
            model = self._model(run_id, packaged)
            self.client.set_terminated(run_id)
        except BaseException:
            with suppress(Exception):
                self._remove(run_id)
            raise
        return run_id, model

    def _experiment(self) -> str:
        """Return the experiment's id; a new one beside SQLite keeps its files beside it, too."""
        from mlflow.exceptions import MlflowException

        if known := self.client.get_experiment_by_name(self.model):
            if known.lifecycle_stage != "active":
                self.client.restore_experiment(known.experiment_id)
            return str(known.experiment_id)
        place = None
        if file := sqlite_file(self.uri):
            place = (file.absolute().parent / "mlartifacts" / self.model).as_uri()
        try:
            return str(self.client.create_experiment(self.model, place))
        except MlflowException:
            # Another process was quicker.
            if known := self.client.get_experiment_by_name(self.model):
                return str(known.experiment_id)
            raise

    def _finished(self, digest: str) -> tuple[str, str] | None:
        """Return the ids of the run that was made from the same files, and of its model."""
        for run in self.client.search_runs(
            [self.experiment], f"attributes.status = 'FINISHED' and tags.{DIGEST} = '{digest}'"
        ):
            if run.outputs and run.outputs.model_outputs:
                return run.info.run_id, run.outputs.model_outputs[0].model_id
        return None

    def sweep(self, digest: str) -> None:
        """Remove the runs of this machine's processes that were killed."""
        for run in self.client.search_runs(
            [self.experiment],
            f"attributes.status = 'RUNNING' and tags.{HOST} = '{platform.node()}'",
        ):
            same = run.data.tags.get(DIGEST) == digest
            if same or not _alive(int(run.data.tags.get(PROCESS, 0))):
                self._remove(run.info.run_id)

    def _remove(self, run_id: str) -> None:
        nested = self.client.search_runs([self.experiment], f"tags.mlflow.parentRunId = '{run_id}'")
        models = self.client.search_logged_models([self.experiment], f"source_run_id = '{run_id}'")
        for model in models:
            self.client.delete_logged_model(model.model_id)
        for run in nested:
            self.client.delete_run(run.info.run_id)
        self.client.delete_run(run_id)

    def fill(self, run_id: str, record: Record) -> None:
        """Write params, metrics, files and trials into a run."""
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
        for trial in record.trials:
            self._trial(run_id, metric, trial)

    def _trial(self, parent: str, metric: str, trial: dict[str, Any]) -> None:
        from mlflow.entities import Metric

        now = _milliseconds()
        tags = {"mlflow.parentRunId": parent, "trial": str(trial["number"])}
        run_id = self.client.create_run(
            self.experiment, tags=tags, run_name=f"trial {trial['number']}"
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

    def _model(self, run_id: str, packaged: PackagedModel) -> str:
        """Keep a bundle with a run as a model that MLflow can load; return the model's id."""
        from mlflow import pyfunc
        from mlflow.entities import LoggedModelOutput
        from mlflow.models import Model

        model = self.client.create_logged_model(self.experiment, self.model, run_id)
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


def who() -> str:
    """Return who is at work: the user of a workflow, or user and machine."""
    return os.environ.get("GITHUB_ACTOR") or f"{getpass.getuser()}@{platform.node()}"


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
