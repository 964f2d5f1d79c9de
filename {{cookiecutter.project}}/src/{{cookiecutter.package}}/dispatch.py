"""The dispatch: asks GitHub to start retraining where the monitor found reason, once a cooldown."""

import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from . import checks
from .checks import Look, Window
from .errors import DispatchError, SettingsError
from .settings import Settings
from .store import Store, opened

EVENT = "retrain"
API = "https://api.github.com"
# Started from here, or by whoever retrains without being asked.
STARTED = ("dispatch", "retrain")
REASONS = ("drift", "degraded")
TIMEOUT_SECONDS = 10
HOUR = 3600
MOST_FINDINGS = 10
LONGEST = 200


@dataclass(frozen=True)
class Repository:
    """Where retraining is started.

    Attributes
    ----------
    name : str
        Its owner and name, such as ``octo-org/octo-repo``.
    token : str
        May write its contents.
    api : str
    """

    name: str
    token: str
    api: str = API

    @classmethod
    def from_environment(cls) -> "Repository":
        """Take GITHUB_REPOSITORY, GITHUB_TOKEN and GITHUB_API_URL; raise SettingsError."""
        name = os.environ.get("GITHUB_REPOSITORY", "")
        token = os.environ.get("GITHUB_TOKEN", "").strip()
        api = os.environ.get("GITHUB_API_URL") or API
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
            raise SettingsError(f"GITHUB_REPOSITORY: expected owner/name, not {name!r}")
        if not token:
            raise SettingsError("GITHUB_TOKEN is not set: a token that may write its contents")
        if not api.startswith(("https://", "http://")):
            raise SettingsError(f"GITHUB_API_URL: expected an address such as {API}, not {api!r}")
        return cls(name, token, api.rstrip("/"))


@dataclass(frozen=True)
class Reason:
    """Why a model is to be retrained, as the retraining is told.

    Attributes
    ----------
    reason : str
        ``drift`` or ``degraded``.
    why : str
        The findings, in words.
    model, version : str
    windows : list of int
        Which windows say so.
    key : str
        Of this retraining: the same where it is asked for once more after a failure.
    """

    reason: str
    why: str
    model: str
    version: str
    windows: list[int]
    key: str


@dataclass(frozen=True)
class Dispatched:
    """Whether retraining was started, and in a line why, or why not."""

    started: bool
    told: str


def dispatch(settings: Settings, repository: Repository) -> Dispatched:
    """Start retraining, if drift or degradation is confirmed and none was started of late.

    Of several that ask at once, also on different machines, one starts it.

    Parameters
    ----------
    settings : Settings
    repository : Repository

    Returns
    -------
    Dispatched

    Raises
    ------
    StoreError
        Where the store cannot be used.
    DispatchError
        Where GitHub refuses, or does not answer; the next attempt is free to start it.
    """
    hours = settings.retraining.cooldown_hours
    with opened(settings.events.store) as store:
        with store.reading() as connection:
            look = checks.last_look(connection)
            if look is None or look.status not in REASONS:
                state = look.status if look else "never looked at"
                return Dispatched(False, f"nothing to do: the model is {state}")
            before = _last_start(connection)
            windows = checks.verdicts(connection, look)
        if before and (left := hours * HOUR - (time.time() - before)) > 0:
            return Dispatched(
                False,
                f"{look.status}, but a retraining was started of late: the next in "
                f"{left / HOUR:.1f} h (retraining.cooldown_hours)",
            )
        reason = _reason(look, windows, before)
        if not checks.claim(store, reason.key, STARTED[0], asdict(reason)):
            return Dispatched(False, f"{look.status}: another process starts the retraining")
        _send_or_release(store, repository, reason)
    return Dispatched(True, f"retraining started in {repository.name}: {reason.why}")


def _last_start(connection: sa.Connection) -> float | None:
    found = (checks.actions(connection, kind) for kind in STARTED)
    return max((float(each["ts"]) for some in found for each in some), default=None)


def _reason(look: Look, windows: Sequence[Window], before: float | None) -> Reason:
    """Say why; whoever saw the same start before has the same key."""
    model = look.model
    counted = [window for window in windows if window.confirmed]
    found = [each for window in counted for each in window.findings if each.alarm]
    found.sort(key=lambda each: each.p)
    words = [f"{each.column} {each.change} by {each.score:.3g}" for each in found[:MOST_FINDINGS]]
    return Reason(
        look.status,
        f"{look.status} of version {model.version}: {', '.join(words)}",
        model.name,
        model.version,
        [window.id for window in counted if window.id is not None],
        f"retrain {model.name} {model.version} after {before or 0:.6f}",
    )


def _send_or_release(store: Store, repository: Repository, reason: Reason) -> None:
    try:
        _send(repository, {"event_type": EVENT, "client_payload": asdict(reason)})
    except DispatchError:
        checks.release(store, reason.key)
        raise


def _send(repository: Repository, body: dict[str, Any]) -> None:
    address = f"{repository.api}/repos/{repository.name}/dispatches"
    headers = {
        "Accept": "application/vnd.github+json",
        "Authorization": f"Bearer {repository.token}",
        "Content-Type": "application/json",
        "X-GitHub-Api-Version": "2022-11-28",
    }
    request = urllib.request.Request(address, json.dumps(body).encode(), headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):  # noqa: S310
            return
    except urllib.error.HTTPError as error:
        with error:
            said = " ".join(error.read().decode(errors="replace").split())[:LONGEST]
        raise DispatchError(
            f"{address} answers {error.code}: {said}; GITHUB_TOKEN has to be allowed to write "
            "the contents of GITHUB_REPOSITORY"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise DispatchError(f"{address} does not answer: {error}") from error
