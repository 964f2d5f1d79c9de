"""The slot: holds the model that is being served; empty until a bundle could be loaded."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from pydantic import BaseModel

from ..errors import ProjectError
from . import schemas
from .errors import no_model

if TYPE_CHECKING:
    from ..inference import Predictor

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Served:
    """A model with the shapes of its requests and answers."""

    predictor: Predictor
    request: type[BaseModel]
    answer: type[BaseModel]

    @cached_property
    def model(self) -> schemas.Model:
        """The name and version that stand beside each answer."""
        return schemas.Model(
            name=self.predictor.card["name"], version=self.predictor.card["version"]
        )


class Slot:
    """A place for one model.

    Parameters
    ----------
    bundle : Path
        The directory to load from.

    Attributes
    ----------
    served : Served or None
        What answers requests now.
    reason : str
        Why there is none.
    """

    def __init__(self, bundle: Path) -> None:
        self.bundle = bundle
        self.served: Served | None = None
        self.reason = ""
        self._lock = Lock()

    def fill(self) -> None:
        """Load the bundle, unless a model is there; log why if it cannot be loaded."""
        with self._lock:
            if self.served:
                return
            try:
                self.served = load(self.bundle)
            except (ProjectError, OSError) as error:
                if str(error) != self.reason:
                    self.reason = str(error)
                    logger.warning("no model is loaded: %s", error)

    def require(self) -> Served:
        """Return the model; raise the answer 503 where there is none."""
        if self.served is None:
            raise no_model(self.reason)
        return self.served


def load(bundle: Path) -> Served:
    """Load a bundle and prove that it answers: the first prediction is slower than all others."""
    from ..inference import Predictor

    predictor = Predictor.load(bundle)
    contract = predictor.contract
    predictor.predict(schemas.example_request(contract, predictor.examples)["rows"])
    return Served(predictor, schemas.request_model(contract), schemas.answer_model(contract))
