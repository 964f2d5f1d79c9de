"""Prediction events: what was asked and answered, in the log before the answer leaves.

The log is a folder of segments, files that are only appended to. An event is a frame of its length,
its checksum and its content, so a reader knows what is whole. A writer holds the lock (``flock``)
of its segment for life: who gets that lock knows that nothing will be added.
"""

import errno
import os
import struct
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryFile
from threading import Lock
from typing import Literal
from zlib import crc32

import msgspec

from .errors import ServingError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

SUFFIX = ".log"
HEADER = struct.Struct("<II")
SEGMENT_BYTES = 16 * 2**20
SEGMENT_SECONDS = 60.0
READ_BYTES = 2**18

Role = Literal["champion", "canary", "shadow"]


class Event(msgspec.Struct, array_like=True, gc=False):
    """One request and what one model version answered.

    Attributes
    ----------
    ts : float
        When it was answered, seconds since 1970.
    request_id : str
        As the client or its trace calls the request.
    base : str
        Ours; row `i` of the request has the prediction id ``<base>-<i>``.
    name, version : str
        Of the model.
    schema : str
        Hash of the contract.
    role : str
        ``champion``, ``canary`` or ``shadow``.
    status : int
        Of the HTTP answer.
    latency_ms : float
    body : bytes
        The request as the native route takes it: ``{"rows": [...]}``.
    answer : bytes
        The answer as the native route gives it; empty where it failed.
    """

    ts: float
    request_id: str
    base: str
    name: str
    version: str
    schema: str
    role: Role
    status: int
    latency_ms: float
    body: bytes
    answer: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Event).decode


class Ids:
    """Names for requests, 32 hexadecimal characters each, unlike those of any other process."""

    def __init__(self) -> None:
        self._prefix = f"{time.time_ns() // 1_000_000:012x}{os.urandom(5).hex()}"
        self._count = count()

    def next(self) -> str:
        """Return a name that was not given before."""
        return f"{self._prefix}{next(self._count):010x}"


class EventLog:
    """The writing end of the log; `append` and `tick` for one thread, `sync` for any other.

    Parameters
    ----------
    folder : path-like
        Made where it is missing.
    segment_bytes : int
        A segment that has grown to this is followed by a new one.
    segment_seconds : float
        So is one of this age, and an idle one is closed.
    durable : bool
        Whether `sync` will be called: what is not yet on the disk is then kept open for it.

    Attributes
    ----------
    descriptor : int
        Of the segment that is written now; -1 where there is none.
    path : Path
        Of the last segment.

    Raises
    ------
    ServingError
        Where the system has no ``flock``, or the folder cannot be written.
    """

    def __init__(
        self,
        folder: str | Path,
        segment_bytes: int = SEGMENT_BYTES,
        segment_seconds: float = SEGMENT_SECONDS,
        durable: bool = False,
    ) -> None:
        self.folder = prepared(folder)
        self.segment_bytes = segment_bytes
        self.segment_seconds = segment_seconds
        self.durable = durable
        self.descriptor = -1
        self.path = self.folder
        self._length = 0
        self._until = 0.0
        self._unsynced = False
        self._retired: deque[int] = deque()
        self._fresh = False
        self._syncing = Lock()

    def append(self, events: Sequence[Event]) -> None:
        """Write events, all or none; the process may be killed once this has returned.

        Raises
        ------
        OSError
            Where there is no room for them, or the folder cannot be written.
        """
        parts: list[bytes] = []
        for event in events:
            payload = _encode(event)
            parts += HEADER.pack(len(payload), crc32(payload)), payload
        frames = b"".join(parts)
        if not frames:
            return
        self.tick()
        if self.descriptor < 0:
            self._begin()
        try:
            written = os.write(self.descriptor, frames)
            if written < len(frames):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        except OSError:
            self._give_up()
            raise
        self._length += written
        self._unsynced = self.durable

    def tick(self) -> None:
        """Leave a segment that is large or old; to be called now and then where nothing comes."""
        if self.descriptor < 0:
            return
        if self._length >= self.segment_bytes or time.monotonic() >= self._until:
            self._leave()

    def sync(self) -> None:
        """Bring to the disk what was appended before this call.

        Raises
        ------
        OSError
            Where that fails; nobody knows then what is on the disk.
        """
        with self._syncing:
            # Appending goes on meanwhile, and may leave the segment; only this closes it then.
            self._unsynced, current = False, self.descriptor
            try:
                if self._fresh:
                    self._fresh = False
                    _sync_folder(self.folder)
                if current >= 0:
                    os.fdatasync(current)
                while self._retired:
                    _sync_and_close(self._retired.popleft())
            except OSError:
                # What the system could not write it forgets: a later sync would lie.
                self._until = 0.0
                raise

    def close(self) -> None:
        """Leave the segment; a later `append` begins another."""
        if self.descriptor >= 0:
            self._leave()
        if self._retired:
            self.sync()

    def _begin(self) -> None:
        while True:
            path = self.folder / f"{time.time_ns() // 1_000_000:012x}-{os.urandom(4).hex()}{SUFFIX}"
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL
            descriptor = os.open(path, flags, 0o600)
            # A reader may have come between, found nobody at it, and removed it.
            if locked(descriptor) and os.fstat(descriptor).st_nlink:
                break
            os.close(descriptor)
        self.path, self.descriptor, self._length = path, descriptor, 0
        self._until = time.monotonic() + self.segment_seconds
        self._fresh = self.durable

    def _leave(self) -> None:
        descriptor, self.descriptor = self.descriptor, -1
        if self._unsynced or self._syncing.locked():
            self._retired.append(descriptor)
        else:
            os.close(descriptor)

    def _give_up(self) -> None:
        """Cut off what was written in part, and leave: a reader may have seen it already."""
        with suppress(OSError):
            os.ftruncate(self.descriptor, self._length)
        if not self._length:
            self.path.unlink(missing_ok=True)
        self._leave()


def prepared(folder: str | Path) -> Path:
    """Make the folder of a log, or raise ServingError where none can be written there."""
    require_locks()
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        # A full disk may get room again, without anybody's doing here.
        if error.errno != errno.ENOSPC:
            raise ServingError(
                f"events.folder: {folder} cannot be written ({error.strerror}): give this user a "
                "folder, or a volume in a container, or set events.mode to off"
            ) from error
    return folder


def require_locks() -> None:
    """Raise ServingError where files cannot be locked."""
    if fcntl is None:
        raise ServingError("events need flock, which this system has not: set events.mode to off")


def locked(descriptor: int) -> bool:
    """Take the lock of an open file, and say whether that worked; it ends when it is closed."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def segments(folder: str | Path) -> list[Path]:
    """List the segments of a folder, the oldest first."""
    return sorted(Path(folder).glob(f"*{SUFFIX}"))


def read(path: str | Path, offset: int = 0) -> Iterator[tuple[Event, int]]:
    """Read events.

    Parameters
    ----------
    path : path-like
        A segment.
    offset : int
        Where to begin, in bytes.

    Yields
    ------
    event : Event
    offset : int
        Where the next one begins. The first that is not whole, or altered, ends the reading.
    """
    with open(path, "rb", buffering=READ_BYTES) as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(offset)
        while size - offset > HEADER.size:
            length, checksum = HEADER.unpack(file.read(HEADER.size))
            if length > size - offset - HEADER.size:
                return
            payload = file.read(length)
            if crc32(payload) != checksum:
                return
            try:
                event = _decode(payload)
            except msgspec.DecodeError:
                # Zeros, as a disk that lost power leaves them, have the right checksum.
                return
            offset += HEADER.size + length
            yield event, offset


def _sync_and_close(descriptor: int) -> None:
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
