"""Ingestion: from the log's segments into the store, each event exactly once.

The rows of events and the place up to which their segment was read are committed together. The
service has it done by a child process, which is there only while there is something to do.
"""

import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw, Struct

from . import entities, events
from .errors import StoreError
from .events import Event

if TYPE_CHECKING:
    from .settings import Events
    from .store import Store

logger = logging.getLogger(__name__)

LOCK, STATE, TORN = "ingestion.lock", "ingestion.json", ".torn"
DRAIN = "drain"
BATCH_EVENTS, BATCH_BYTES = 1000, 2**21
POLL_SECONDS = 0.5
# Longer than an idle writer keeps its segment: the child stays to delete it.
IDLE_SECONDS = events.SEGMENT_SECONDS + 15
MOST_SECONDS = 30.0
PRUNE_SECONDS = 3600.0
STOP_SECONDS = 4.0
DAY = 86400
NULL = Raw(b"null")


class IngestedElsewhereError(StoreError):
    """Another process ingests the folder."""


class Job(Struct, frozen=True):
    """What the child has to know of the settings."""

    folder: str
    store: str
    features: tuple[str, ...] | None = None
    entity: str | None = None
    secret: str = ""
    retention_days: float = 0

    @classmethod
    def of(cls, settings: "Events") -> "Job":
        """Take what is needed from the settings."""
        secret = ""
        if settings.entity:
            given = settings.entity_secret
            secret = given.get_secret_value() if given else entities.secret(settings.folder)
        return cls(
            str(settings.folder),
            settings.store,
            None if settings.features is None else tuple(settings.features),
            settings.entity,
            secret,
            settings.retention_days,
        )


class State(Struct):
    """How ingestion is doing, as it leaves it for others in the folder.

    Attributes
    ----------
    ingested : float or None
        When it last succeeded, seconds since 1970.
    error : str or None
        Why it does not succeed now.
    since : float or None
        Since when.
    pruned : float
        When old events were last deleted.
    positions : dict of str to int
        How far each segment was read.
    """

    ingested: float | None = None
    error: str | None = None
    since: float | None = None
    pruned: float = 0.0
    positions: dict[str, int] = {}


class Backlog(Struct):
    """What waits to be ingested, and how ingestion is doing."""

    segments: int
    bytes: int
    state: State


class Request(Struct):
    rows: list[Raw]


class Answer(Struct):
    predictions: list[Raw]


class Answered(Struct):
    prediction: str | bool | int | float
    probabilities: dict[str, float] | None = None
    score: float | None = None


_request = msgspec.json.Decoder(Request).decode
_answer = msgspec.json.Decoder(Answer).decode
_answered = msgspec.json.Decoder(Answered).decode
_columns = msgspec.json.Decoder(dict[str, Raw]).decode
_state = msgspec.json.Decoder(State).decode


def backlog(folder: str | Path) -> Backlog:
    """Tell what waits in a folder; cheap enough to be asked every second."""
    folder = Path(folder)
    try:
        state = _state((folder / STATE).read_bytes())
    except (FileNotFoundError, msgspec.DecodeError):
        state = State()
    waiting = []
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(events.SUFFIX):
                with suppress(FileNotFoundError):
                    size = entry.stat().st_size
                    waiting.append(max(0, size - state.positions.get(entry.name, 0)))
    return Backlog(sum(map(bool, waiting)), sum(waiting), state)


def rows(event: Event, job: Job) -> list[dict[str, Any]]:
    """Return the rows of the store that an event becomes, one for each row of its request.

    A request that failed may be of any bytes: where it has no rows it becomes one without features.
    """
    try:
        asked = _request(event.body).rows
    except msgspec.DecodeError:
        asked = []
    answers = _answers(event)
    common = {
        "request_id": event.request_id,
        "ts": event.ts,
        "model_name": event.name,
        "model_version": event.version,
        "role": event.role,
        "schema_hash": event.schema,
        "latency_ms": event.latency_ms,
        "status": event.status,
    }
    found = []
    for i in range(max(len(asked), len(answers), 1)):
        features, entity = _kept(asked[i], job) if i < len(asked) else (None, None)
        output = answers[i] if i < len(answers) else None
        found.append(
            {
                **common,
                "prediction_id": f"{event.base}-{i}",
                "entity_key": entity,
                "features": features,
                "output": None if output is None else _text(output),
                "score": None if output is None else score(output),
            }
        )
    return found


def score(output: bytes) -> float | None:
    """Return the one number of an answer in which drift of predictions shows.

    The probability of the predicted class, the number of a regression, the score of a clustering.
    """
    try:
        answer = _answered(output)
    except msgspec.DecodeError:
        return None
    label = answer.prediction
    if answer.probabilities is not None:
        return answer.probabilities.get(label if isinstance(label, str) else json.dumps(label))
    if answer.score is not None or isinstance(label, str):
        return answer.score
    return float(label)


class Ingestion:
    """The one process that ingests a folder.

    Parameters
    ----------
    job : Job

    Raises
    ------
    StoreError
        Where another process does it already.
    """

    def __init__(self, job: Job) -> None:
        events.require_locks()
        self.job = job
        self.folder = Path(job.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        if not events.locked(self._lock):
            os.close(self._lock)
            raise IngestedElsewhereError(
                f"{self.folder} is being ingested by another process: let it"
            )
        self.state = backlog(self.folder).state
        self.store: Store | None = None

    def close(self) -> None:
        """Let another process do it."""
        self._disconnect()
        os.close(self._lock)

    def run(self) -> int:
        """Ingest what is there, delete the segments that are done and the events that are too old.

        Returns
        -------
        int
            How many events were stored.

        Raises
        ------
        StoreError
            Where store or folder cannot be used now; what is stored is stored, the rest waits.
        """
        try:
            stored = self._run()
        except (StoreError, OSError) as error:
            self._disconnect()
            self.state.since = self.state.since or time.time()
            self.state.error = str(error)
            self._tell()
            raise error if isinstance(error, StoreError) else StoreError(str(error)) from error
        if stored or self.state.error or not self.state.ingested:
            self.state.ingested, self.state.error, self.state.since = time.time(), None, None
            self._tell()
        return stored

    def _run(self) -> int:
        store = self.store or self._connect()
        stored = sum(self._ingest(store, path) for path in events.segments(self.folder))
        now = time.time()
        if self.job.retention_days and now - self.state.pruned > PRUNE_SECONDS:
            store.prune(now - self.job.retention_days * DAY)
            self.state.pruned = now
            self._tell()
        return stored

    def _connect(self) -> "Store":
        from .store import connect

        self.store = connect(self.job.store)
        names = [path.name for path in events.segments(self.folder)]
        self.state.positions = self.store.positions(names)
        return self.store

    def _disconnect(self) -> None:
        """Forget the store: after a failure it alone knows how far it is."""
        if self.store:
            self.store.close()
            self.store = None

    def _ingest(self, store: "Store", path: Path) -> int:
        position, stored = self.state.positions.get(path.name, 0), 0
        with path.open("rb") as segment:
            # The lock before the size: who has it knows that the segment grows no more.
            is_closed = events.locked(segment.fileno())
            size = os.fstat(segment.fileno()).st_size
            if position < size:
                for batch, end in _batches(path, position):
                    _insert(store, self.job, path.name, batch, end)
                    self.state.positions[path.name] = position = end
                    stored += len(batch)
            if is_closed:
                self._remove(store, path, size - position)
        return stored

    def _remove(self, store: "Store", path: Path, rest: int) -> None:
        from sqlalchemy import delete

        from .store import event_segment

        if rest:
            torn = path.with_suffix(TORN)
            path.rename(torn)
            logger.warning("%s ends in %d bytes that are no whole event: kept", torn, rest)
        else:
            path.unlink()
        with store.writing() as connection:
            connection.execute(delete(event_segment).where(event_segment.c.name == path.name))
        self.state.positions.pop(path.name, None)
        self._tell()

    def _tell(self) -> None:
        partial = self.folder / f".{STATE}.partial"
        # It is for others to know; a full disk is no reason to stop.
        with suppress(OSError):
            partial.write_bytes(msgspec.json.encode(self.state))
            partial.replace(self.folder / STATE)


def ingest(job: Job) -> int:
    """Ingest what is there now; return how many events were stored, or raise StoreError."""
    with closing(Ingestion(job)) as ingestion:
        return ingestion.run()


def catch_up(job: Job, seconds: float = 30) -> bool:
    """Have what is in the log stored, by whoever ingests it; return whether all of it is.

    Raises
    ------
    StoreError
        Where the store cannot be used.
    """
    until = time.monotonic() + seconds
    while True:
        with suppress(IngestedElsewhereError):
            ingest(job)
        if not backlog(job.folder).bytes:
            return True
        if time.monotonic() > until:
            return False
        time.sleep(POLL_SECONDS)


def watch(job: Job, parent: int | None = None, idle_seconds: float | None = None) -> None:
    """Ingest what comes, until SIGTERM or SIGINT; what is there then is still ingested.

    While the store cannot be used the segments wait, and it is tried again ever more seldom.

    Parameters
    ----------
    job : Job
    parent : int or None
        A pipe's end that can be read, or is closed, when it is time to end.
    idle_seconds : float or None
        End when nothing came for so long.

    Raises
    ------
    StoreError
        Where another process does it already.
    """
    ends, rings = os.pipe()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os.write(rings, b"."))
    bells = [ends] if parent is None else [ends, parent]
    wait, last, is_ending = 0.0, time.monotonic(), False
    with closing(Ingestion(job)) as ingestion:
        while not is_ending and (idle_seconds is None or time.monotonic() - last < idle_seconds):
            is_ending = bool(select.select(bells, [], [], wait)[0])
            before = ingestion.state.error
            try:
                stored = ingestion.run()
            except StoreError as error:
                if str(error) != before:
                    logger.warning("events wait: %s", error)
                wait, last = min(2 * wait or POLL_SECONDS, MOST_SECONDS), time.monotonic()
                continue
            wait, last = POLL_SECONDS, time.monotonic() if stored else last


@contextmanager
def running(settings: "Events") -> Iterator[None]:
    """Have events ingested by a child process, whenever there are some; drain them in the end."""
    if settings.mode == "off":
        yield
        return
    events.prepared(settings.folder)
    ending = Flag()
    thread = Thread(target=_attend, args=(Job.of(settings), ending), name="ingestion", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def waiting(folder: str | Path, positions: dict[str, int], bases: set[str]) -> set[str]:
    """Return the prediction ids of some requests whose events still wait.

    Parameters
    ----------
    folder : path-like
    positions : dict of str to int
        How far each segment was ingested.
    bases : set of str
        Of the requests.
    """
    found: set[str] = set()
    for path in events.segments(folder):
        with suppress(FileNotFoundError):
            for event, _ in events.read(path, positions.get(path.name, 0)):
                if event.base in bases:
                    found.update(f"{event.base}-{i}" for i in range(len(_answers(event))))
    return found


def _attend(job: Job, ending: Flag) -> None:
    wait = POLL_SECONDS
    while not ending.wait(wait):
        if not _is_due(job):
            continue
        code = _run_child(job, ending)
        wait = min(2 * wait, MOST_SECONDS) if code else POLL_SECONDS
        if code and not ending.is_set():
            logger.warning("ingestion ended with code %d, and is started again", code)
    # Where others keep the processor busy, who stands back gets nothing; now there is no need to.
    if _is_due(job) and (code := _run_child(job, ending, DRAIN)):
        logger.warning("ingestion ended with code %d: events wait for the next start", code)


def _run_child(job: Job, ending: Flag, *words: str) -> int:
    # The settings hold a password, and a command line is shown to everybody. The pipe stays open:
    # when it closes, whatever killed this process, the child drains the log and ends. Ctrl-C is for
    # this process alone, so the child has a group of its own; not a session, though: Linux shares
    # time between sessions first, whatever the priority of what is in them.
    command = [sys.executable, "-m", f"{__package__}.ingestion", *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, process_group=0) as child:
        assert child.stdin  # noqa: S101
        with suppress(BrokenPipeError):
            child.stdin.write(msgspec.json.encode(job) + b"\n")
            child.stdin.flush()
        while child.poll() is None and not ending.wait(POLL_SECONDS):
            pass
        with suppress(BrokenPipeError):
            child.stdin.close()
        try:
            return child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            return child.wait()


def _is_due(job: Job) -> bool:
    """Say whether something waits, and nobody is at it."""
    now = backlog(job.folder)
    is_old = job.retention_days and time.time() - now.state.pruned > DAY
    if not now.bytes and not is_old:
        return False
    try:
        descriptor = os.open(Path(job.folder) / LOCK, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        return events.locked(descriptor)
    finally:
        os.close(descriptor)


def _answers(event: Event) -> list[Raw]:
    try:
        return _answer(event.answer).predictions
    except msgspec.DecodeError:
        return []


def _batches(path: Path, start: int) -> Iterator[tuple[list[Event], int]]:
    batch: list[Event] = []
    size, position = 0, start
    for event, position in events.read(path, start):
        batch.append(event)
        size += len(event.body) + len(event.answer)
        if len(batch) >= BATCH_EVENTS or size >= BATCH_BYTES:
            yield batch, position
            batch, size = [], 0
    if batch:
        yield batch, position


def _insert(store: "Store", job: Job, name: str, batch: Sequence[Event], position: int) -> None:
    """Store events and the place where the next begins, together or not at all."""
    from sqlalchemy.exc import DataError

    from .store import event_segment, prediction_event

    values = [row for event in batch for row in rows(event, job)]
    insert = store.insert(prediction_event).on_conflict_do_nothing()
    place = store.insert(event_segment).values(name=name, position=position)
    with store.writing() as connection:
        try:
            with connection.begin_nested():
                connection.execute(insert, values)
        except DataError:
            # PostgreSQL is particular about characters and JSON; nothing must stop the rest.
            connection.execute(insert, [_harmless(row) for row in values])
        connection.execute(
            place.on_conflict_do_update(index_elements=["name"], set_={"position": position})
        )


def _kept(row: Raw, job: Job) -> tuple[str | None, str | None]:
    """Return the features that the settings allow, as JSON, and what stands for the entity.

    The entity itself is not kept, unless the list of features names its column.
    """
    if job.features is None and job.entity is None:
        return _text(row), None
    try:
        columns = _columns(row)
    except msgspec.DecodeError:
        return (_text(row) if job.features is None else None), None
    entity = _entity(columns.get(job.entity or "", NULL), job)
    if job.features is None:
        columns.pop(job.entity or "", None)
    else:
        columns = {name: columns[name] for name in job.features if name in columns}
    return msgspec.json.encode(columns).decode(errors="replace"), entity


def _entity(value: Raw, job: Job) -> str | None:
    text = _text(value)
    if text == "null":
        return None
    entity = msgspec.json.decode(text) if text.startswith('"') else text
    return entities.pseudonym(entity, job.secret)


def _text(raw: Raw) -> str:
    # What nobody looked at, such as a column that the model does not see, may be no UTF-8.
    return bytes(raw).decode(errors="replace")


def _harmless(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as every database takes it."""
    texts = {
        name: value.replace("\0", "") if isinstance(value, str) else value
        for name, value in row.items()
    }
    for name in ("features", "output"):
        if texts[name] is not None:
            try:
                texts[name] = msgspec.json.encode(msgspec.json.decode(texts[name])).decode()
            except msgspec.DecodeError:
                texts[name] = json.dumps(texts[name])
    return texts


def _stand_back() -> None:
    """Take what the service, whose answers somebody waits for, leaves of the processor."""
    os.nice(10)
    if hasattr(os, "SCHED_IDLE"):
        # Some sandboxes know no such call.
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def main() -> None:
    """Be the child, which finds the settings in the first line of the standard input."""
    if DRAIN not in sys.argv:
        _stand_back()
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    try:
        watch(job, sys.stdin.fileno(), IDLE_SECONDS)
    except StoreError as error:
        sys.exit(f"ingestion: {error}")


if __name__ == "__main__":
    main()
