"""The slot: holds the model that is being served, and swaps it while requests are answered.

What the source offers is loaded beside the model that serves, proven on its stored examples, and
put in its place by one assignment. Whoever answers a request asks `require` once, so that each
answer is of exactly one version.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING

from ..compatibility import kind, narrowings
from ..errors import BundleError, ProjectError, RegistryError
from .errors import conflict, no_model
from .holds import Holds
from .served import Served, load
from .source import Source

if TYPE_CHECKING:
    from ..events import Role

logger = logging.getLogger(__name__)

STOP_SECONDS = 5


class Slot:  # pylint: disable=too-many-instance-attributes
    """A place for one model, and for the one before it.

    Parameters
    ----------
    source : Source
    holds : Holds
    allow_breaking : bool
        Whether a version may be taken whose contract refuses what the one before it took.
    role : str
        Of what is served: ``champion``, ``canary`` or ``shadow``.

    Attributes
    ----------
    served : Served or None
        What answers requests now.
    previous : Served or None
        What a rollback puts back.
    swaps : dict of str to int
        How many versions were ``loaded``, ``refused`` and ``rolled_back``.
    counted : callable
        Is told of each.
    """

    def __init__(
        self,
        source: Source,
        holds: Holds,
        allow_breaking: bool = False,
        role: Role = "champion",
    ) -> None:
        self.source = source
        self.role = role
        self.holds = holds
        self.allow_breaking = allow_breaking
        self.served: Served | None = None
        self.previous: Served | None = None
        self.swaps = {"loaded": 0, "refused": 0, "rolled_back": 0}
        self.counted: Callable[[str], None] = lambda result: None
        # A load takes its time, which a rollback does not wait for.
        self._loading, self._lock = Lock(), Lock()
        self._seen = ""
        self._held: frozenset[str] = frozenset()
        self._refused = self._missing = ""
        self._misses = 0

    @property
    def reason(self) -> str:
        """Why what the source offers is not served; empty where it is."""
        return self._missing or self._refused

    def require(self) -> Served:
        """Return the model; raise the answer 503 where there is none."""
        served = self.served
        if served is None:
            raise no_model(self.reason)
        return served

    def fill(self) -> None:
        """Load what the source offers, unless a model is there; log why if it cannot be loaded."""
        if self.served is None:
            self.refresh()

    def refresh(self) -> None:
        """Look at the source once, and serve what it offers, if that is new and sound.

        What was refused is not tried again before the source offers something else.
        """
        with self._loading:
            self._follow()
            offered = None
            try:
                offered = self.source.fingerprint()
                if offered == self._seen:
                    self._missing, self._misses = "", 0
                    return
                fresh = load(self.source.fetch(offered), self.role)
                if not self._moved_on(offered):
                    self._take(fresh, offered)
            # A bundle comes from elsewhere: whatever it makes a library raise, the service goes on.
            except Exception as error:  # pylint: disable=broad-exception-caught
                if offered is None or isinstance(error, RegistryError):
                    self._miss(error)
                elif not self._moved_on(offered):
                    self._refuse(offered, error)

    def rollback(self) -> tuple[Served, Served]:
        """Put the previous version back at once, and hold the one that was served.

        The source is not asked for a version that is held before it has offered another one, or
        `resume` was called. Other workers follow when they look next.

        Returns
        -------
        served, held : Served

        Raises
        ------
        RequestError
            409 where there is no previous version, as after a rollback.
        """
        self._follow()
        with self._lock:
            if self.served is None or self.previous is None:
                raise conflict("there is no previous version to go back to")
            self.holds.add(self.served.version)
            self._held |= {self.served.version}
            return self._put_back(self.served, self.previous)

    def resume(self) -> Served:
        """End a rollback: serve what the source offers, also if it was held.

        Raises
        ------
        RequestError
            409 where nothing is held, or what the source offers cannot be served.
        """
        held = self.holds.versions()
        if not held:
            raise conflict("no version is held: nothing was rolled back")
        self.holds.remove(held)
        self.refresh()
        if self.reason:
            raise conflict(self.reason)
        return self.require()

    def _follow(self) -> None:
        """Do what another worker was asked for."""
        held = self.holds.versions()
        with self._lock:
            if self._held - held:
                self._seen = ""
            new, self._held = held - self._held, held
            if self.served and self.served.version in new:
                if self.previous:
                    self._put_back(self.served, self.previous)
                else:
                    logger.warning("version %s is held, but there is no other", self.served.version)

    def _put_back(self, held: Served, previous: Served) -> tuple[Served, Served]:
        self.served, self.previous = previous, None
        self._count("rolled_back")
        self._refused = _is_held(held.version)
        logger.warning("version %s serves again: %s", previous.version, self._refused)
        return previous, held

    def _take(self, fresh: Served, offered: str) -> None:
        """Serve a version, unless it is held, takes less, or is the one that serves."""
        with self._lock:
            served, version = self.served, fresh.version
            if served and version != served.version and version in self._held:
                self._accept(offered, _is_held(version))
                return
            if served and not self.allow_breaking and (less := breaking(served, fresh)):
                raise BundleError(
                    f"version {version} would break clients of {served.version}: {less} "
                    "(serving.allow_breaking takes it all the same)"
                )
            self._accept(offered)
            if version not in self._held:
                self.holds.remove(self._held)
                self._held = frozenset()
            elif served is None:
                logger.warning("version %s is held, but there is no other", version)
            if served and served.predictor.card == fresh.predictor.card:
                return
            if served and served.version != version:
                self.previous = served
            self.served = fresh
            self._count("loaded")
        logger.info("version %s serves", version)

    def _count(self, result: str) -> None:
        self.swaps[result] += 1
        self.counted(result)

    def _accept(self, offered: str, refused: str = "") -> None:
        self._seen, self._refused = offered, refused
        self._missing, self._misses = "", 0

    def _refuse(self, offered: str, error: Exception) -> None:
        why, before = _line(error), self._refused
        self._accept(offered, why)
        self._count("refused")
        if why != before:
            self._warn(why, error)

    def _miss(self, error: Exception) -> None:
        self._misses += 1
        why, before = _line(error), self._missing
        # A folder is away for a moment while another one takes its place.
        if self.served is None or self._misses > 1:
            self._missing = why
            if why != before:
                self._warn(why, error)

    def _warn(self, why: str, error: Exception) -> None:
        start = f"version {self.served.version} goes on" if self.served else "no model is loaded"
        foreseen = isinstance(error, ProjectError | OSError)
        logger.warning("%s: %s", start, why, exc_info=None if foreseen else error)

    def _moved_on(self, offered: str) -> bool:
        """Say whether the source was replaced while it was read."""
        try:
            return self.source.fingerprint() != offered
        except (ProjectError, OSError):
            return True


@contextmanager
def watching(slot: Slot, seconds: float) -> Iterator[None]:
    """Look at the source of a slot again and again, beside what the block does.

    Parameters
    ----------
    slot : Slot
    seconds : float
        Between two looks; 0: none.
    """
    stop = Event()

    def watch() -> None:
        while not stop.wait(seconds):
            slot.refresh()

    thread = Thread(target=watch, name="watcher", daemon=True)
    if seconds:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if seconds:
            thread.join(STOP_SECONDS)


def breaking(old: Served, new: Served) -> str:
    """Say what clients of one version would miss with another one; empty if nothing."""
    before, after = old.predictor.contract, new.predictor.contract
    if kind(before) != kind(after):
        return f"a {kind(before)} would become a {kind(after)}"
    return "; ".join(narrowings(before, after))


def _is_held(version: str) -> str:
    return f"version {version} was rolled back, and is held until the source offers another one"


def _line(error: Exception) -> str:
    if isinstance(error, ProjectError | OSError):
        return str(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
