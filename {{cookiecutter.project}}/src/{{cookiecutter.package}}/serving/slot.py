"""The slot: holds the model that is being served; empty until a bundle could be loaded."""

from __future__ import annotations

import logging
from pathlib import Path
from threading import Lock

from ..errors import ProjectError
from .errors import no_model
from .served import Served, load

logger = logging.getLogger(__name__)


class Slot:
    """A place for one model.

    Parameters
    ----------
    bundle : Path
        The directory to load from.

    Attributes
    ----------
    served : Served or None
        What answers requests now.
    reason : str
        Why there is none.
    """

    def __init__(self, bundle: Path) -> None:
        self.bundle = bundle
        self.served: Served | None = None
        self.reason = ""
        self._lock = Lock()

    def fill(self) -> None:
        """Load the bundle, unless a model is there; log why if it cannot be loaded."""
        with self._lock:
            if self.served:
                return
            try:
                self.served = load(self.bundle)
            except (ProjectError, OSError) as error:
                if str(error) != self.reason:
                    self.reason = str(error)
                    logger.warning("no model is loaded: %s", error)

    def require(self) -> Served:
        """Return the model; raise the answer 503 where there is none."""
        if self.served is None:
            raise no_model(self.reason)
        return self.served
