"""The services of the serving benchmark: how each starts, what it is sent, what it answers."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from benchmarks.measure import install_peers
from scripts.demo import KIT, free_port

PEERS = KIT / "benchmarks/peers"


@dataclass(frozen=True)
class Candidate:
    """A service to measure.

    Attributes
    ----------
    title : str
    command : callable
        From a port to the words that start it.
    path : str
        Where it predicts.
    body : callable
        From a request, as `serving_model` wrote it, to what is posted.
    shares : callable or None
        From its answer to probabilities, (rows, classes); None: it does not predict.
    model : str
    sizes : tuple of int
        Rows of a request.
    extra : dict
        Of its environment.
    """

    title: str
    command: Callable[[int], list[Any]]
    path: str
    body: Callable[[dict[str, Any]], Any]
    shares: Callable[[Any], list[list[float]]] | None = None
    model: str = "boosting"
    sizes: tuple[int, ...] = (1,)
    extra: dict[str, str] = field(default_factory=dict)


def candidates(project, folder):
    """Name all services; the environments of peers are made when one of theirs starts."""
    python, bin_ = project / ".venv/bin/python", project / ".venv/bin"
    path = {"PATH": f"{bin_}:{os.environ['PATH']}"}
    rows = {"body": lambda request: {"rows": request["rows"]}}
    row = {"body": lambda request: request["rows"][0], "path": "/predict"}

    unmetered = KIT / "benchmarks/serving_unmetered.py"

    def model(name):
        return {"MODEL": str(folder / f"{name}.joblib")}

    def ours(title, bundle="boosting", sizes=(1,), start=("-m", "penguins", "serve"), **settings):
        return Candidate(
            title,
            lambda port: [python, *start],
            "/predict",
            shares=lambda answer: [
                list(each["probabilities"].values()) for each in answer["predictions"]
            ],
            model=bundle.partition("-")[0],
            sizes=sizes,
            extra={
                "PYTHONPATH": str(project / "src"),
                "APP_SERVING__PORT": "{port}",
                "APP_SERVING__BUNDLE": str(folder / bundle),
                **settings,
            },
            **rows,
        )

    def uvicorn(title, app, **more):
        words = ["--app-dir", PEERS, "--no-access-log", "--no-server-header"]
        words += ["--log-level", "warning", "--loop", "uvloop", "--http", "httptools"]
        return Candidate(
            title,
            lambda port: [python, "-m", "uvicorn", f"tutorial:{app}", "--port", port, *words],
            **{**row, **more},
        )

    def tutorial(title, name, path):
        return uvicorn(
            title,
            "app",
            path=path,
            model=name,
            shares=lambda answer: [list(answer["probabilities"].values())],
            extra=model(name),
        )

    def mlflow(title, name, sizes=(1,)):
        serve = ["models", "serve", "--env-manager", "local", "--model-uri"]
        return Candidate(
            title,
            lambda port: [bin_ / "mlflow", *serve, folder / f"{name}-mlflow", "--port", port],
            "/invocations",
            lambda request: {"dataframe_split": request["split"]},
            lambda answer: answer["predictions"],
            name,
            sizes,
            {**path, "UVICORN_ACCESS_LOG": "false"},
        )

    def bentoml(title, service, name="boosting", sizes=(1,)):
        def command(port):
            found = install_peers("serving", python) / "bin/bentoml"
            where = ["--working-dir", PEERS, "--host", "127.0.0.1", "--port", port]
            return [found, "serve", f"bento:{service}", *where]

        home = {"BENTOML_HOME": str(folder / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}
        return Candidate(
            title,
            command,
            "/predict",
            shares=lambda answer: answer,
            model=name,
            sizes=sizes,
            extra={**home, **model(name)},
            **rows,
        )

    def litserve(title, batch, name="boosting", sizes=(1,)):
        def command(port):
            found = install_peers("serving", python) / "bin/python"
            return [found, PEERS / "lit.py", port, batch]

        return Candidate(
            title,
            command,
            "/predict",
            shares=lambda answer: answer,
            model=name,
            sizes=sizes,
            extra=model(name),
            **rows,
        )

    def mlserver_command(port):
        place = folder / "mlserver"
        place.mkdir(exist_ok=True)
        content = {
            "name": "pipeline",
            "implementation": "mlserver_runtime.Pipeline",
            "parameters": {"uri": str(folder / "boosting.joblib")},
        }
        (place / "model-settings.json").write_text(json.dumps(content))
        return [install_peers("serving-mlserver", python) / "bin/mlserver", "start", place]

    return {
        "ours": ours("ours, as generated", sizes=(1, 32, 256)),
        "ours-no-events": ours("ours, events off", APP_EVENTS__MODE="off"),
        "ours-fsync": ours("ours, events on disk (fdatasync)", APP_EVENTS__MODE="disk"),
        "ours-no-metrics": ours("ours, metrics off", start=[unmetered]),
        "ours-fallback": ours("ours, without ONNX", "boosting-fallback"),
        "ours-forest": ours("ours, forest", "forest"),
        "ours-forest-fallback": ours("ours, forest without ONNX", "forest-fallback"),
        "ours-linear": ours("ours, linear", "linear"),
        "bare": uvicorn("bare ASGI, nothing done", "bare"),
        "starlette": uvicorn("empty Starlette", "starlette"),
        "fastapi-raw": uvicorn("empty FastAPI, raw request", "raw"),
        "fastapi": uvicorn("empty FastAPI, pydantic body", "pydantic"),
        "tutorial": tutorial("FastAPI, pandas, scikit-learn (async def)", "boosting", "/async"),
        "tutorial-sync": tutorial("the same (def)", "boosting", "/sync"),
        "tutorial-forest": tutorial("the same, forest (async def)", "forest", "/async"),
        "mlflow": mlflow("mlflow models serve", "boosting", (1, 32, 256)),
        "mlflow-forest": mlflow("mlflow models serve, forest", "forest"),
        "mlflow-linear": mlflow("mlflow models serve, linear", "linear"),
        "bentoml": bentoml("BentoML", "Plain"),
        "bentoml-batching": bentoml("BentoML, batching", "Batching", sizes=(1, 32, 256)),
        "bentoml-forest": bentoml("BentoML, forest", "Plain", "forest"),
        "litserve": litserve("LitServe", 1),
        "litserve-batching": litserve("LitServe, batches of 32", 32, sizes=(1, 32, 256)),
        "litserve-forest": litserve("LitServe, forest", 1, "forest"),
        "mlserver": Candidate(
            "MLServer",
            mlserver_command,
            "/v2/models/pipeline/infer",
            columns_of,
            shares_of_tensor,
            extra={
                "PYTHONPATH": str(PEERS),
                "MLSERVER_HOST": "127.0.0.1",
                "MLSERVER_HTTP_PORT": "{port}",
                "MLSERVER_GRPC_PORT": str(free_port()),
                "MLSERVER_METRICS_PORT": str(free_port()),
                # In its own process the model answers faster than in a worker's.
                "MLSERVER_PARALLEL_WORKERS": "0",
            },
        ),
    }


def knows(project, variable):
    """Say whether params.yaml has what a variable of the environment would override."""
    if not variable.startswith("APP_"):
        return True
    section, _, key = variable.removeprefix("APP_").lower().partition("__")
    settings = yaml.safe_load((project / "params.yaml").read_text())
    return key in settings.get(section, {})


def columns_of(request):
    """Write a request as columns, for the Open Inference Protocol."""
    columns = request["split"]["columns"]
    inputs = []
    for name, values in zip(columns, zip(*request["split"]["data"], strict=True), strict=True):
        given = next((value for value in values if value is not None), 0.0)
        kinds = {bool: "BOOL", int: "INT64", float: "FP64", str: "BYTES"}
        kind = kinds[type(given)]
        inputs.append(
            {
                "name": name,
                "datatype": kind,
                "shape": [len(values), 1],
                "data": [0.0 if value is None else value for value in values],
                **({"parameters": {"content_type": "str"}} if kind == "BYTES" else {}),
            }
        )
    return {"inputs": inputs, "parameters": {"content_type": "pd"}}


def shares_of_tensor(answer):
    """Read the probabilities from a tensor of the Open Inference Protocol."""
    output = answer["outputs"][0]
    width, values = output["shape"][1], output["data"]
    return [values[start : start + width] for start in range(0, len(values), width)]
