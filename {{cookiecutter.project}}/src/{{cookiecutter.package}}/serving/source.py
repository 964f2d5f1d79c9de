"""The source: where the service gets its bundle from, a folder or a version in the registry."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlsplit

from ..errors import BundleError, SettingsError
from ..settings import Settings

REFERENCE = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<number>\d+))")
KEPT = 3
ABANDONED_SECONDS = 3600


@dataclass(frozen=True)
class Reference:
    """A registered model's name, with an alias or a number of a version."""

    name: str
    alias: str | None
    number: str | None

    def __str__(self) -> str:
        """Write it as MLflow does."""
        part = f"@{self.alias}" if self.alias else f"/{self.number}"
        return f"models:/{self.name}{part}"


class Store(Protocol):
    """A registry of models."""

    address: str

    def find(self, reference: Reference) -> tuple[str, str]:
        """Return the number of a version and its place.

        Raises
        ------
        RegistryError
            Where nobody answers, or there is no such version.
        """

    def download(self, name: str, number: str, folder: Path) -> Path:
        """Copy the bundle of a version into a folder; say where in it.

        Raises
        ------
        BundleError
            Where the version holds none.
        RegistryError
            Where nobody answers.
        """


class Source(Protocol):
    """What offers one bundle at a time."""

    def fingerprint(self) -> str:
        """Tell one bundle from the next, at little cost.

        Raises
        ------
        ProjectError, OSError
            Where there is none at the moment.
        """

    def fetch(self, fingerprint: str) -> Path:
        """Return the folder with the bundle of a fingerprint.

        Raises
        ------
        BundleError
            Where what was offered is no bundle.
        RegistryError
            Where the registry does not answer.
        """


def of(settings: Settings, key: str = "source") -> Source:
    """Open a source of the settings.

    Parameters
    ----------
    settings : Settings
    key : str
        ``source``, which without a value is the pipeline's own bundle, or ``challenger``.

    Raises
    ------
    SettingsError
        Where it is no folder and no version in the registry.
    """
    given: str | None = getattr(settings.serving, key)
    if given is None:
        return Directory(settings.serving.bundle)
    if not given.startswith("models:"):
        return Directory(Path(given))
    return registered(settings, given, f"serving.{key}", "a folder")


def registered(settings: Settings, given: str, key: str, otherwise: str) -> Registry:
    """Open a version in the registry.

    Parameters
    ----------
    settings : Settings
    given : str
        Which version, as MLflow writes it.
    key, otherwise : str
        Where that was given, and what else could stand there.

    Raises
    ------
    SettingsError
        Where it names none.
    """
    if not (found := REFERENCE.fullmatch(given)):
        raise SettingsError(
            f"{key}: {given!r} names no version; expected models:/<name>@<alias>, "
            f"models:/<name>/<number> or {otherwise}"
        )
    from .. import tracking
    from .stores import Local, Server

    address = tracking.uri(settings)
    http = urlsplit(address).scheme in ("http", "https")
    store = Server(address) if http else Local(settings)
    return Registry(store, Reference(**found.groupdict()), settings.serving.state / "models")


class Directory:
    """A folder whose bundle may be replaced at any time.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def fingerprint(self) -> str:
        """Tell by size, times and place on the disk of every file."""
        from .. import bundle

        files = []
        with suppress(FileNotFoundError), os.scandir(self.path) as entries:
            files = sorted((each.name, each.stat()) for each in entries)
        if bundle.CARD not in [name for name, _ in files]:
            raise bundle.missing(self.path)
        facts = [
            (name, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
            for name, stat in files
        ]
        return hashlib.sha256(repr(facts).encode()).hexdigest()

    def fetch(self, fingerprint: str) -> Path:
        """Return the folder as it is."""
        del fingerprint
        return self.path


class Registry:
    """A version in MLflow's registry; what was fetched is kept in a folder.

    Parameters
    ----------
    store : Store
    reference : Reference
    cache : Path
        Shared by the workers of a service; holds the versions used last.
    """

    def __init__(self, store: Store, reference: Reference, cache: Path) -> None:
        self.store = store
        self.reference = reference
        self.cache = cache

    def fingerprint(self) -> str:
        """Tell by the version's number and its place in the store."""
        return " ".join(self.store.find(self.reference))

    def fetch(self, fingerprint: str) -> Path:
        """Return the folder of a version, which is complete or not there."""
        from .. import bundle

        number, _, location = fingerprint.partition(" ")
        origin = hashlib.sha256(f"{self.store.address} {location}".encode()).hexdigest()[:12]
        kept = self.cache / f"{quote(self.reference.name, safe='')}-{number}-{origin}"
        with suppress(BundleError):
            bundle.verify(kept)
            os.utime(kept)
            return kept
        self.cache.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".fetching-", dir=self.cache))
        try:
            found = self.store.download(self.reference.name, number, fresh)
            shutil.rmtree(kept, ignore_errors=True)
            # Another worker may have been faster: then its copy is as good.
            with suppress(OSError):
                found.rename(kept)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        self._tidy()
        return kept

    def _tidy(self) -> None:
        """Remove all but the versions used last, and what a killed process was fetching."""
        ages = {}
        for path in self.cache.iterdir():
            with suppress(FileNotFoundError):
                ages[path] = time.time() - path.stat().st_mtime
        fetching = {path for path in ages if path.name.startswith(".fetching-")}
        old = sorted(ages.keys() - fetching, key=lambda path: ages[path])[KEPT:]
        abandoned = [path for path in fetching if ages[path] > ABANDONED_SECONDS]
        for path in (*old, *abandoned):
            shutil.rmtree(path, ignore_errors=True)
