"""One loaded model version, with all that it takes to answer requests with it."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from ..bundle import CONTRACT
from ..encoding import bounds
from . import schemas
from .answers import Model, encode
from .batching import Call, predict
from .rows import Decoder

if TYPE_CHECKING:
    from ..inference import Predictor

# Seconds that other requests may wait for one.
PATIENCE = 0.001
WARMING_ROWS, WARMING_ROUNDS = 32, 5


class Served:
    """A model with the shapes of its requests and answers.

    Parameters
    ----------
    predictor : Predictor

    Attributes
    ----------
    request, answer : type of BaseModel
        What OpenAPI shows.
    decode : Decoder
    model : Model
        The name and version that stand beside each answer.
    schema : str
        Hash of the contract.
    bounds : pair of ndarray, shape (n_features,)
        Outside of which a number is unfamiliar.
    rows_at_once : int
        How many rows take so little time that other requests may wait for them.
    """

    def __init__(self, predictor: Predictor) -> None:
        contract, card = predictor.contract, predictor.card
        self.predictor = predictor
        self.request = schemas.request_model(contract)
        self.answer = schemas.answer_model(contract)
        self.decode = Decoder(contract, self.request)
        self.model = Model(card["name"], card["version"])
        self.schema = card["files"][CONTRACT][:12]
        self.bounds = bounds(contract)
        self.rows_at_once = 1

    def warm(self) -> None:
        """Answer a few rows, and find out how long one takes."""
        predictor = self.predictor
        row = schemas.example_request(predictor.contract, predictor.examples)["rows"][0]
        body = encode({"rows": [row] * WARMING_ROWS})
        seconds = []
        for _ in range(WARMING_ROUNDS):
            start = perf_counter()
            call = Call(self, body, self.decode(body), "", "", start)
            predict(self, [call])
            seconds.append(perf_counter() - start)
        self.rows_at_once = max(1, int(PATIENCE * WARMING_ROWS / min(seconds)))


def load(bundle: Path) -> Served:
    """Load a bundle and prove that it answers: the first predictions are slower than all others."""
    from ..inference import Predictor

    served = Served(Predictor.load(bundle))
    served.warm()
    return served
