"""Versions that were rolled back, noted for every worker of the service."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, unquote

logger = logging.getLogger(__name__)


class Holds:
    """One empty file for each version that is held, so that no note overwrites another.

    Parameters
    ----------
    folder : Path
        Shared by the workers; where it cannot be written, this worker alone holds.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._own: set[str] = set()

    def versions(self) -> frozenset[str]:
        """Return the versions that no worker may take from the source."""
        with suppress(OSError):
            return frozenset({unquote(path.name) for path in self.folder.iterdir()} | self._own)
        return frozenset(self._own)

    def add(self, version: str) -> None:
        """Hold a version."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / quote(version, safe="")).touch()
        except OSError as error:
            logger.warning("other workers do not hear of the rollback: %s", error)
            self._own.add(version)

    def remove(self, versions: frozenset[str]) -> None:
        """Hold versions no longer."""
        self._own -= versions
        for version in versions:
            with suppress(OSError):
                (self.folder / quote(version, safe="")).unlink()
