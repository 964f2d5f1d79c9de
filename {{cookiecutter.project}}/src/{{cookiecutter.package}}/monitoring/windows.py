"""Windows: the events of one model that are looked at together, read in the order of their time.

Only what the champion answered counts, and no smoke test. A window is found by the place of its
last event, so that the next one begins where it ended, whatever else was stored in between.
Whatever is asked here is found by an index, so that it does not matter how much a store holds.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from ..checks import Model
from ..contract import Column, Contract
from ..encoding import UNSEEN, Matrix, encode_value
from ..reference import PREDICTION, SCORE, Sample, codes
from ..smoke import PREFIX
from ..store import FAILED, PARAMETERS, ground_truth, pieces, prediction_event

CHAMPION = "champion"
NOT_KEPT = "not kept of events"
# Seconds by which the clocks of those who store events and truths may be apart.
CLOCKS = 86400

_event, _truth = prediction_event.c, ground_truth.c
_ORDER = (_event.ts, _event.prediction_id)
_REVERSED = tuple(each.desc() for each in _ORDER)
_COLUMNS = (_event.features, _event.output, _event.score, _event.entity_key, *_ORDER)

# What the champion was asked by clients, and of that what it answered.
ASKED = (_event.role == CHAMPION, ~_event.request_id.startswith(PREFIX))
ANSWERED = (*ASKED, _event.status < FAILED)


@dataclass(frozen=True)
class Place:
    """Where an event stands in the order of all."""

    ts: float
    id: str


@dataclass(frozen=True)
class Truth:
    """What is true of one event, and when that was told."""

    place: Place
    received: float
    label: Any


@dataclass(frozen=True)
class Events:
    """Some events, oldest first.

    Attributes
    ----------
    places : list of Place
    rows : list of dict
        What was asked, as far as it is kept.
    outputs : list of dict
        What was answered: ``prediction``, ``probabilities``, ``score``.
    scores : ndarray, shape (n_events,)
        Of the answers; NaN where there is none.
    entities : list of str or None
        None where nothing tells events of the same entity.
    labels : list
        The truths, where these were asked for.
    """

    places: list[Place]
    rows: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    scores: Matrix
    entities: list[str | None] | None
    labels: list[Any]

    def __len__(self) -> int:
        return len(self.rows)


def newest(connection: sa.Connection, until: float) -> Model | None:
    """Return the model that the champion's last event up to a moment is of."""
    chosen = sa.select(_event.model_name, _event.model_version)
    chosen = chosen.where(_event.role == CHAMPION, _event.ts <= until)
    found = connection.execute(chosen.order_by(_event.ts.desc()).limit(1)).first()
    return Model(*found) if found else None


def future(connection: sa.Connection, model: Model, now: float) -> int:
    """Return how many events bear a time that has not come: a clock is wrong."""
    return _count(connection, *_of(model), _event.ts > now)


def count(connection: sa.Connection, model: Model, after: Place | None, last: Place | float) -> int:
    """Return how many events lie behind a place, up to another one or to a moment."""
    return _count(connection, *_of(model), *_between(after, last))


def passed(connection: sa.Connection, model: Model, after: Place | None, last: Place) -> int:
    """Return about how many requests lie between two places, as the index alone tells of many."""
    since = () if after is None else (_event.ts > after.ts,)
    return _count(connection, *_named(model), _event.ts <= last.ts, *since)


def place(
    connection: sa.Connection, model: Model, after: Place | None, events: int, until: float
) -> Place | None:
    """Return the place of the so many-th event behind another; None where there are fewer."""
    asked = sa.select(*_ORDER).where(*_of(model), *_between(after, until)).order_by(*_ORDER)
    return _place(connection, asked.offset(events - 1))


def place_before(
    connection: sa.Connection, model: Model, events: int, until: float
) -> Place | None:
    """Return the place behind which so many requests lie; None where there are no more."""
    asked = sa.select(*_ORDER).where(*_named(model), _event.ts <= until).order_by(*_REVERSED)
    return _place(connection, asked.offset(events))


def read(connection: sa.Connection, model: Model, last: Place, size: int) -> Events:
    """Return so many events, the last of which has a place."""
    asked = sa.select(*_COLUMNS).where(*_of(model), *_between(None, last)).order_by(*_REVERSED)
    return _events(connection.execute(asked.limit(size)).all()[::-1])


def rows(connection: sa.Connection, ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return what was asked in some predictions, as far as it is still kept."""
    chosen = sa.select(_event.prediction_id, _event.features)
    chosen = chosen.where(_event.prediction_id.in_(ids), _event.role == CHAMPION)
    found = {name: features for name, features in connection.execute(chosen) if features}
    return [found[name] for name in ids if name in found]


def there(connection: sa.Connection, ids: Sequence[str]) -> set[str]:
    """Return those of some predictions that are still there."""
    chosen = sa.select(_event.prediction_id).where(_event.prediction_id.in_(ids))
    return set(connection.scalars(chosen.where(_event.role == CHAMPION)))


def truths(connection: sa.Connection, model: Model, most: int) -> list[Truth]:
    """Return the truths of a model that came last, of each event the latest."""
    began = connection.scalar(sa.select(sa.func.min(_event.ts)).where(*_named(model)))
    found: dict[str, Truth] = {}
    if began is None:
        return []
    columns = (_truth.prediction_id, _truth.received_at, _truth.label)
    # What came before the model's first event is of other models, and may be a lot.
    asked = sa.select(*columns).where(_truth.received_at >= began - CLOCKS)
    asked = asked.order_by(_truth.received_at.desc(), _truth.revision.desc())
    with connection.execute(asked, execution_options={"yield_per": PARAMETERS}) as result:
        for some in result.partitions():
            places = _places(connection, model, [row.prediction_id for row in some])
            for name, received, label in some:
                if name in places:
                    found.setdefault(name, Truth(places[name], received, label))
            if len(found) >= most:
                break
    return list(found.values())


def labelled(connection: sa.Connection, known: Sequence[Truth], size: int) -> Events:
    """Return the newest of the events that truths are known of."""
    newest = sorted(known, key=lambda truth: (truth.place.ts, truth.place.id))[-size:]
    found: dict[str, Any] = {}
    for some in pieces([truth.place.id for truth in newest]):
        asked = sa.select(*_COLUMNS).where(_event.prediction_id.in_(some), _event.role == CHAMPION)
        found.update((row.prediction_id, row) for row in connection.execute(asked))
    there = [truth for truth in newest if truth.place.id in found]
    return _events([found[each.place.id] for each in there], [each.label for each in there])


def columns(
    events: Events, contract: Contract, samples: Sequence[Sample], kept: Collection[str] | None
) -> tuple[dict[str, Matrix], dict[str, str]]:
    """Return the columns of a window as `drift.check` takes them, and why others are not there.

    Parameters
    ----------
    events : Events
    contract : Contract
    samples : sequence of Sample
        The reference.
    kept : collection of str or None
        Columns that are kept of an event; None for all. What an event does not hold of these its
        client did not send: it is missing.

    Returns
    -------
    columns : dict of str to ndarray
    untested : dict of str to str
    """
    found, untested = {}, {}
    for column in contract.features:
        if kept is None or column.name in kept:
            found[column.name] = column_values(column, events.rows)
        else:
            untested[column.name] = NOT_KEPT
    groups = next((each.categories for each in samples if each.name == PREDICTION), None)
    said = [output.get("prediction") for output in events.outputs]
    found[PREDICTION] = numbers(said) if groups is None else codes(groups, said)
    if contract.task != "regression":
        found[SCORE] = events.scores
    known = {column.name for column in contract.columns}
    held = {name for row in events.rows for name in row}
    return found, untested | dict.fromkeys(sorted(held - known), "new since the reference")


def column_values(column: Column, rows: Sequence[Mapping[str, Any]]) -> Matrix:
    """Encode one column of some rows; what is missing, or cannot be read, becomes NaN."""
    values = [row.get(column.name) for row in rows]
    if column.kind == "categorical":
        known = column.codes
        coded = (np.nan if value is None else known.get(value, UNSEEN) for value in values)
        return np.fromiter(coded, float, len(values))
    if column.kind in ("numeric", "integer"):
        return numbers(values)
    return np.array([_encoded(column, value) for value in values], dtype=float)


def _encoded(column: Column, value: Any) -> float:
    try:
        return encode_value(column, value)
    except ValueError:
        return np.nan


def numbers(values: Sequence[Any]) -> Matrix:
    """Return values as numbers; NaN for what is none."""
    try:
        return np.array(values, dtype=float)
    except (TypeError, ValueError):
        plain = (each if isinstance(each, int | float) else np.nan for each in values)
        return np.fromiter(plain, float, len(values))


def of(model: Model) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the conditions that an event is of a model."""
    return _event.model_name == model.name, _event.model_version == model.version


def _named(model: Model) -> tuple[sa.ColumnElement[bool], ...]:
    return (*of(model), _event.role == CHAMPION)


def _of(model: Model) -> tuple[sa.ColumnElement[bool], ...]:
    return (*of(model), *ANSWERED)


def _between(after: Place | None, last: Place | float) -> tuple[sa.ColumnElement[bool], ...]:
    place = sa.tuple_(*_ORDER)
    ends = place <= _literal(last) if isinstance(last, Place) else _event.ts <= last
    return (ends,) if after is None else (ends, place > _literal(after))


def _literal(place: Place) -> sa.Tuple:
    return sa.tuple_(sa.literal(place.ts), sa.literal(place.id))


def _count(connection: sa.Connection, *chosen: sa.ColumnElement[bool]) -> int:
    return connection.scalar(sa.select(sa.func.count()).where(*chosen)) or 0


def _place(connection: sa.Connection, asked: sa.Select[Any]) -> Place | None:
    found = connection.execute(asked.limit(1)).first()
    return Place(*found) if found else None


def _places(connection: sa.Connection, model: Model, ids: Sequence[str]) -> dict[str, Place]:
    """Return the places of those predictions that are events of a model."""
    columns = (_event.model_name, _event.model_version, _event.status, _event.request_id, *_ORDER)
    # The database is not told the model: it would look through all events of it.
    asked = sa.select(*columns).where(_event.prediction_id.in_(ids), _event.role == CHAMPION)
    return {
        row.prediction_id: Place(row.ts, row.prediction_id)
        for row in connection.execute(asked)
        if Model(row.model_name, row.model_version) == model
        and row.status < FAILED
        and not row.request_id.startswith(PREFIX)
    }


def _events(found: Sequence[Any], labels: Sequence[Any] = ()) -> Events:
    entities = [row.entity_key for row in found]
    return Events(
        [Place(row.ts, row.prediction_id) for row in found],
        [row.features or {} for row in found],
        [row.output or {} for row in found],
        np.array([row.score for row in found], dtype=float),
        entities if any(each is not None for each in entities) else None,
        list(labels),
    )
