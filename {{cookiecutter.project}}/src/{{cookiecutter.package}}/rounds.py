"""Rounds: look, write the report, tell whom it concerns, take a bad champion back; once, or on."""

import time
from collections.abc import Callable

from . import probation
from .errors import ProjectError
from .monitoring import alerts, report, sentences
from .monitoring.account import Account, collect, failed
from .monitoring.monitor import monitor
from .settings import Settings


def look(settings: Settings, say: Callable[[str], None]) -> None:
    """Check what came since the last time, write reports/monitoring.*, tell what has to be told.

    A new champion that does worse than the one before it is rolled back.

    Parameters
    ----------
    settings : Settings
    say : callable
        Is told how things stand, with a line for each finding.

    Raises
    ------
    StoreError, BundleError, RegistryError
        Where it could not look; the report says so, and so do the messages.
    """
    try:
        account = collect(settings, monitor(settings))
    except ProjectError as error:
        _tell(failed(settings, error), settings, say)
        raise
    say(sentences.summary(account))
    _tell(account, settings, say)
    if taken_back := probation.judge(settings):
        say(taken_back)


def watch(settings: Settings, seconds: float, say: Callable[[str], None]) -> None:
    """Look again and again, until Ctrl-C; what cannot be reached now may be there the next time."""
    try:
        while True:
            try:
                look(settings, say)
            except ProjectError as error:
                say(f"error: {error}")
            time.sleep(seconds)
    except KeyboardInterrupt:
        say("stopped")


def _tell(account: Account, settings: Settings, say: Callable[[str], None]) -> None:
    report.write(account, settings)
    for line in alerts.tell(account, settings):
        say(line)
