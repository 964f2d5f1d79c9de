"""The rollout: which of two versions answers a request, the champion or a challenger."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from zlib import crc32

from .slot import Slot, breaking

if TYPE_CHECKING:
    from .served import Served

logger = logging.getLogger(__name__)


class Rollout:
    """The two slots of a service.

    Parameters
    ----------
    champion : Slot
    challenger : Slot or None
        What would like to take its place.
    share : float
        Of the requests, which the challenger answers; with 0 it only answers beside the champion.
    """

    def __init__(self, champion: Slot, challenger: Slot | None = None, share: float = 0) -> None:
        self.champion = champion
        self.challenger = challenger
        self.share = share
        self.slots = [slot for slot in (champion, challenger) if slot]
        self._compared: tuple[Served, Served] | None = None
        self._fits = False

    def choose(self, request_id: str) -> Served | None:
        """Return the version that answers a request: for the same id always the same."""
        champion = self.champion.served
        if not self.share or self.challenger is None or champion is None:
            return champion
        challenger = self.challenger.served
        if challenger is None or crc32(request_id.encode()) >= self.share * 2**32:
            return champion
        return challenger if self._takes_all(champion, challenger) else champion

    def shadow(self) -> Served | None:
        """Return the version that answers beside the champion, if there is one."""
        return self.challenger.served if self.challenger and not self.share else None

    def served(self) -> list[Served]:
        """Return the versions in service, the champion first."""
        return [slot.served for slot in self.slots if slot.served]

    def _takes_all(self, champion: Served, challenger: Served) -> bool:
        """Say whether the challenger can answer all that the champion can."""
        if self._compared != (champion, challenger):
            less = breaking(champion, challenger)
            if less:
                logger.warning("version %s answers no requests: %s", challenger.version, less)
            self._compared, self._fits = (champion, challenger), not less
        return self._fits
