"""Retraining: the loop closes. A reason, newer rows, the pipeline, the gate, the next champion.

A process that is killed leaves the old champion or the new one: every step can be taken again, and
an attempt counts once it came to its end.
"""

import math
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from . import checks, contract, feedback, killed, probation, registry, release
from .artifacts import CONTRACT, RUN, SNAPSHOT, read_json, sha256
from .collection import Collected, collect
from .errors import GateError, RegistryError, TrainingError, UndecidedError
from .gate import LEAST_ROWS
from .monitoring import monitor
from .registry import CHALLENGER, CHAMPION, Version
from .settings import Settings, require_decidable, require_recordable
from .store import opened, prediction_event

ATTEMPT = "retrain"
HOUR = 3600
REMEMBERED = 1000

Outcome = Literal["nothing", "cooling", "same", "shadow", "promoted", "rolled back"]


@dataclass(frozen=True)
class Reason:
    """Why the model is trained again.

    Attributes
    ----------
    trigger : str
        ``hand``, ``drift``, ``degradation``, ``schedule`` or ``data``.
    why : str
    windows : tuple of int
        Of the monitor.
    """

    trigger: str
    why: str
    windows: tuple[int, ...] = ()


@dataclass(frozen=True)
class Versions:
    """The versions that matter, and when the champion became it."""

    champion: Version
    challenger: Version | None
    since: datetime


def retrain(settings: Settings, why: str | None = None, force: bool = False) -> tuple[Outcome, str]:
    """Train again if there is a reason to, and let the new model serve if the gate opens.

    Parameters
    ----------
    settings : Settings
    why : str or None
        A person's reason.
    force : bool
        Also where it was done less than ``cooldown_hours`` ago, or a challenger is being tried.

    Returns
    -------
    outcome : str
    said : str
        What came of it.

    Raises
    ------
    RegistryError
        Where there is no champion to compare with.
    SettingsError
        Where the gate could never decide, the store does not keep what the model needs, or DVC
        cannot record the settings.
    TrainingError
        Where a stage of the pipeline fails.
    GateError
        Where the challenger is refused; the champion stays.
    UndecidedError
        Where truths are too few for the gate: a person has to decide.
    """
    require_decidable(settings)
    probation.judge(settings)
    if not why and (taken_back := probation.taken_back(settings)):
        return "rolled back", taken_back
    versions, last = _versions(settings), _last_attempt(settings)
    if untold := _untold(settings, versions.champion.number):
        _finish(settings, "promoted", untold)
        told = f"version {untold['number']} was promoted by a process that was killed then"
        return "promoted", f"{untold['reason']}; {told}"
    tried = versions.challenger
    if last.get("outcome") == "shadow" and tried and tried.number == last["number"] and not force:
        return _shadowed(settings, versions, tried, last)
    reasons = list(_reasons(settings, versions, why, last.get("data_sha256")))
    if not reasons:
        return "nothing", "nothing wants it: no confirmed drift or degradation, no newer rows"
    told = "; ".join(reason.why for reason in reasons)
    hours = settings.retraining.cooldown_hours
    if last and not force and (passed := (time.time() - last["ts"]) / HOUR) < hours:
        return "cooling", f"{told}; done {passed:.1f} h ago, again after {hours:g} h or by --force"
    attempt: dict[str, Any] = {
        "trigger": ", ".join(reason.trigger for reason in reasons),
        "reason": told,
        "windows": [window for reason in reasons for window in reason.windows],
    }
    attempt["until"] = _take(settings, versions.champion, attempt["windows"])
    run_pipeline(settings)
    attempt["data_sha256"] = read_json(SNAPSHOT.with_suffix(".json"))["sha256"]
    versions, number = _versions(settings), read_json(RUN)["model_version"]
    tried = versions.challenger
    if tried is None or tried.number != number or versions.champion.number == number:
        _finish(settings, "same", {**attempt, "number": number})
        return "same", f"{told}; but version {number} came of it again, which is no challenger"
    _tag(settings, tried, attempt)
    if settings.retraining.shadow_events:
        _finish(settings, "shadow", {**attempt, "number": number})
        return "shadow", f"{told}; {_progress(settings, tried, 0)}"
    return _promote(settings, versions.champion, tried, attempt)


def run_pipeline(settings: Settings) -> None:
    """Run the stages of which something changed, as `make pipeline` does.

    Raises
    ------
    SettingsError
        Where DVC cannot record the settings.
    TrainingError
        Where a stage fails; it has said why.
    """
    require_recordable(settings)
    killed.release()
    dvc = [sys.executable, "-m", "dvc"]
    # DVC wants a Git repository that does not ignore this folder, unless it is told there is none.
    ignored = subprocess.run(["git", "check-ignore", "--quiet", "."], check=False)
    if ignored.returncode != 1:
        subprocess.run([*dvc, "config", "--local", "core.no_scm", "true"], check=True)
    if subprocess.run([*dvc, "repro"], check=False).returncode:
        raise TrainingError("a stage of the pipeline failed, as said above; the champion stays")


def _versions(settings: Settings) -> Versions:
    with registry.connect(settings) as store:
        store.settle()
        champion, challenger = store.aliased(CHAMPION), store.aliased(CHALLENGER)
        if champion is None:
            raise RegistryError(
                f"{settings.tracking.model} has no champion: run the pipeline, then promote, so "
                "that there is one to compare with"
            )
        crowned = [e["when"] for e in store.events() if _crowned(e) == champion.number]
    since = datetime.fromisoformat(crowned[-1]) if crowned else datetime.now(UTC)
    return Versions(champion, challenger, since)


def _crowned(event: dict[str, Any]) -> str | None:
    return event["champion"] if event["decision"] in ("promoted", "rolled back") else None


def _last_attempt(settings: Settings) -> dict[str, Any]:
    with opened(settings.events.store) as store, store.reading() as connection:
        found = checks.actions(connection, ATTEMPT)
    return {**found[0]["detail"], "ts": found[0]["ts"]} if found else {}


def _untold(settings: Settings, champion: str) -> dict[str, Any] | None:
    """Return the attempt that made the champion, where it was killed before it said so."""
    with opened(settings.events.store) as store, store.reading() as connection:
        attempt = probation.announced(connection, champion).get("attempt")
        ended = [each["detail"] for each in checks.actions(connection, ATTEMPT, REMEMBERED)]
    numbers = [each["number"] for each in ended if each["outcome"] != "shadow"]
    return None if champion in numbers else attempt


def _reasons(
    settings: Settings, versions: Versions, why: str | None, tried: str | None
) -> Iterator[Reason]:
    wanted = settings.retraining
    if why:
        yield Reason("hand", why)
    if seen := _seen(settings, versions.champion):
        if seen.drift.confirmed and "drift" in wanted.triggers:
            columns = ", ".join(streak["column"] for streak in seen.streaks)
            yield Reason("drift", f"drift in {columns}", (seen.drift.id or 0,))
        if seen.performance.confirmed and "degradation" in wanted.triggers:
            excess = seen.performance.findings[0].score
            why = f"{excess:.3g} more loss a prediction than in training"
            yield Reason("degradation", why, (seen.performance.id or 0,))
    days = (datetime.now(UTC) - versions.since).total_seconds() / (24 * HOUR)
    if wanted.every_days and days >= wanted.every_days:
        yield Reason("schedule", f"the champion is {days:.0f} days old")
    # Rows that were tried, whatever came of it, are tried again for another reason only.
    known = versions.champion.tags["data_sha256"], tried
    if "data" in wanted.triggers and _source(settings) not in known:
        yield Reason("data", f"{settings.data.source} has other rows")


def _seen(settings: Settings, champion: Version) -> monitor.Outcome | None:
    """Return what the monitor found about the champion; about an earlier one it is no reason."""
    seen = monitor.current(settings)
    return seen if seen and seen.model.version == champion.tags["bundle_version"] else None


def _source(settings: Settings) -> str:
    """Hash the rows of the source, as its snapshot would be."""
    from . import data

    frame = data.read(settings.data.source, settings.data)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "snapshot.parquet"
        data.write_table(frame, path)
        return sha256(path)


def _take(settings: Settings, champion: Version, windows: list[int]) -> float | None:
    """Keep the newest predictions that can be learnt from; return the moment of the last one.

    Of too few rows, of which none could be held out, none is kept.
    """
    wanted, agreed, since = settings.retraining, contract.read(CONTRACT), None
    policy = wanted.policy
    if policy == "auto":
        policy, seen = "append", _seen(settings, champion)
        if seen and seen.performance.alarm:
            policy, since = "replace", seen.performance.first
    found = collect(agreed, settings.events, wanted.rows, since)
    if len(found) < 2 * LEAST_ROWS:
        return None
    held_out = min(wanted.held_out, len(found) // 2)
    if wanted.policy == "auto":
        known = Counter(found.labels[:-held_out])
        policy = policy if all(known[label] > 1 for label in agreed.classes) else "append"
    moments = [datetime.fromtimestamp(found.moments[i], UTC).isoformat() for i in (0, -1)]
    facts = {
        "policy": policy,
        "held_out": held_out,
        "from": moments[0],
        "until": moments[1],
        "windows": windows,
    }
    feedback.write(agreed, found.rows, found.labels, found.entities, facts)
    return found.moments[-1]


def _tag(settings: Settings, version: Version, attempt: dict[str, Any]) -> None:
    told = {name: str(attempt[name]) for name in ("trigger", "reason", "windows")}
    with registry.connect(settings) as store:
        store.tag(version, {f"retraining.{name}": value for name, value in told.items()})


def _promote(
    settings: Settings,
    champion: Version,
    challenger: Version,
    attempt: dict[str, Any],
    fresh: Collected | None = None,
) -> tuple[Outcome, str]:
    """Ask the gate, and write down what came of it; a swap is announced before it is made."""
    tags = challenger.tags
    facts = {name: attempt[name] for name in ("trigger", "reason", "windows")}
    data = {name: tags[name] for name in ("data_sha256", "feedback_sha256") if name in tags}
    frame = None
    if fresh is not None:
        frame = feedback.table(contract.read(CONTRACT), fresh.rows, fresh.labels)
    attempt = {**attempt, "number": challenger.number}
    detail = {
        "number": challenger.number,
        "version": tags["bundle_version"],
        "former": champion.tags["bundle_version"],
        "name": settings.project.name,
        "attempt": attempt,
    }
    with opened(settings.events.store) as store:
        probation.begin(store, detail)
    try:
        least = settings.monitoring.labels
        said = release.promote(settings, least, frame, retraining={**facts, **data})
    except GateError:
        _finish(settings, "refused", attempt)
        raise
    except UndecidedError:
        _finish(settings, "undecided", attempt)
        raise
    _finish(settings, "promoted", attempt)
    return "promoted", f"{attempt['reason']}\n{said}"


def _shadowed(
    settings: Settings, versions: Versions, challenger: Version, last: dict[str, Any]
) -> tuple[Outcome, str]:
    """Go on with a challenger that answers beside the champion, once it did so often enough.

    The truths that came since are the newest that neither version was trained on.
    """
    wanted, least, until = settings.retraining, settings.monitoring.labels, last["until"]
    shadow = sa.select(sa.func.count()).where(
        prediction_event.c.role == "shadow",
        prediction_event.c.model_version == challenger.tags["bundle_version"],
    )
    with opened(settings.events.store) as store, store.reading() as connection:
        answered = connection.scalar(shadow) or 0
    waits = _progress(settings, challenger, answered)
    if answered >= wanted.shadow_events:
        since = None if until is None else math.nextafter(until, math.inf)
        fresh = collect(contract.read(CONTRACT), settings.events, wanted.held_out, since)
        if len(fresh) >= least:
            return _promote(settings, versions.champion, challenger, last, fresh)
        waits = (
            f"version {challenger.number} waits for truths: {len(fresh):,} of {least:,} "
            "(monitoring.labels); then the gate decides"
        )
    if time.time() - last["ts"] < wanted.shadow_days * 24 * HOUR:
        return "shadow", waits
    _finish(settings, "undecided", last)
    raise UndecidedError(
        f"{waits}; that takes longer than {wanted.shadow_days:g} days (retraining.shadow_days), so "
        f"a person decides: promote lets it serve, if the gate opens"
    )


def _progress(settings: Settings, version: Version, answered: int) -> str:
    wanted = settings.retraining.shadow_events
    return (
        f"version {version.number} answered {answered:,} of {wanted:,} requests beside the "
        f"champion (serving.challenger: models:/{settings.tracking.model}@{CHALLENGER}); then the "
        "gate decides"
    )


def _finish(settings: Settings, outcome: str, attempt: dict[str, Any]) -> None:
    """Write down that an attempt came to its end."""
    names = ("number", "trigger", "reason", "windows", "until", "data_sha256")
    kept = {name: attempt[name] for name in names}
    key = f"{ATTEMPT} {kept['number']} {outcome} {time.time():.0f}"
    with opened(settings.events.store) as store:
        checks.claim(store, key, ATTEMPT, {**kept, "outcome": outcome})
