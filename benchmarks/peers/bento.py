"""BentoML: `bentoml serve bento:Plain` or `bento:Batching`, the path of a pipeline in MODEL."""

import os
from typing import Any

import bentoml
import joblib
import pandas as pd

SETTINGS = {
    "workers": 1,
    "traffic": {"timeout": 60},
    "logging": {"access": {"enabled": False}},
    "metrics": {"enabled": False},
}


@bentoml.service(**SETTINGS)
class Plain:
    """Answers each request by itself."""

    def __init__(self) -> None:
        self.model = joblib.load(os.environ["MODEL"])

    @bentoml.api
    def predict(self, rows: list[dict[str, Any]]) -> list[list[float]]:
        """Return the probabilities of rows."""
        return self.model.predict_proba(pd.DataFrame(rows)).tolist()


@bentoml.service(**SETTINGS)
class Batching:
    """Answers requests that arrive together as one batch, by BentoML's adaptive batching."""

    def __init__(self) -> None:
        self.model = joblib.load(os.environ["MODEL"])

    @bentoml.api(batchable=True, max_batch_size=1024, max_latency_ms=10_000)
    def predict(self, rows: list[dict[str, Any]]) -> list[list[float]]:
        """Return the probabilities of the rows of several requests."""
        return self.model.predict_proba(pd.DataFrame(rows)).tolist()
