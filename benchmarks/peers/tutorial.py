"""Services as one writes them, and services that do nothing: the two ends of the scale.

`uvicorn tutorial:app` with the path of a fitted pipeline in MODEL, where it predicts.
"""

import os
from typing import Any

from fastapi import FastAPI, Request
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

ANSWER = {"probabilities": {"leaves": 0.25, "stays": 0.75}}


class Row(BaseModel):
    """One row of the benchmark's data."""

    reading_0: float | None
    reading_1: float
    reading_2: float
    reading_3: float
    reading_4: float
    reading_5: float
    age: int
    visits: int
    member: bool
    urban: bool
    region: str
    plan: str
    device: str
    channel: str


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """Read the body, send an answer, do nothing else."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


async def _read(request: Request) -> JSONResponse:
    await request.body()
    return JSONResponse(ANSWER)


starlette = Starlette(routes=[Route("/predict", _read, methods=["POST"])])

raw = FastAPI()


@raw.post("/predict")
async def raw_endpoint(request: Request) -> Any:
    """Read the body, and no more."""
    await request.body()
    return ANSWER


pydantic = FastAPI()


@pydantic.post("/predict")
async def pydantic_endpoint(row: Row) -> Any:
    """Validate the body, and no more."""
    return ANSWER


app = FastAPI()
if "MODEL" in os.environ:
    import joblib
    import pandas as pd

    model = joblib.load(os.environ["MODEL"])


def _predicted(row: Row) -> dict[str, Any]:
    shares = model.predict_proba(pd.DataFrame([row.model_dump()]))[0].tolist()
    return {"probabilities": dict(zip(model.classes_.tolist(), shares, strict=True))}


@app.post("/async")
async def predict_async(row: Row) -> Any:
    """Predict in the event loop."""
    return _predicted(row)


@app.post("/sync")
def predict_sync(row: Row) -> Any:
    """Predict in a thread."""
    return _predicted(row)
