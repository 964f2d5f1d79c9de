"""A small table with everything in it, and the whole road walked on it once."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from hypothesis import settings as hypothesis_settings

from {{ cookiecutter.package }} import bundle, checks, registry, release, stages
from {{ cookiecutter.package }} import store as stores
from {{ cookiecutter.package }}.artifacts import MODEL, TEST, TRAIN
from {{ cookiecutter.package }}.checks import Finding, Look, Model, Window
from {{ cookiecutter.package }}.contract import Column, Contract, Target
from {{ cookiecutter.package }}.events import Event
from {{ cookiecutter.package }}.inference import Predictor
from {{ cookiecutter.package }}.monitoring import monitor
from {{ cookiecutter.package }}.outcome import Outcome
from {{ cookiecutter.package }}.reference import (
    LOSS,
    PREDICTION,
    SCORE,
    Sample,
    codes,
    sample,
)
from {{ cookiecutter.package }}.settings import Settings

ROWS = 240
UNTIL_BUNDLE = ("snapshot", "contract", "prepare", "train", "evaluate", "package")

# A slow machine is no failure, and what fails fails each time.
hypothesis_settings.register_profile("patient", deadline=None, derandomize=True)
hypothesis_settings.load_profile("patient")


def settings_with(**sections) -> Settings:
    """Settings of a small, quick project; a section's values are given as a dict."""
    sections = {"project": {"name": "Garden"}, **sections}
    sections["data"] = {"source": "garden.csv", "target": "variety", **sections.get("data", {})}
    sections["evaluation"] = {"importance_repeats": 1, **sections.get("evaluation", {})}
    return Settings(**sections)


@pytest.fixture(scope="session", name="settings_with")
def settings_with_fixture():
    """The function that makes settings."""
    return settings_with


@pytest.fixture(scope="session")
def garden() -> pd.DataFrame:
    """Numbers, text, flags, dates, what must be left out, missing values, and three targets."""
    generator = np.random.default_rng(7)
    height = generator.normal(100, 15, ROWS).round(1)
    leaves = generator.integers(4, 60, ROWS)
    planted = pd.Timestamp("2024-01-01") + pd.to_timedelta(generator.integers(0, 700, ROWS), "D")
    frame = pd.DataFrame(
        {
            "id": range(1000, 1000 + ROWS),
            "Höhe (cm)": np.where(generator.random(ROWS) < 0.1, np.nan, height),
            "leaves": leaves,
            "bed": generator.choice(["Nord", "Süd", "Île"], ROWS),
            "treated": generator.choice(["yes", "no"], ROWS),
            "planted": planted.strftime("%Y-%m-%d"),
            "note": [f"seen on day {i} by {i * 7}" for i in range(ROWS)],
            "unit": "cm",
            "leaves again": leaves,
        }
    )
    frame.loc[generator.random(ROWS) < 0.05, "bed"] = None
    size = height + leaves
    frame["variety"] = np.select([size < 120, size < 145], ["dwarf", "middle"], "tall")
    frame["weight"] = size * 3.5 + generator.normal(0, 5, ROWS)
    frame["alive"] = size + generator.normal(0, 20, ROWS) > 110
    return frame


class Road:
    """A folder in which all stages ran."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        self.settings = settings
        self.said = {name: stages.STAGES[name](settings) for name in UNTIL_BUNDLE}
        self.predictor = Predictor.load(settings.serving.bundle)
        self.pipeline = bundle.load_model(MODEL)
        self.train = pd.read_parquet(TRAIN)
        self.test = pd.read_parquet(TEST)


@pytest.fixture(scope="session")
def walk(garden, tmp_path_factory):
    """Run all stages in a folder of its own, once for each choice of settings."""
    walked = {}

    def run(**sections) -> Road:
        key = repr(sections)
        if key not in walked:
            folder = tmp_path_factory.mktemp("road")
            frame = garden.drop(columns=sections.pop("without", []))
            frame.to_csv(folder / "garden.csv", index=False)
            sections["events"] = {
                "folder": folder / "events",
                "store": f"sqlite:///{folder}/events/store.db",
                **sections.get("events", {}),
            }
            own = {"bundle": folder / "bundle", "state": folder / "state"}
            sections["serving"] = {**own, **sections.get("serving", {})}
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(folder)
                walked[key] = Road(folder, settings_with(**sections))
        return walked[key]

    return run


TASKS = {
    "multiclass": {"data": {"target": "variety"}, "without": ["weight", "alive"]},
    "binary": {"data": {"target": "alive"}, "without": ["weight", "variety"]},
    "regression": {"data": {"target": "weight"}, "without": ["alive", "variety"]},
    "clustering": {"data": {"target": None}, "without": ["weight", "alive", "variety"]},
}


@pytest.fixture(scope="session")
def road(walk) -> Road:
    """The road to a classifier of three classes."""
    return walk(**TASKS["multiclass"])


@pytest.fixture(scope="session", params=list(TASKS))
def each_road(request, walk) -> Road:
    """The road of each task in turn."""
    return walk(**TASKS[request.param])


@pytest.fixture
def folder(road, tmp_path, monkeypatch) -> Path:
    """An empty folder with the table's source, as the working directory."""
    (tmp_path / "garden.csv").write_bytes((road.folder / "garden.csv").read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def roads(walk) -> dict[str, Road]:
    """The roads of all tasks."""
    return {task: walk(**sections) for task, sections in TASKS.items()}


class Desk:
    """A folder from which roads are registered in a store of its own."""

    def __init__(self, folder: Path, store: Path) -> None:
        self.folder = folder
        self.store = store

    def place(self, road: Road, model: str = "garden") -> Settings:
        """Lay out what a road left; give back the settings to register it with."""
        for name in ("contract.json", "data", "models", "reports", "bundle"):
            if (old := self.folder / name).is_dir():
                shutil.rmtree(old)
            copy = shutil.copytree if (road.folder / name).is_dir() else shutil.copyfile
            copy(road.folder / name, self.folder / name)
        tracking = {"uri": f"sqlite:///{self.store}", "model": model}
        sections = road.settings.model_dump() | {"tracking": tracking}
        sections["serving"] = sections["serving"] | {"bundle": self.folder / "bundle"}
        return Settings(**sections)


WEAK = {"training": {"params": {"C": 1e-4}}}


@pytest.fixture(scope="session")
def weak_road(walk) -> Road:
    """The road to a worse classifier, from the same rows."""
    return walk(**WEAK, **TASKS["multiclass"])


@pytest.fixture(scope="session")
def history(road, weak_road, tmp_path_factory) -> Path:
    """A store in which version 1, a weak one, is the champion, and version 2 the challenger.

    It is made once, as MLflow takes its time for it; each test works on a copy.
    """
    desk = Desk(tmp_path_factory.mktemp("history"), tmp_path_factory.mktemp("store") / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(desk.folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv("MLFLOW_RUN_ID", raising=False)
        settings = desk.place(weak_road)
        release.register(settings)
        release.promote(settings)
        release.register(desk.place(road))
    return desk.store


@pytest.fixture
def desk(history, tmp_path, monkeypatch) -> Desk:
    """An empty desk, as the working directory, on a copy of the store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    return Desk(tmp_path, Path(shutil.copyfile(history, tmp_path / "mlflow.db")))


@pytest.fixture
def opened():
    """The function that opens the store of some settings, for one look into it."""

    def look(settings, what):
        with registry.connect(settings) as store:
            return what(store)

    return look


QUANTILES = np.linspace(0, 100, 21).tolist()
SCORES = {"accuracy": 0.9, "balanced_accuracy": 0.85, "recall": {"no": 0.95, "yes": 0.75}}
BASE = {"accuracy": 0.6, "balanced_accuracy": 0.5, "recall": {"no": 1.0, "yes": 0.0}}
IMPORTANCE = {"height": {"mean": 0.2, "std": 0.02}, "bed": {"mean": 0.15, "std": 0.02}}


@pytest.fixture(scope="session")
def run_with() -> Callable[..., Outcome]:
    """The function that tells of a sound run of a binary classification, or of what is not."""
    return sound_run


def sound_run(**parts) -> Outcome:
    """A sound run of a binary classification; metrics, counts and more can be changed."""
    metrics = {
        "test": SCORES | parts.pop("scores", {}),
        "baseline": BASE,
        "importance": parts.pop("importance", IMPORTANCE),
        "intervals": parts.pop("intervals", {"balanced_accuracy": [0.81, 0.89]}),
    }
    columns = parts.pop("columns", (Column("height", "numeric"), Column("bed", "categorical")))
    reference = {
        "rows": 3000,
        "columns": {
            "height": {"kind": "numeric", "missing": 0.0, "quantiles": QUANTILES},
            "bed": {"kind": "categorical", "missing": 0.0, "shares": {"Nord": 0.5, "Süd": 0.5}},
        },
    }
    rows = parts.pop("test_rows", 1000)
    card = {
        "name": "Garden",
        "version": "0123456789ab",
        "estimator": "ridge",
        "data": {"source": "garden.csv", "sha256": "f" * 64, "rows": 3000 + rows, "columns": 3}
        | {"training_rows": 3000, "test_rows": rows},
        "settings": {"data": {"time": None}},
        "libraries": {"python": "3.12.1"},
        "cross_validation": {"metric": "balanced_accuracy", "mean": 0.85, "std": 0.01}
        | {"folds": parts.pop("folds", [0.84, 0.85, 0.86])},
    }
    counts = {"train": {"no": 1800, "yes": 1200}, "test": {"no": 600, "yes": 400}}
    contract = Contract("binary", Target("alive", ("no", "yes")), columns)
    run = Outcome(contract, card, reference, metrics, targets=counts)
    return replace(run, **parts)


@pytest.fixture
def address(tmp_path) -> str:
    """The address of an empty store; TEST_STORE may name a PostgreSQL database to be emptied."""
    url = os.environ.get("TEST_STORE")
    if url:
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP SCHEMA public CASCADE")
            connection.exec_driver_sql("CREATE SCHEMA public")
        engine.dispose()
    return url or f"sqlite:///{tmp_path}/store.db"


@pytest.fixture(scope="session")
def made_event() -> Callable[..., Event]:
    """The function that makes an event that can be told from others; parts can be given."""

    def make(number=0, rows=1, **parts):
        base = f"{number:032x}"
        answers = [
            {
                "id": f"{base}-{i}",
                "prediction": "tall",
                "probabilities": {"tall": 0.75, "dwarf": 0.25},
                "score": None,
                "warnings": [],
            }
            for i in range(rows)
        ]
        body = {"rows": [{"n": number, "i": i} for i in range(rows)]}
        event = {
            "ts": 1000.0 + number,
            "request_id": f"request {number}",
            "base": base,
            "name": "Garden",
            "version": "0123456789ab",
            "schema": "f" * 64,
            "role": "champion",
            "status": 200,
            "latency_ms": 0.5,
            "body": json.dumps(body).encode(),
            "answer": json.dumps({"predictions": answers}).encode(),
        }
        return Event(**event | parts)

    return make


@pytest.fixture
def judge(address) -> Callable[[str], int]:
    """The function that has a monitor find the model steady, drifting or degraded."""

    def find(status: str) -> int:
        model, more = Model("Garden", "0123456789ab"), status == "drift"
        leaves = Finding("leaves", "shape", 0.4, 1e-9, more, 1000, "higher")
        bed = Finding("bed", "unseen", 0.0, 1.0, False, 1000, "same")
        loss = Finding("(loss)", "loss", 0.1, 1e-6, status == "degraded", 320, "higher", 0.05)
        performed = Window(model, "performance", "checked", 320, 320, findings=(loss,))
        performed = replace(performed, alarm=loss.alarm, confirmed=loss.alarm)
        performed = replace(performed, detail={"labelled": 320})
        drifted = Window(model, "drift", "checked", 1000, 1000, 1.0, 2.0, "a", more, more)
        drifted = replace(drifted, findings=(leaves, bed), detail={"untested": {"note": "gone"}})
        with stores.opened(address) as store:
            for window in (drifted, performed):
                with store.reading() as connection:
                    known = checks.read(connection, model, window.kind, 1)
                checks.write(store, window, known[-1].id if known else None)
            waits = {"state": "window not full", "detail": {"waiting": 7, "late": 2}}
            look = Look(model, status, waits, {"state": "checked", "detail": {}})
            checks.looked(store, look)
            with store.reading() as connection:
                told = checks.verdicts(connection, look)
            return told[status == "degraded"].id

    return find


COLORS = ("blue", "green", "red")
KINDS = {"binary": ("dwarf", "tall"), "clustering": ("inlier", "outlier")}


def drawn(random: np.random.Generator, task: str, shift: float = 0.0, flips: float = 0.0):
    """Draw one row, what a model answers to it, and what is true of it."""
    height, noise = random.normal(100 + shift, 10), random.normal(0, 3)
    row, wrong = {"height": height, "color": COLORS[random.integers(3)]}, random.random() < flips
    if task == "clustering":
        kind = KINDS[task][abs(height - 100) > 20]
        return row, {"prediction": kind, "score": noise}, None
    if task == "regression":
        return row, {"prediction": height, "score": height}, height + noise + 20 * wrong
    share = float(1 / (1 + np.exp(-(height - 100) / 3)))
    output = {"prediction": KINDS[task][share > 0.5], "score": max(share, 1 - share)}
    truth = KINDS[task][(height + noise > 100) != wrong]
    return row, {**output, "probabilities": {"dwarf": 1 - share, "tall": share}}, truth


@cache
def drawn_samples(task: str, rows: int) -> tuple[Sample, ...]:
    """The reference of rows that are drawn so."""
    random = np.random.default_rng(1)
    found = [drawn(random, task) for _ in range(rows)]
    said = [output["prediction"] for _, output, _ in found]
    colors = np.array([COLORS.index(row["color"]) for row, _, _ in found], dtype=float)
    values = np.array(said) if task == "regression" else codes(KINDS[task], said)
    columns = [
        ("height", None, np.array([row["height"] for row, _, _ in found])),
        ("color", COLORS, colors),
        (PREDICTION, KINDS.get(task), values),
        (SCORE, None, np.array([output["score"] for _, output, _ in found])),
    ]
    if task == "regression":
        off = [abs(output["prediction"] - truth) for _, output, truth in found]
        columns[-1] = (LOSS, None, np.array(off))
    elif task == "binary":
        wrong = [output["prediction"] != truth for _, output, truth in found]
        columns.append((LOSS, None, np.array(wrong, dtype=float)))
    return tuple(sample(*column) for column in columns)


class Stream:
    """Events of a small model, drawn at random into a store, and what the monitor says of them.

    Its window is of 100 events and goes on by 50; events are a second apart, from `START` on.
    """

    START = 1_000_000.0

    def __init__(self, address: str, patch: pytest.MonkeyPatch, task: str = "binary") -> None:
        self.model, self.task, self.address = Model("Garden", "v1"), task, address
        self.random, self.made, self.truths = np.random.default_rng(0), 0, {}
        self.monitoring = {"window": 100, "step": 50, "labels": 50, "settle_seconds": 0}
        columns = (
            Column("height", "numeric", nullable=True),
            Column("color", "categorical", nullable=True, categories=COLORS),
        )
        kinds = () if task == "regression" else KINDS[task]
        target = None if task == "clustering" else Target("kind", kinds)
        self.contract = Contract(task, target, columns)
        self.samples = drawn_samples(task, 2000)
        patch.setattr(monitor, "subject", lambda _: self.subject)

    @property
    def subject(self) -> monitor.Subject:
        return monitor.Subject(self.model, self.contract, self.samples, {"metrics": {}}, Path())

    def add(self, number: int, shift: float = 0.0, flips: float = 0.0, change=None, **parts):
        """Store events; `change` may alter a row, `parts` columns of the store. Return the ids.

        A part may be a function of the event's number.
        """
        stored, ids = [], []
        for _ in range(number):
            row, output, truth = drawn(self.random, self.task, shift, flips)
            self.made += 1
            name = f"{self.made:08x}-0"
            values = {
                "prediction_id": name,
                "request_id": f"r{self.made}",
                "ts": self.START + self.made,
                "model_name": self.model.name,
                "model_version": self.model.version,
                "role": "champion",
                "schema_hash": "f",
                "features": json.dumps((change or (lambda same: same))(row)),
                "output": json.dumps(output),
                "score": output["score"],
                "latency_ms": 0.5,
                "status": 200,
            }
            made = {key: part(self.made) if callable(part) else part for key, part in parts.items()}
            stored.append(values | made)
            ids.append(name)
            self.truths[name] = truth
        with stores.opened(self.address) as store, store.writing() as connection:
            connection.execute(sa.insert(stores.prediction_event), stored)
        return ids

    def tell(self, ids, labels=None) -> None:
        """Store the truths of some events, or other labels."""
        told = [self.truths[name] for name in ids] if labels is None else labels
        pairs = zip(ids, told, strict=True)
        rest = {"observed_at": None, "source": None}
        with stores.opened(self.address) as store:
            store.record([{"prediction_id": n, "label": json.dumps(t), **rest} for n, t in pairs])

    def look(self, now: float | None = None, **events) -> monitor.Outcome:
        """Let the monitor look, at once after the last event."""
        settings = settings_with(
            monitoring=self.monitoring, events={"store": self.address, **events}
        )
        return monitor.monitor(settings, self.START + self.made if now is None else now)

    def windows(self, kind="drift") -> list[Window]:
        """All windows that were checked of the model."""
        with stores.opened(self.address) as store, store.reading() as connection:
            return checks.read(connection, self.model, kind, 1000)


@pytest.fixture
def stream_of(address, monkeypatch) -> Callable[..., Stream]:
    """The function that begins a stream of a task."""
    return lambda task="binary": Stream(address, monkeypatch, task)


@pytest.fixture
def stream(stream_of) -> Stream:
    """A stream of a classification."""
    return stream_of()
