"""Entities: whom or what a row is about, known in the store by a keyed hash and nothing else."""

import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path

from .errors import StoreError

KEY = "entity.key"
CHARACTERS = 32
VARIABLE = "APP_EVENTS__ENTITY_SECRET"


def secret(folder: Path) -> str:
    """Return the secret of the hash that is kept in the folder of events; make it, if need be.

    Raises
    ------
    StoreError
        Where none can be kept there.
    """
    path = folder / KEY
    try:
        with suppress(FileNotFoundError):
            return path.read_text(encoding="ascii")
        # Where the file is there already, another process was faster.
        with suppress(FileExistsError):
            _make(path)
        return path.read_text(encoding="ascii")
    except OSError as error:
        raise StoreError(f"{path} cannot be used ({error.strerror}); set {VARIABLE}") from error


def pseudonym(entity: str, key: str) -> str:
    """Return what stands for an entity: HMAC-SHA256 (RFC 2104), cut to 128 bits.

    Parameters
    ----------
    entity : str
        As the rows name it; a number as JSON writes it.
    key : str

    Returns
    -------
    str
        32 hexadecimal digits.
    """
    return hmac.new(key.encode(), entity.encode(), hashlib.sha256).hexdigest()[:CHARACTERS]


def _make(path: Path) -> None:
    """Write a new secret that only its owner can read, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32))
        os.link(fresh, path)
    finally:
        fresh.unlink()
