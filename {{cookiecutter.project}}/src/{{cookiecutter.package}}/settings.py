"""The settings: params.yaml, overridden by the environment, validated once and frozen."""

import json
import os
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as SettingsSourceError

from .errors import SettingsError

PREFIX = "APP_"
DELIMITER = "__"
RECORDED = ("PROJECT", "DATA", "PREPROCESSING", "TRAINING", "EVALUATION")

DatePart = Literal["year", "month", "day", "weekday", "hour"]


class Section(BaseModel):
    """A part of params.yaml; unknown keys are refused, values cannot change."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Project(Section):
    """What the project is called."""

    name: str
    description: str = ""


class Data(Section):
    """Where the rows come from and what is to be predicted."""

    source: str
    target: str | None = None
    task: Literal["auto", "classification", "regression", "clustering"] = "auto"
    exclude: tuple[str, ...] = ()
    delimiter: str | None = None
    encoding: str | None = None
    decimal: Literal[".", ","] | None = None
    time: str | None = None
    test_share: float = Field(default=0.25, gt=0, lt=1)
    seed: int = 0


class Preprocessing(Section):
    """The steps between a row and the estimator's input."""

    outliers: Literal["clip", "remove", "none"] = "clip"
    outlier_width: float = Field(default=3.0, gt=0)
    impute: Literal["median", "mean", "most_frequent", "none"] = "median"
    date_parts: tuple[DatePart, ...] = ("year", "month", "weekday", "hour")
    ratios: tuple[tuple[str, str], ...] = ()
    encode: Literal["auto", "onehot", "ordinal"] = "auto"
    scale: Literal["standard", "robust", "minmax", "none"] = "standard"


class Search(Section):
    """How long to look for the best estimator and preprocessing; not at all without trials."""

    trials: int = Field(default=0, ge=0)
    minutes: float = Field(default=0, ge=0)
    estimators: tuple[str, ...] = ()


class Training(Section):
    """The estimator and how it is validated."""

    estimator: str = "auto"
    params: dict[str, Any] = {}
    components: int = Field(default=0, ge=0)
    folds: int = Field(default=5, ge=2)
    seed: int = 0
    search: Search = Search()


class Evaluation(Section):
    """How much effort the report is worth."""

    importance_repeats: int = Field(default=5, ge=0)
    importance_rows: int = Field(default=2000, ge=1)


class Tracking(Section):
    """Where runs and models are kept: MLflow's store, and the registered model's name."""

    uri: str = "sqlite:///mlflow.db"
    model: str = "model"


class Gate(Section):
    """What a challenger has to show before it becomes the champion."""

    margin: float = Field(default=0.0, ge=0)
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    resamples: int = Field(default=2000, ge=100)
    floors: dict[str, float] = {}
    slice_rows: int = Field(default=30, ge=1)
    slice_loss: float = Field(default=0.05, ge=0)
    latency_ms: float = Field(default=100, gt=0)


class Image(Section):
    """The model that the image holds, and the server that has it."""

    model: str = "train"
    mlflow: str | None = None


class Serving(Section):
    """The inference service."""

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    bundle: Path = Path("bundle")
    source: str | None = None
    watch_seconds: float = Field(default=1, ge=0)
    allow_breaking: bool = False
    challenger: str | None = None
    canary: float = Field(default=0, ge=0, le=1)
    state: Path = Path(".cache/serving")
    admin_token: SecretStr | None = None
    workers: int = Field(default=1, ge=1)
    shutdown_seconds: int = Field(default=30, ge=1)
    max_body_bytes: int = Field(default=1_000_000, ge=1)
    max_rows: int = Field(default=10_000, ge=1)
    max_concurrent: int = Field(default=1000, ge=1)
    timeout_seconds: float = Field(default=30, gt=0)
    keys: Path | None = None
    cors: tuple[str, ...] = ()
    log_format: Literal["auto", "json", "text"] = "auto"
    log_requests: bool = False
    otlp: str | None = None


class Events(Section):
    """Where predictions are kept, how surely, how much of them, and for how long."""

    mode: Literal["off", "process", "disk"] = "process"
    folder: Path = Path("events")
    store: str = "sqlite:///events/store.db"
    features: tuple[str, ...] | None = None
    entity: str | None = None
    entity_secret: SecretStr | None = None
    retention_days: float = Field(default=90, ge=0)


class Monitoring(Section):
    """When later rows count as different from those in training."""

    alpha: float = Field(default=0.01, gt=0, lt=1)
    window: int = Field(default=1000, ge=30)
    step: int = Field(default=500, ge=1)
    confirmations: int = Field(default=2, ge=1)
    least_shape: float = Field(default=0.05, ge=0, le=1)
    least_share: float = Field(default=0.01, ge=0, le=1)
    ignore: tuple[str, ...] = ()
    labels: int = Field(default=300, ge=30)
    least_loss: float = Field(default=0.02, ge=0)
    settle_seconds: float = Field(default=30, ge=0)
    examples: int = Field(default=5, ge=0)


class Smtp(Section):
    """The server that sends e-mail."""

    host: str | None = None
    port: int = Field(default=587, ge=1, le=65535)
    starttls: bool = True
    user: str | None = None
    password: SecretStr | None = None
    sender: str | None = None


class Alerts(Section):
    """Who is told when drift or errors are confirmed, when they are over, and when nobody looks."""

    webhook: SecretStr | None = None
    email_to: tuple[str, ...] = ()
    smtp: Smtp = Smtp()


class Retraining(Section):
    """When the model is trained again, on which rows, and how its successor is tried."""

    cooldown_hours: float = Field(default=24, ge=0)
    triggers: tuple[Literal["drift", "degradation", "data"], ...] = ("drift", "degradation", "data")
    every_days: float = Field(default=0, ge=0)
    policy: Literal["auto", "append", "replace"] = "auto"
    rows: int = Field(default=5000, ge=60)
    held_out: int = Field(default=500, ge=30)
    shadow_events: int = Field(default=0, ge=0)
    shadow_days: float = Field(default=30, gt=0)


class Settings(BaseSettings):
    """All sections of params.yaml."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=PREFIX,
        env_nested_delimiter=DELIMITER,
        env_parse_none_str="null",
    )

    project: Project
    data: Data
    preprocessing: Preprocessing = Preprocessing()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    tracking: Tracking = Tracking()
    gate: Gate = Gate()
    image: Image = Image()
    serving: Serving = Serving()
    events: Events = Events()
    monitoring: Monitoring = Monitoring()
    alerts: Alerts = Alerts()
    retraining: Retraining = Retraining()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over params.yaml."""
        return env_settings, init_settings


def load(path: str | Path = "params.yaml") -> Settings:
    """Read the settings.

    Parameters
    ----------
    path : path-like
        The YAML file with all sections.

    Returns
    -------
    Settings
        Frozen; values from the environment (``APP_<SECTION>__<KEY>``) come first.

    Raises
    ------
    SettingsError
        Where the file is missing, is no YAML, or a value cannot be used.
    """
    if not Path(path).is_file():
        raise SettingsError(f"{path} not found in {Path.cwd()}: run this in the project's folder")
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise SettingsError(
            f"{path} holds no sections; expected {', '.join(Settings.model_fields)}"
        )
    _refuse_unknown_variables()
    try:
        return Settings(**values)
    except ValidationError as error:
        raise SettingsError(f"{path}: {_explain(error)}") from error
    except SettingsSourceError as error:
        raise SettingsError(f"environment: {error}") from error


def require_recordable(settings: Settings) -> None:
    """Refuse what DVC would not notice: it compares params.yaml and files, nothing else.

    Raises
    ------
    SettingsError
        Where the environment overrides a setting of a stage, or the source is no file or folder.
    """
    for name in sorted(os.environ):
        if name.startswith(tuple(f"{PREFIX}{section}{DELIMITER}" for section in RECORDED)):
            raise SettingsError(f"{name}: DVC records what stands in params.yaml; set it there")
    source = settings.data.source
    if not Path(source).exists():
        raise SettingsError(
            f"data.source: {source!r} not found; expected a CSV or Parquet file, a folder of "
            "Parquet files, or a file ending in .sql with a query"
        )


def require_decidable(settings: Settings) -> None:
    """Refuse what leaves every challenger to a person, however many truths there are.

    Raises
    ------
    SettingsError
        Where fewer rows are held out than a verdict needs.
    """
    wanted, least = settings.retraining, settings.monitoring.labels
    for name, needed in (("held_out", least), ("rows", 2 * least)):
        if (found := getattr(wanted, name)) < needed:
            raise SettingsError(
                f"retraining.{name} is {found:,}, expected {needed:,} or more: the gate decides on "
                f"at least {least:,} truths (monitoring.labels), of rows that are held out"
            )


def value(settings: Settings, key: str) -> str:
    """Return one setting as text, JSON where it is no text; secrets stay hidden.

    Raises
    ------
    SettingsError
        Where there is no such setting.
    """
    found: Any = settings.model_dump(mode="json")
    for part in key.split("."):
        if not isinstance(found, dict) or part not in found:
            raise SettingsError(f"{key!r} is no setting; expected one such as image.model")
        found = found[part]
    return found if isinstance(found, str) else json.dumps(found)


def _refuse_unknown_variables() -> None:
    """Refuse misspelt sections, which would otherwise be ignored without a word."""
    known = list(Settings.model_fields)
    for name in os.environ:
        section, delimiter, _ = name.removeprefix(PREFIX).lower().partition(DELIMITER)
        if name.startswith(PREFIX) and delimiter and section not in known:
            expected = ", ".join(known)
            raise SettingsError(f"{name}: no section {section!r}; expected one of {expected}")


def _explain(error: ValidationError) -> str:
    """One line: every wrong value, what was expected, and what was found."""
    problems = []
    for problem in error.errors():
        place = ".".join(str(part) for part in problem["loc"])
        found = "" if problem["type"] == "missing" else f", not {problem['input']!r}"
        if problem["type"] == "extra_forbidden":
            problems.append(f"{place} is unknown (misspelt?)")
        else:
            problems.append(f"{place}: {problem['msg']}{found}")
    return "; ".join(problems)
