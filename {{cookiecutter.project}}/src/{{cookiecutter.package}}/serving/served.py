"""One loaded model version, with all that it takes to answer requests with it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from ..bundle import CONTRACT, same
from ..encoding import bounds
from ..errors import BundleError
from . import schemas
from .answers import encode
from .batching import Call, predict
from .rows import Decoder

if TYPE_CHECKING:
    from ..events import Role
    from ..inference import Predictor

# Seconds that others may wait for one. Beyond, a thread: there a request costs half as much again.
PATIENCE = 0.0025
WARMING_ROWS, WARMING_ROUNDS = 32, 5


class Served:
    """A model with the shapes of its requests and answers.

    Parameters
    ----------
    predictor : Predictor
    role : str
        ``champion``, ``canary`` or ``shadow``.

    Attributes
    ----------
    request, answer : type of BaseModel
        What OpenAPI shows.
    decode : Decoder
    model : Model
        Its name and version; `stamp` is the same as it stands in each answer.
    schema : str
        Hash of the contract.
    bounds : pair of ndarray, shape (n_features,)
        Outside of which a number is unfamiliar.
    rows_at_once : int
        How many rows take so little time that other requests may wait for them.
    """

    def __init__(self, predictor: Predictor, role: Role) -> None:
        contract, card = predictor.contract, predictor.card
        self.predictor = predictor
        self.role = role
        self.request = schemas.request_model(contract)
        self.answer = schemas.answer_model(contract)
        self.decode = Decoder(contract, self.request)
        self.model = schemas.Model(name=card["name"], version=card["version"])
        self.stamp = self.model.model_dump()
        self.schema = card["files"][CONTRACT][:12]
        self.bounds = bounds(contract)
        self.rows_at_once = 1

    @property
    def version(self) -> str:
        """The version alone."""
        return self.model.version

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


def load(bundle: Path, role: Role = "champion") -> Served:
    """Load a bundle and prove that it answers as it did when it was made.

    Raises
    ------
    BundleError
        Where it is no bundle, or its examples do not come out again.
    """
    from ..inference import Predictor

    predictor = Predictor.load(bundle)
    prove(predictor)
    served = Served(predictor, role)
    # The first answers are slower than all others.
    served.warm()
    return served


def prove(predictor: Predictor) -> None:
    """Predict the stored examples; raise BundleError for an answer that is not the stored one."""
    answers = predictor.predict([example["row"] for example in predictor.examples])
    for number, (example, answer) in enumerate(zip(predictor.examples, answers, strict=True)):
        for name, given in asdict(answer).items():
            stored = example["prediction"].get(name)
            if name != "warnings" and not same(stored, given):
                raise BundleError(
                    f"version {predictor.card['version']} does not answer as it did when it was "
                    f"made: {name} of example {number} was {stored}, is {given}"
                )
