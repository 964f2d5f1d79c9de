"""Checks: what monitoring found, kept in the store and read from there by all who tell of it."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import sqlalchemy as sa

from .store import Store, monitor_action, monitor_check, monitor_window

Kind = Literal["drift", "performance"]
KINDS: tuple[Kind, ...] = ("drift", "performance")
CHECKED = "checked"


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
class Window:
    """Events that were looked at together, and what came of it.

    Attributes
    ----------
    model : Model
    kind : str
        ``drift`` or ``performance``.
    state : str
        ``checked``, or why nothing was tested; what is not checked is looked at again.
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


def write(store: Store, window: Window, after: int | None) -> Window | None:
    """Keep a window, unless another monitor has kept one since.

    Parameters
    ----------
    store : Store
    window : Window
    after : int or None
        The id of the window that was the last checked one when this one was chosen.

    Returns
    -------
    Window or None
        As it is kept; None where another monitor was faster, and nothing is.
    """
    table, now = monitor_window.c, time.time()
    same = _of(window.model, window.kind)
    with store.writing(alone=True) as connection:
        last = sa.select(sa.func.max(table.id)).where(same, table.state == CHECKED)
        if connection.scalar(last) != after:
            return None
        connection.execute(sa.delete(monitor_window).where(same, table.state != CHECKED))
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
            "detail": json.dumps(window.detail),
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
    """Return the last windows of a model, the oldest first; one that was not checked is the last.

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


def current(connection: sa.Connection) -> list[Window]:
    """Return the last window of each kind, with its findings, of the model looked at last.

    Where events for the next one are being waited for, it is the last one that was checked.
    """
    table = monitor_window.c
    newest = sa.select(table.model_name, table.model_version).order_by(table.id.desc()).limit(1)
    if not (found := connection.execute(newest).first()):
        return []
    model = Model(*found)
    windows: list[Window] = []
    for kind in KINDS:
        last = read(connection, model, kind, 2)
        windows += [window for window in last if window.state == CHECKED][-1:] or last[-1:]
    return windows


def claim(store: Store, key: str, kind: str, detail: Mapping[str, Any]) -> bool:
    """Say that something is being done; return False where its key was claimed before.

    Of several processes that claim the same key at once, one is told True.
    """
    row = {"key": key, "ts": time.time(), "kind": kind, "detail": json.dumps(detail)}
    with store.writing() as connection:
        statement = store.insert(monitor_action).values(row).on_conflict_do_nothing()
        return bool(connection.execute(statement).rowcount)


def release(store: Store, key: str) -> None:
    """Take a claim back: what it was for failed, and may be tried again."""
    with store.writing() as connection:
        connection.execute(sa.delete(monitor_action).where(monitor_action.c.key == key))


def actions(connection: sa.Connection, kind: str, most: int = 1) -> list[dict[str, Any]]:
    """Return what was done last of a kind, the newest first: key, ts and detail."""
    table = monitor_action.c
    chosen = sa.select(table.key, table.ts, table.detail).where(table.kind == kind)
    found = connection.execute(chosen.order_by(table.ts.desc()).limit(most))
    return [dict(row._mapping) for row in found]


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
    checked = [window for window in windows if window.state == CHECKED]
    return next((i for i, each in enumerate(reversed(checked)) if not each.alarm), len(checked))
