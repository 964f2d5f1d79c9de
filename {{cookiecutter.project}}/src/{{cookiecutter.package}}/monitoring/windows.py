"""Windows: the events of one model that are looked at together, read in the order of their time.

Only what the champion answered counts, and no smoke test. A window is found by the place of its
last event, so that the next one begins where it ended, whatever else was stored in between.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from ..checks import Model
from ..contract import Column, Contract
from ..encoding import UNSEEN, Matrix, encode_value
from ..reference import PREDICTION, SCORE, Sample, codes
from ..smoke import PREFIX
from ..store import FAILED, ground_truth, prediction_event

CHAMPION = "champion"
# Of the truths that came last, among which the newest events are looked for.
RECENT = 10

_event, _truth = prediction_event.c, ground_truth.c
_ORDER = (_event.ts, _event.prediction_id)


@dataclass(frozen=True)
class Place:
    """Where an event stands in the order of all."""

    ts: float
    id: str


@dataclass(frozen=True)
class Events:
    """Some events, oldest first.

    Attributes
    ----------
    rows : list of dict
        What was asked, as far as it is kept.
    outputs : list of dict
        What was answered: ``prediction``, ``probabilities``, ``score``.
    scores : ndarray, shape (n_events,)
        Of the answers; NaN where there is none.
    entities : list of str or None
        None where nothing tells events of the same entity.
    moments : ndarray, shape (n_events,)
    labels : list
        The truths, where these were asked for.
    last : Place or None
    """

    rows: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    scores: Matrix
    entities: list[str | None] | None
    moments: npt.NDArray[np.float64]
    labels: list[Any]
    last: Place | None

    def __len__(self) -> int:
        return len(self.rows)


def newest(connection: sa.Connection, since: float = 0.0) -> Model | None:
    """Return the model that the champion's last event is of."""
    chosen = sa.select(_event.model_name, _event.model_version).where(
        _event.role == CHAMPION, _event.ts >= since
    )
    found = connection.execute(chosen.order_by(_event.ts.desc()).limit(1)).first()
    return Model(*found) if found else None


def count(connection: sa.Connection, model: Model, after: Place | None, until: float) -> int:
    """Return how many events came after a place, up to a moment."""
    return connection.scalar(sa.select(sa.func.count()).where(*_between(model, after, until))) or 0


def future(connection: sa.Connection, model: Model, now: float) -> int:
    """Return how many events bear a time that has not come: a clock is wrong."""
    chosen = sa.select(sa.func.count()).where(*_of(model), _event.ts > now)
    return connection.scalar(chosen) or 0


def place(
    connection: sa.Connection, model: Model, after: Place | None, events: int, until: float
) -> Place | None:
    """Return the place of the so many-th event after another place; None where there are fewer."""
    chosen = sa.select(*_ORDER).where(*_between(model, after, until))
    found = connection.execute(chosen.order_by(*_ORDER).offset(events - 1).limit(1)).first()
    return Place(*found) if found else None


def read(connection: sa.Connection, model: Model, last: Place, size: int) -> Events:
    """Return so many events, the last of which has a place."""
    upto = sa.tuple_(*_ORDER) <= sa.tuple_(sa.literal(last.ts), sa.literal(last.id))
    columns = (_event.features, _event.output, _event.score, _event.entity_key, *_ORDER)
    chosen = sa.select(*columns).where(*_of(model), upto)
    chosen = chosen.order_by(*(each.desc() for each in _ORDER)).limit(size)
    return _events(connection.execute(chosen).all()[::-1])


def received(connection: sa.Connection, model: Model, after: float) -> tuple[int, float]:
    """Return how many truths of a model came after a moment, and when the last of them came."""
    chosen = sa.select(sa.func.count(), sa.func.max(_truth.received_at)).where(
        _truth.received_at > after, _truth.prediction_id == _event.prediction_id, *_of(model)
    )
    number, last = connection.execute(chosen).one()
    return number, last if last is not None else after


def labelled(connection: sa.Connection, model: Model, size: int) -> Events:
    """Return the newest events with a truth, of those whose truths came last."""
    recent = (
        sa.select(_truth.prediction_id, _truth.revision, _truth.label)
        .order_by(_truth.received_at.desc())
        .limit(RECENT * size)
        .subquery()
    )
    later = ground_truth.alias("later").c
    is_latest = ~sa.exists().where(
        later.prediction_id == recent.c.prediction_id, later.revision > recent.c.revision
    )
    columns = (_event.features, _event.output, _event.score, _event.entity_key, *_ORDER)
    chosen = (
        sa.select(*columns, recent.c.label)
        .join(recent, recent.c.prediction_id == _event.prediction_id)
        .where(*_of(model), is_latest)
        .order_by(*(each.desc() for each in _ORDER))
        .limit(size)
    )
    return _events(connection.execute(chosen).all()[::-1])


def columns(
    events: Events, contract: Contract, samples: Sequence[Sample]
) -> tuple[dict[str, Matrix], tuple[str, ...]]:
    """Return the columns of a window as `drift.check` takes them, and the names of new ones.

    A column that no event holds is left out; what single events lack is missing in them.
    """
    held = {name for row in events.rows for name in row}
    found = {
        column.name: column_values(column, events.rows)
        for column in contract.features
        if column.name in held
    }
    groups = next((each.categories for each in samples if each.name == PREDICTION), None)
    said = [output.get("prediction") for output in events.outputs]
    if len(events):
        as_codes = groups is not None
        found[PREDICTION] = codes(groups or (), said) if as_codes else _numbers(said)
        if contract.task != "regression":
            found[SCORE] = events.scores
    known = {column.name for column in contract.columns}
    return found, tuple(sorted(held - known))


def column_values(column: Column, rows: Sequence[Mapping[str, Any]]) -> Matrix:
    """Encode one column of some rows; what is missing, or cannot be read, becomes NaN."""
    values = [row.get(column.name) for row in rows]
    if column.kind == "categorical":
        known = column.codes
        coded = (np.nan if value is None else known.get(value, UNSEEN) for value in values)
        return np.fromiter(coded, float, len(values))
    if column.kind in ("numeric", "integer"):
        return _numbers(values)
    return np.array([_encoded(column, value) for value in values], dtype=float)


def _encoded(column: Column, value: Any) -> float:
    try:
        return encode_value(column, value)
    except ValueError:
        return np.nan


def _numbers(values: Sequence[Any]) -> Matrix:
    try:
        return np.array(values, dtype=float)
    except (TypeError, ValueError):
        plain = (each if isinstance(each, int | float) else np.nan for each in values)
        return np.fromiter(plain, float, len(values))


def _of(model: Model) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        _event.role == CHAMPION,
        _event.model_name == model.name,
        _event.model_version == model.version,
        _event.status < FAILED,
        ~_event.request_id.startswith(PREFIX),
    )


def _between(model: Model, after: Place | None, until: float) -> tuple[sa.ColumnElement[bool], ...]:
    found = (*_of(model), _event.ts <= until)
    if after is None:
        return found
    return (*found, sa.tuple_(*_ORDER) > sa.tuple_(sa.literal(after.ts), sa.literal(after.id)))


def _events(found: Sequence[Any]) -> Events:
    entities = [row.entity_key for row in found]
    scores = np.array([row.score for row in found], dtype=float)
    return Events(
        [row.features or {} for row in found],
        [row.output or {} for row in found],
        scores,
        entities if any(each is not None for each in entities) else None,
        np.array([row.ts for row in found], dtype=float),
        [row.label for row in found] if found and "label" in found[0]._fields else [],
        Place(found[-1].ts, found[-1].prediction_id) if found else None,
    )


def spelled(label: Any) -> str:
    """Return a label as the contract spells it."""
    return label if isinstance(label, str) else json.dumps(label)
