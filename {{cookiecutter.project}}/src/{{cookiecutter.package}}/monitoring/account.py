"""The account of a look: what a monitor found, and what is needed to tell and to draw it."""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

from .. import checks
from ..checks import CHECKED, Window
from ..encoding import Matrix
from ..errors import ProjectError
from ..reference import Sample
from ..settings import Settings
from ..store import opened
from . import windows
from .monitor import Outcome, Subject, kept, recent, subject
from .windows import Events, Place

# Checks that a timeline shows.
SHOWN = 40


@dataclass(frozen=True)
class Account:
    """What a monitor found.

    Attributes
    ----------
    now : float
        When it looked.
    project : str
    outcome : Outcome or None
        None where it could not look.
    error : str
        Why it could not.
    watched : Subject or None
        None where what is served cannot be read.
    drifts, performances : tuple of Window
        The last ones that were checked, the oldest first.
    kept : collection of str or None
        Columns that the store keeps of an event; None for all.
    events, labelled : Events or None
        Of the last checked window; the newest with a truth.
    imported : tuple of int
        Rows of the last import of truths, and those of predictions that the store does not hold.
    """

    now: float
    project: str
    outcome: Outcome | None = None
    error: str = ""
    watched: Subject | None = None
    drifts: tuple[Window, ...] = ()
    performances: tuple[Window, ...] = ()
    kept: Collection[str] | None = None
    events: Events | None = None
    labelled: Events | None = None
    imported: tuple[int, int] = (0, 0)

    @property
    def status(self) -> str:
        """How things stand, `failed` where the monitor could not look."""
        return self.outcome.status if self.outcome else "failed"

    @cached_property
    def compared(self) -> dict[str, tuple[Sample, Matrix]]:
        """Reference and window of every column that both have."""
        if self.watched is None or self.events is None:
            return {}
        samples = {each.name: each for each in self.watched.samples}
        contract = self.watched.contract
        held, _ = windows.columns(self.events, contract, self.watched.samples, self.kept)
        return {name: (samples[name], values) for name, values in held.items() if name in samples}


def collect(settings: Settings, outcome: Outcome, now: float | None = None) -> Account:
    """Gather what is kept about an outcome.

    Raises
    ------
    StoreError
        Where the store cannot be used.
    BundleError, RegistryError
        Where what is served cannot be read.
    """
    model, labelled, events = outcome.model, None, None
    watched = outcome.watched or subject(settings)
    with opened(settings.events.store) as store, store.reading() as connection:
        drifts, performances = (
            tuple(checks.read(connection, model, kind, SHOWN)) for kind in checks.KINDS
        )
        last, imports = outcome.drift, checks.actions(connection, checks.IMPORT)
        if last.state == CHECKED and last.last is not None and last.last_id is not None:
            events = windows.read(connection, model, Place(last.last, last.last_id), last.events)
        if outcome.performance.state == CHECKED:
            truths = recent(connection, model, settings.monitoring)
            labelled = windows.labelled(connection, truths, outcome.performance.events)
    moment = time.time() if now is None else now
    return Account(
        moment,
        settings.project.name,
        outcome,
        watched=watched,
        drifts=drifts,
        performances=performances,
        kept=kept(settings.events, watched.contract),
        events=events,
        labelled=labelled,
        imported=_imported(imports[0]["detail"]) if imports else (0, 0),
    )


def _imported(detail: Mapping[str, int]) -> tuple[int, int]:
    return detail["rows"], detail["unknown"]


def failed(settings: Settings, error: ProjectError, now: float | None = None) -> Account:
    """Say that the monitor could not look, and why."""
    moment = time.time() if now is None else now
    return Account(moment, settings.project.name, error=" ".join(str(error).split()))
