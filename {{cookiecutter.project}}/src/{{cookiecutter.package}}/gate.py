"""The gate: whether a challenger may take the champion's place, and a table of the reasons."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from .inference import Predictor
from .settings import Gate

Fingerprints = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Check:
    """One line of the table of reasons."""

    name: str
    champion: str
    challenger: str
    required: str
    passed: bool


@dataclass(frozen=True)
class Decision:
    """Whether the challenger is promoted, why, and the figures that this rests on."""

    promoted: bool
    checks: tuple[Check, ...]
    reason: str
    figures: dict[str, Any]


def fingerprints(frame: pd.DataFrame) -> Fingerprints:
    """Return one number per row, the same wherever the row stands and however it was read."""
    raise NotImplementedError


def unseen(frame: pd.DataFrame, seen: Fingerprints) -> pd.DataFrame:
    """Return the rows whose fingerprints are not among `seen`."""
    return frame[~np.isin(fingerprints(frame), seen)]


def decide(
    challenger: Predictor, champion: Predictor | None, frame: pd.DataFrame, settings: Gate
) -> Decision:
    """Compare both models on the same held-out rows."""
    raise NotImplementedError


def explain(decision: Decision) -> str:
    """Lay the checks out as a table: check, champion, challenger, required, result."""
    raise NotImplementedError
