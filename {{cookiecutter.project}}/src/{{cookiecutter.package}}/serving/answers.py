"""Answers to requests for predictions, as they are sent."""

from __future__ import annotations

import msgspec

from ..contract import Label

encode = msgspec.json.Encoder().encode


class Prediction(msgspec.Struct, gc=False):
    """The answer to one row."""

    id: str
    prediction: Label
    probabilities: dict[str, float] | None
    score: float | None
    warnings: tuple[str, ...]


class Answer(msgspec.Struct, gc=False):
    """The answer to a request."""

    predictions: list[Prediction]
    model: dict[str, str]
    request_id: str
