"""Probation: a new champion that errs or fails more than the one before it is taken back.

It is looked at twice, by its truths and by its answers: when so many of them are known as a verdict
needs, and when a whole window is.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from scipy import stats

from . import checks, contract, registry, release
from .artifacts import CONTRACT
from .checks import Model
from .monitoring import monitor, performance, windows
from .reference import LOSS, entity_codes, sample
from .registry import CHAMPION
from .settings import Monitoring, Settings
from .store import FAILED, Store, monitor_action, opened, prediction_event

SWAP = "swap"
TRIGGER = "probation"
# Of a version that was taken back: the decision of which somebody who deploys has heard.
TOLD = "probation.told"

_event = prediction_event.c


@dataclass(frozen=True)
class Look:
    """What a look at a new champion found.

    Attributes
    ----------
    key : str
        By which it is known that it was taken.
    why : str
        Why it has to go; empty where it may stay.
    figures : dict
    """

    key: str
    why: str
    figures: dict[str, float]


def begin(store: Store, detail: Mapping[str, Any]) -> None:
    """Remember that a version is about to take another one's place.

    Parameters
    ----------
    store : Store
    detail : mapping
        ``number`` and ``version`` of the new one, ``former`` version, ``name`` of the model, and
        the ``attempt`` that it came of.
    """
    checks.claim(store, f"{SWAP} {detail['number']}", SWAP, detail)


def judge(settings: Settings) -> str | None:
    """Look at the champion, if it is new and it is time to, and roll it back if it is worse.

    Returns
    -------
    str or None
        What was done; None where nothing had to be, or somebody else has done it.

    Raises
    ------
    StoreError
        Where the store cannot be used.
    RegistryError
        Where the registry cannot be used.
    """
    with opened(settings.events.store) as store:
        with store.reading() as connection:
            if not checks.actions(connection, SWAP):
                return None
        # A swap is announced before the gate decides: the newest one may never have come to be.
        champion = _champion(settings)
        with store.reading() as connection:
            swap = announced(connection, champion)
            looks = list(_looks(connection, swap, settings.monitoring)) if swap else []
        said = None
        for look in looks:
            if look.why and not said:
                facts = {"trigger": TRIGGER, "figures": look.figures}
                said = release.rollback(settings, swap["number"], look.why, **facts)
            # Only now: where a process was killed before it, the next one looks again.
            checks.claim(store, look.key, "look", {"why": look.why, **look.figures})
    return said or None


def taken_back(settings: Settings) -> str | None:
    """Say once that the last champion was taken back, whoever did it.

    A monitor moves the alias; whoever deploys what it stands for has to hear of it.

    Raises
    ------
    RegistryError
        Where the registry cannot be used.
    """
    with registry.connect(settings) as versions:
        versions.settle()
        event = (versions.events() or [{}])[-1]
        if event.get("trigger") != TRIGGER:
            return None
        version, number = versions.version(event["version"]), str(event["number"])
        if version.tags.get(TOLD) == number:
            return None
        versions.tag(version, {TOLD: number})
    return f"version {version.number} was taken back {event['why']}"


def _champion(settings: Settings) -> str | None:
    with registry.connect(settings) as versions:
        versions.settle()
        return versions.aliases().get(CHAMPION)


def announced(connection: sa.Connection, number: str | None) -> Mapping[str, Any]:
    """Return what was said when a version was about to become the champion; empty if it never was.

    Parameters
    ----------
    connection : Connection
    number : str or None

    Returns
    -------
    mapping
        As `begin` took it.
    """
    chosen = sa.select(monitor_action.c.detail)
    chosen = chosen.where(monitor_action.c.key == f"{SWAP} {number}")
    return connection.scalar(chosen) or {}


def _looks(
    connection: sa.Connection, swap: Mapping[str, Any], settings: Monitoring
) -> Iterator[Look]:
    """Take the looks that it is time for, and that nobody took."""
    new, former = (Model(swap["name"], swap[name]) for name in ("version", "former"))
    after, agreed = _labelled(connection, new, settings), contract.read(CONTRACT)
    known_after = len(after) if agreed.target else 0
    if key := _due(connection, swap, "truths", known_after, settings):
        before = _labelled(connection, former, settings)
        about = None if before.entities is None else entity_codes(before.entities)
        known = sample(LOSS, None, performance.losses(agreed, before), about)
        losses = performance.losses(agreed, after)
        found = performance.check(agreed, known, losses, after.entities, settings).finding
        figures = {"excess": found.score, "p": found.p, "truths": found.n} if found else {}
        worse = found is not None and found.alarm
        why = f"{found.score:.3g} more loss a prediction than before" if found and worse else ""
        yield Look(key, why, figures)
    size = performance.window_size(settings)
    asked, failed = _failures(connection, new, size)
    if key := _due(connection, swap, "answers", asked, settings):
        known_asked, known_failed = _failures(connection, former, size)
        table = [[failed, asked - failed], [known_failed, known_asked - known_failed]]
        p = float(stats.fisher_exact(table, alternative="greater").pvalue)
        excess = failed / asked - known_failed / max(known_asked, 1)
        worse = p <= settings.alpha and excess >= settings.least_share
        why = f"{failed:,} of {asked:,} requests failed, {known_failed:,} of {known_asked:,} before"
        yield Look(key, why if worse else "", {"excess": excess, "p": p, "answers": asked})


def _labelled(connection: sa.Connection, model: Model, settings: Monitoring) -> windows.Events:
    """Return the newest events of a model with a truth."""
    truths = monitor.recent(connection, model, settings)
    return windows.labelled(connection, truths, performance.window_size(settings))


def _due(
    connection: sa.Connection, swap: Mapping[str, Any], of: str, known: int, settings: Monitoring
) -> str | None:
    """Return the key of the look that it is time for; None where it was taken, or is too early."""
    if known < settings.labels:
        return None
    size = performance.window_size(settings)
    key = f"{SWAP} {swap['number']} {of} {'window' if known >= size else 'first'}"
    taken = sa.select(monitor_action.c.key).where(monitor_action.c.key == key)
    return None if connection.scalar(taken) else key


def _failures(connection: sa.Connection, model: Model, size: int) -> tuple[int, int]:
    """Return how many of the newest events of a model there are, and how many of these failed."""
    chosen = sa.select(_event.status).where(*windows.of(model), *windows.ASKED)
    found = connection.scalars(chosen.order_by(_event.ts.desc()).limit(size)).all()
    return len(found), sum(status >= FAILED for status in found)
