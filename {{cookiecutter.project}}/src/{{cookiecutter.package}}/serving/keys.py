"""API keys: a file of names and hashes, which is read again when it changes."""

import hashlib
import logging
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from time import monotonic

from starlette.types import ASGIApp, Receive, Scope, Send

from ..artifacts import replacing
from ..errors import ServingError
from .errors import response, unauthorized
from .limits import PROBES
from .routes import FILES

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
LINE = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,64})\s+(?P<digest>[0-9a-f]{64})")
SECONDS_BETWEEN_LOOKS = 1.0
# What shows how to ask, or is asked by machines that have no key.
OPEN = PROBES | FILES.keys() | {"/docs", "/docs/oauth2-redirect", "/openapi.json"}
# The operator's token is asked for there.
OPEN_FOLDERS = ("/static-offline-docs/", "/admin/")

logger = logging.getLogger(__name__)


class Keys:
    """Who may ask.

    Parameters
    ----------
    path : Path
        Lines of a name and the SHA-256 of a key. What is added or taken away counts within a
        second; where the file cannot be read any more, what was read last still counts.

    Raises
    ------
    ServingError
        Where the file is missing, or a line of it is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen = _state(path)
        self._names = _by_digest(path)
        self._looked = monotonic()

    def allowed(self, headers: Mapping[bytes, bytes]) -> str | None:
        """Return the name of the key that a request brings, None where it may not ask.

        Parameters
        ----------
        headers : mapping of bytes to bytes
            By lower-case name.
        """
        now = monotonic()
        if now - self._looked >= SECONDS_BETWEEN_LOOKS:
            self._looked = now
            self._look()
        key = headers.get(b"x-api-key")
        if key is None:
            scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
            if scheme.lower() != b"bearer":
                return None
        # A key is 256 random bits: there is nothing that a slower hash, or a salt, could add.
        return self._names.get(hashlib.sha256(key.strip()).hexdigest())

    def _look(self) -> None:
        if (state := _state(self.path)) == self._seen:
            return
        self._seen = state
        try:
            self._names = _by_digest(self.path)
        except ServingError as error:
            logger.error("API keys stay as they were: %s", error)
        else:
            logger.info("API keys were read again: %d", len(self._names))


def guarded(app: ASGIApp, keys: Keys) -> ASGIApp:
    """Wrap an app so that it answers those who have a key; all may see probes, page and docs.

    Parameters
    ----------
    app : ASGIApp
    keys : Keys

    Returns
    -------
    ASGIApp
    """

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if (
            scope["type"] == "lifespan"
            or path in OPEN
            or path.startswith(OPEN_FOLDERS)
            or keys.allowed(dict(scope["headers"]))
        ):
            await app(scope, receive, send)
        else:
            await response(unauthorized(), path)(scope, receive, send)

    return guard


def add(path: Path, name: str) -> str:
    """Make a key, and keep its hash.

    Parameters
    ----------
    path : Path
        The file; made where it is missing.
    name : str
        Of letters, digits, ``.``, ``_`` and ``-``.

    Returns
    -------
    str
        The key, which stands nowhere.

    Raises
    ------
    ServingError
        Where the name is none, or taken.
    """
    if not NAME.fullmatch(name):
        raise ServingError(f"key {name!r}: expected up to 64 letters, digits, '.', '_' and '-'")
    names = read(path) if path.exists() else {}
    if name in names:
        raise ServingError(f"key {name!r} exists: revoke it first, or take another name")
    key = secrets.token_urlsafe(32)
    _write(path, names | {name: hashlib.sha256(key.encode()).hexdigest()})
    return key


def revoke(path: Path, name: str) -> None:
    """Forget a key; raise ServingError where there is none of that name."""
    names = read(path)
    if name not in names:
        known = ", ".join(names) or "none"
        raise ServingError(f"no key {name!r} in {path}; expected one of: {known}")
    _write(path, {other: digest for other, digest in names.items() if other != name})


def read(path: Path) -> dict[str, str]:
    """Return the hash of each name; raise ServingError where the file cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is no text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise ServingError(
            f"serving.keys: {path} cannot be read ({reason}); 'keys add NAME' makes it"
        ) from error
    names = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        if (entry := LINE.fullmatch(line.strip())) is None:
            raise ServingError(f"{path}, line {number}: expected a name and the SHA-256 of a key")
        names[entry["name"]] = entry["digest"]
    return names


def _by_digest(path: Path) -> dict[str, str]:
    return {digest: name for name, digest in read(path).items()}


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _write(path: Path, names: Mapping[str, str]) -> None:
    with replacing(path) as partial:
        partial.touch(mode=0o600)
        partial.write_text("".join(f"{each} {names[each]}\n" for each in names), encoding="utf-8")
