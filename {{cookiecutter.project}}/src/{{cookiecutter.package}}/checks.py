"""Checks: what monitoring found, kept in the store and read from there by all who tell of it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from .store import Store, monitor_action, monitor_check, monitor_look, monitor_window

Kind = Literal["drift", "performance"]
Status = Literal["waiting", "steady", "suspected", "drift", "degraded"]
KINDS: tuple[Kind, ...] = ("drift", "performance")
CHECKED = "checked"
# The kind of action that an import of truths is kept as.
IMPORT = "import"


@dataclass(frozen=True)
class Model:
    """A model version, as events name it."""

    name: str
    version: str


@dataclass(frozen=True)
class Finding:
    """What one kind of test says of one column, or of the loss.

    Attributes
    ----------
    column : str
    kind : str
        ``shape``, ``missing`` or ``unseen``; ``loss``.
    score : float
        The size of the difference: of a shape the largest difference between both distribution
        functions, or for categories half the sum of the differences of their shares; of the loss
        its mean excess; otherwise the difference of the two shares.
    p : float
        How likely a check has one so significant without any drift, at most.
    alarm : bool
    n : int
        Rows of the window that were looked at.
    change : str
        In a few words, such as ``higher``.
    low : float or None
        Of the loss: the lower bound of its excess.
    """

    column: str
    kind: str
    score: float
    p: float
    alarm: bool
    n: int
    change: str
    low: float | None = None


@dataclass(frozen=True)
class Window:  # pylint: disable=too-many-instance-attributes
    """Events that were looked at together, and what came of it.

    Attributes
    ----------
    model : Model
    kind : str
        ``drift`` or ``performance``.
    state : str
        ``checked``, or why nothing was tested; what is not checked is not kept, and looked at
        again.
    events, rows : int
        Events in it; rows that were tested, at most one an entity.
    first, last : float or None
        Moments of the first and the last event.
    last_id : str or None
        Of the last event: with its moment the place up to which all was looked at.
    alarm : bool
        Whether any finding is one.
    confirmed : bool
        Whether it is one for so many windows in a row that it counts.
    findings : tuple of Finding
    detail : mapping
        What else a reader wants to know, as JSON carries it.
    id : int or None
    ts : float
        When it was looked at.
    """

    model: Model
    kind: Kind
    state: str
    events: int = 0
    rows: int = 0
    first: float | None = None
    last: float | None = None
    last_id: str | None = None
    alarm: bool = False
    confirmed: bool = False
    findings: tuple[Finding, ...] = ()
    detail: Mapping[str, Any] = field(default_factory=dict)
    id: int | None = None
    ts: float = 0.0


@dataclass(frozen=True)
class Look:
    """How the last look at a model ended, also where there was nothing to check.

    Attributes
    ----------
    model : Model
    status : str
        ``waiting``: too few events to say anything; ``steady``; ``suspected``: an alarm that is
        not confirmed; ``drift``, ``degraded``: confirmed, the second also where both are.
    drift, performance : mapping
        What the look found besides windows: ``state``, why no more was checked, and a ``detail``.
    ts : float
        When it ended, seconds since 1970: without an error, and no other monitor at work.
    """

    model: Model
    status: Status
    drift: Mapping[str, Any]
    performance: Mapping[str, Any]
    ts: float = 0.0


def write(store: Store, window: Window, after: int | None) -> Window | None:
    """Keep a window that was checked, unless another monitor has kept one since.

    Parameters
    ----------
    store : Store
    window : Window
    after : int or None
        The id of the window that was the last one when this one was chosen.

    Returns
    -------
    Window or None
        As it is kept; None where another monitor was faster, and nothing is.
    """
    table, now = monitor_window.c, time.time()
    same = _of(window.model, window.kind)
    with store.writing(alone=True) as connection:
        if connection.scalar(sa.select(sa.func.max(table.id)).where(same)) != after:
            return None
        row = {
            "ts": now,
            "model_name": window.model.name,
            "model_version": window.model.version,
            "kind": window.kind,
            "state": window.state,
            "first_ts": window.first,
            "last_ts": window.last,
            "last_id": window.last_id,
            "events": window.events,
            "rows": window.rows,
            "alarm": window.alarm,
            "confirmed": window.confirmed,
            "detail": _json(window.detail),
        }
        inserted = sa.insert(monitor_window).values(row).returning(table.id)
        number = connection.execute(inserted).scalar_one()
        found = [_row(each, window, number, now) for each in window.findings]
        if found:
            connection.execute(sa.insert(monitor_check), found)
    return replace(window, id=number, ts=now)


def read(
    connection: sa.Connection, model: Model, kind: Kind, most: int, findings: bool = True
) -> list[Window]:
    """Return the last windows of a model, the oldest first.

    Parameters
    ----------
    connection : Connection
    model : Model
    kind : str
    most : int
    findings : bool
        Whether to read these as well.
    """
    chosen = sa.select(monitor_window).where(_of(model, kind))
    return _windows(connection, chosen.order_by(monitor_window.c.id.desc()).limit(most), findings)


def looked(store: Store, look: Look) -> Look:
    """Keep how a look at a model ended; only the last one of each model is."""
    now = time.time()
    row = {
        "model_name": look.model.name,
        "model_version": look.model.version,
        "ts": now,
        "status": look.status,
        "detail": _json({kind: getattr(look, kind) for kind in KINDS}),
    }
    statement = store.insert(monitor_look).values(row)
    same = [monitor_look.c.model_name, monitor_look.c.model_version]
    with store.writing() as connection:
        connection.execute(statement.on_conflict_do_update(index_elements=same, set_=row))
    return replace(look, ts=now)


def last_look(connection: sa.Connection) -> Look | None:
    """Return how the last look ended, whichever model it was at; None where there was none."""
    table = monitor_look.c
    found = connection.execute(sa.select(monitor_look).order_by(table.ts.desc()).limit(1)).first()
    if not found:
        return None
    model = Model(found.model_name, found.model_version)
    detail = found.detail
    return Look(model, found.status, detail["drift"], detail["performance"], found.ts)


def verdicts(connection: sa.Connection, look: Look) -> tuple[Window, Window]:
    """Return the last verdicts about the model of a look, with their findings.

    Returns
    -------
    drift, performance : Window
        Where there was no verdict yet, its state says why. What the look found since, such as
        events that wait, stands in its detail.
    """
    return _verdict(connection, look, "drift"), _verdict(connection, look, "performance")


def _verdict(connection: sa.Connection, look: Look, kind: Kind) -> Window:
    state, detail = getattr(look, kind)["state"], getattr(look, kind)["detail"]
    known = read(connection, look.model, kind, 1) or [Window(look.model, kind, state)]
    return replace(known[-1], detail={**known[-1].detail, **detail})


def began(connection: sa.Connection, model: Model, kind: Kind) -> int | None:
    """Return the id of the first confirmed window since the last one without an alarm, if any."""
    table, same = monitor_window.c, _of(model, kind)
    calm = sa.select(sa.func.coalesce(sa.func.max(table.id), 0)).where(same, ~table.alarm)
    chosen = same & table.confirmed & (table.id > calm.scalar_subquery())
    number: int | None = connection.scalar(sa.select(sa.func.min(table.id)).where(chosen))
    return number


def claim(store: Store, key: str, kind: str, detail: Mapping[str, Any]) -> bool:
    """Say that something is being done; return False where its key was claimed before.

    Of several processes that claim the same key at once, one is told True.
    """
    row = {"key": key, "ts": time.time(), "kind": kind, "detail": _json(detail)}
    with store.writing() as connection:
        statement = store.insert(monitor_action).values(row).on_conflict_do_nothing()
        # The count of rows is not to be had from every driver.
        return connection.scalar(statement.returning(monitor_action.c.key)) is not None


def release(store: Store, key: str) -> None:
    """Take a claim back: what it was for failed, and may be tried again."""
    with store.writing() as connection:
        connection.execute(sa.delete(monitor_action).where(monitor_action.c.key == key))


def actions(connection: sa.Connection, kind: str, most: int = 1) -> list[dict[str, Any]]:
    """Return what was done last of a kind, the newest first: key, ts and detail."""
    table = monitor_action.c
    chosen = sa.select(table.key, table.ts, table.detail).where(table.kind == kind)
    found = connection.execute(chosen.order_by(table.ts.desc()).limit(most))
    return [dict(row) for row in found.mappings()]


def _of(model: Model, kind: Kind) -> sa.ColumnElement[bool]:
    table = monitor_window.c
    named = (table.model_name == model.name) & (table.model_version == model.version)
    return named & (table.kind == kind)


def _windows(connection: sa.Connection, chosen: sa.Select[Any], findings: bool) -> list[Window]:
    found = [
        Window(
            Model(row.model_name, row.model_version),
            row.kind,
            row.state,
            row.events,
            row.rows,
            row.first_ts,
            row.last_ts,
            row.last_id,
            row.alarm,
            row.confirmed,
            (),
            row.detail or {},
            row.id,
            row.ts,
        )
        for row in connection.execute(chosen)
    ][::-1]
    if not findings or not found:
        return found
    by_window: dict[int, list[Finding]] = {}
    table = monitor_check.c
    chosen = sa.select(monitor_check).where(table.window.in_([window.id for window in found]))
    for row in connection.execute(chosen.order_by(table.id)):
        by_window.setdefault(row.window, []).append(
            Finding(
                row.subject, row.kind, row.score, row.p_adj, row.alarm, row.n, row.change, row.low
            )
        )
    return [replace(each, findings=tuple(by_window.get(each.id or 0, ()))) for each in found]


def _json(detail: Mapping[str, Any]) -> str:
    # What is not a number becomes null: JSON has no NaN, and PostgreSQL refuses it.
    return msgspec.json.encode(detail).decode()


def _row(finding: Finding, window: Window, number: int, now: float) -> dict[str, Any]:
    return {
        "ts": now,
        "model_name": window.model.name,
        "model_version": window.model.version,
        "kind": finding.kind,
        "subject": finding.column,
        "n": finding.n,
        "score": finding.score,
        "p_adj": finding.p,
        "alarm": finding.alarm,
        "window": number,
        "change": finding.change,
        "low": finding.low,
    }


def alarms(windows: Sequence[Window]) -> int:
    """Return how many of the last windows were alarms in a row."""
    return next((i for i, each in enumerate(reversed(windows)) if not each.alarm), len(windows))
