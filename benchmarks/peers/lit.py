"""LitServe: `python lit.py <port> <batch size>`, with the path of a fitted pipeline in MODEL."""

import os
import sys
from typing import Any

import joblib
import litserve
import pandas as pd


class Plain(litserve.LitAPI):
    """Answers each request by itself."""

    def setup(self, device: str) -> None:
        """Load the pipeline in the worker."""
        self.model = joblib.load(os.environ["MODEL"])

    def decode_request(self, request: dict[str, Any]) -> pd.DataFrame:
        """Take the rows of a request."""
        return pd.DataFrame(request["rows"])

    def predict(self, x: pd.DataFrame) -> Any:
        """Return the probabilities."""
        return self.model.predict_proba(x)

    def encode_response(self, output: Any) -> list[list[float]]:
        """Make them JSON."""
        return output.tolist()


class Batching(Plain):
    """Answers requests of the same number of rows that wait together as one batch."""

    def decode_request(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """Take the rows of a request; frames are made once a batch."""
        return request["rows"]

    def batch(self, inputs: list[list[dict[str, Any]]]) -> tuple[pd.DataFrame, list[int]]:
        """Put the rows of all requests into one frame."""
        return pd.DataFrame([row for rows in inputs for row in rows]), [
            len(each) for each in inputs
        ]

    def predict(self, x: tuple[pd.DataFrame, list[int]]) -> Any:
        """Return the probabilities, by request."""
        frame, counts = x
        shares = iter(self.model.predict_proba(frame).tolist())
        return [[next(shares) for _ in range(count)] for count in counts]

    def unbatch(self, output: Any) -> Any:
        """Give each request its own."""
        return output

    def encode_response(self, output: Any) -> list[list[float]]:
        """Leave what is JSON already."""
        return output


if __name__ == "__main__":
    port, size = map(int, sys.argv[1:])
    api = Plain() if size == 1 else Batching(max_batch_size=size, batch_timeout=0.005)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=60)
    server.run(
        host="127.0.0.1",
        port=port,
        num_api_servers=1,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
