"""The store: predictions, their truths and what monitoring found, in SQLite or PostgreSQL."""

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import JSON, Boolean, Column, Double, Index, Integer, MetaData, Table, Text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from .errors import StoreError

FORMS = "sqlite:///file.db or postgresql://user:password@host/database"
REVISION = "0002"
MIGRATIONS = f"{__package__}:migrations"
PATIENCE_S = 10
SHOWN = 200
FAILED = 400
# Any number that nobody else takes in the same database.
LOCK = 0x6D6C6F7073
DELETED_AT_ONCE = 1000
PARAMETERS = 1000
# Below it every whole number has a float of its own.
LARGE = 2**53

metadata = MetaData()

# Moments are seconds since 1970 (UTC); a prediction's shadow has its id.
prediction_event = Table(
    "prediction_event",
    metadata,
    Column("prediction_id", Text, primary_key=True),
    Column("request_id", Text, nullable=False),
    Column("ts", Double, nullable=False),
    Column("entity_key", Text),
    Column("model_name", Text, nullable=False),
    Column("model_version", Text, nullable=False),
    Column("role", Text, primary_key=True),
    Column("schema_hash", Text, nullable=False),
    Column("features", JSON(none_as_null=True)),
    Column("output", JSON(none_as_null=True)),
    Column("score", Double),
    Column("latency_ms", Double, nullable=False),
    Column("status", Integer, nullable=False),
    Index("prediction_event_ts", "ts"),
    Index("prediction_event_model", "model_name", "model_version", "role", "ts", "prediction_id"),
)

ground_truth = Table(
    "ground_truth",
    metadata,
    Column("prediction_id", Text, primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("label", JSON, nullable=False),
    Column("observed_at", Double),
    Column("received_at", Double, nullable=False),
    Column("source", Text),
    Index("ground_truth_received", "received_at"),
)

monitor_check = Table(
    "monitor_check",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("ts", Double, nullable=False),
    Column("model_name", Text, nullable=False),
    Column("model_version", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("n", Integer, nullable=False),
    Column("score", Double),
    Column("p_adj", Double),
    Column("alarm", Boolean, nullable=False),
    Column("window", Integer),
    Column("change", Text),
    Column("low", Double),
    Index("monitor_check_ts", "ts"),
    Index("monitor_check_window", "window"),
)

# Events of one model that were checked together: which they were, and what came of it.
monitor_window = Table(
    "monitor_window",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("ts", Double, nullable=False),
    Column("model_name", Text, nullable=False),
    Column("model_version", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("first_ts", Double),
    Column("last_ts", Double),
    Column("last_id", Text),
    Column("events", Integer, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("alarm", Boolean, nullable=False),
    Column("confirmed", Boolean, nullable=False),
    Column("detail", JSON(none_as_null=True)),
    Index("monitor_window_ts", "ts"),
)

# How the last look at each model ended, also where there was nothing to check.
monitor_look = Table(
    "monitor_look",
    metadata,
    Column("model_name", Text, primary_key=True),
    Column("model_version", Text, primary_key=True),
    Column("ts", Double, nullable=False),
    Column("status", Text, nullable=False),
    Column("detail", JSON(none_as_null=True), nullable=False),
)

# What was done because of it; a key that is there is done, or being done, and not done twice.
monitor_action = Table(
    "monitor_action",
    metadata,
    Column("key", Text, primary_key=True),
    Column("ts", Double, nullable=False),
    Column("kind", Text, nullable=False),
    Column("detail", JSON(none_as_null=True)),
)

event_segment = Table(
    "event_segment",
    metadata,
    Column("name", Text, primary_key=True),
    Column("position", sa.BigInteger, nullable=False),
)


class Store:
    """One database.

    Parameters
    ----------
    address : str
        An SQLAlchemy URL; the folder of a SQLite file is made where it is missing.

    Raises
    ------
    StoreError
        Where that is no address of SQLite or PostgreSQL.
    """

    def __init__(self, address: str) -> None:
        self.url = _url(address)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite and self.url.database:
            try:
                Path(self.url.database).parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreError(f"{self}: {error.strerror}; set events.store") from error
        # JSON goes in and comes out as the text that it is: most of it was never parsed here.
        self.engine = sa.create_engine(
            self.url,
            json_serializer=_as_is,
            json_deserializer=msgspec.json.decode,
            pool_pre_ping=not self.is_sqlite,
            connect_args={"timeout" if self.is_sqlite else "connect_timeout": PATIENCE_S},
        )
        if self.is_sqlite:
            sa.event.listen(self.engine, "connect", _set_up_sqlite)
            sa.event.listen(self.engine, "begin", _begin_sqlite)

    def __str__(self) -> str:
        return self.url.render_as_string(hide_password=True)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Open a transaction that only reads, of one moment in SQLite; raise StoreError."""
        with self._explained(), self.engine.connect() as connection:
            yield connection.execution_options(reads=True)

    @contextmanager
    def writing(self, alone: bool = False) -> Iterator[sa.Connection]:
        """Open a transaction, committed in the end.

        Parameters
        ----------
        alone : bool
            Whether others that ask for the same have to wait; in SQLite every writer has to.

        Raises
        ------
        StoreError
            Where the database cannot be reached, or refuses something; nothing is changed then.
        """
        with self._explained(), self.engine.begin() as connection:
            if alone and not self.is_sqlite:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
            yield connection

    def insert(self, table: Table) -> Any:
        """Return an INSERT of this database's own kind, which knows ``on_conflict_do_…``."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    def migrate(self) -> None:
        """Bring the tables up to date; processes that do so at once wait for each other."""
        with self.writing(alone=True) as connection:
            if _revision(connection) == REVISION:
                return
            from alembic import command
            from alembic.config import Config
            from alembic.util import CommandError

            config = Config(attributes={"connection": connection})
            config.set_main_option("script_location", MIGRATIONS)
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                raise StoreError(
                    f"events.store: {self} has other tables than this version knows ({error}); "
                    "use the version that made them, or a later one"
                ) from error

    def prune(self, before: float) -> int:
        """Delete predictions made before a moment, with their truths; return how many.

        What monitoring found before that moment goes, too.
        """
        event = prediction_event.c
        old = sa.select(event.prediction_id).where(event.ts < before).order_by(event.ts)
        deleted = self._delete(old)
        with self.writing() as connection:
            for table in (monitor_check, monitor_window, monitor_look, monitor_action):
                connection.execute(sa.delete(table).where(table.c.ts < before))
        return deleted

    def erase(self, entity_key: str) -> int:
        """Delete predictions about an entity, with their truths; return how many."""
        event = prediction_event.c
        return self._delete(sa.select(event.prediction_id).where(event.entity_key == entity_key))

    def _delete(self, chosen: sa.Select[Any]) -> int:
        """Delete some predictions in short transactions, between which others take their turn."""
        deleted = 0
        while True:
            with self.writing() as connection:
                ids = connection.scalars(chosen.limit(DELETED_AT_ONCE)).all()
                for table in (ground_truth, prediction_event):
                    found = table.c.prediction_id.in_(ids)
                    gone = connection.execute(sa.delete(table).where(found))
                deleted += gone.rowcount
            if len(ids) < DELETED_AT_ONCE:
                return deleted

    def known(self, ids: Sequence[str]) -> set[str]:
        """Return those of some ids that an answered prediction has."""
        event = prediction_event.c
        found: set[str] = set()
        with self.reading() as connection:
            for some in pieces(ids):
                chosen = event.prediction_id.in_(some) & (event.status < FAILED)
                found.update(connection.scalars(sa.select(event.prediction_id).where(chosen)))
        return found

    def record(self, truths: Sequence[dict[str, Any]]) -> list[tuple[int, bool]]:
        """Add truths; nothing that was said before is changed, or said twice.

        Parameters
        ----------
        truths : sequence of dict
            With ``prediction_id``, ``label`` (JSON), ``observed_at`` and ``source``. To go back to
            an earlier label, another of the latter two has to be said.

        Returns
        -------
        list of (int, bool)
            For each the revision, and whether it is new.
        """
        truth, ids = ground_truth.c, sorted({each["prediction_id"] for each in truths})
        said: dict[str, list[tuple[Any, ...]]] = {}
        recorded, fresh = [], []
        columns = (truth.prediction_id, truth.label, truth.observed_at, truth.source)
        with self.writing(alone=True) as connection:
            # Taken when nobody else records: what is committed later has come later.
            now = time.time()
            for some in pieces(ids):
                chosen = sa.select(*columns).where(truth.prediction_id.in_(some))
                for name, label, *rest in connection.execute(chosen.order_by(truth.revision)):
                    said.setdefault(name, []).append((_said(label), *rest))
            for each in truths:
                known = said.setdefault(each["prediction_id"], [])
                label = _said(msgspec.json.decode(each["label"]))
                content = (label, each["observed_at"], each["source"])
                if content in known:
                    recorded.append((known.index(content) + 1, False))
                    continue
                known.append(content)
                recorded.append((len(known), True))
                fresh.append({**each, "revision": len(known), "received_at": now})
            if fresh:
                connection.execute(sa.insert(ground_truth), fresh)
        return recorded

    def positions(self, names: Sequence[str]) -> dict[str, int]:
        """Return how far segments were read."""
        segment = event_segment.c
        found: dict[str, int] = {}
        with self.reading() as connection:
            for some in pieces(names):
                chosen = sa.select(segment.name, segment.position).where(segment.name.in_(some))
                found.update((name, position) for name, position in connection.execute(chosen))
        return found

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise StoreError(f"events.store: {self}: {self._reason(error)}") from error

    def _reason(self, error: DBAPIError) -> str:
        """Return the database's own words in one line, without the password."""
        own = error.orig
        text = getattr(getattr(own, "diag", None), "message_primary", None) or str(own)
        if self.url.password:
            text = text.replace(str(self.url.password), "***")
        text = " ".join(text.split())
        return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def connect(address: str) -> Store:
    """Open a store and bring its tables up to date; raise StoreError where that cannot be done."""
    store = Store(address)
    try:
        store.migrate()
    except StoreError:
        store.close()
        raise
    return store


@contextmanager
def opened(address: str) -> Iterator[Store]:
    """Open a store as `connect` does, and close it in the end."""
    with closing(connect(address)) as store:
        yield store


def latest() -> sa.ColumnElement[bool]:
    """Return the condition that of a prediction's truths one is the latest."""
    truth, later = ground_truth.c, ground_truth.alias("later").c
    return ~sa.exists().where(
        later.prediction_id == truth.prediction_id, later.revision > truth.revision
    )


def pieces(values: Sequence[str]) -> Iterator[Sequence[str]]:
    """Cut what is looked up into as much as one statement takes."""
    for start in range(0, len(values), PARAMETERS):
        yield values[start : start + PARAMETERS]


def _url(address: str) -> sa.URL:
    try:
        url = sa.make_url(re.sub(r"^postgres://", "postgresql://", address.strip()))
    except (ArgumentError, ValueError) as error:
        # The text is not shown: it may hold a password.
        raise StoreError(f"events.store is no database URL; expected {FORMS}") from error
    backend = url.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise StoreError(f"events.store: {backend!r} is not supported; expected {FORMS}")
    if backend == "sqlite" and url.database in (None, "", ":memory:"):
        raise StoreError(f"events.store: a database in memory forgets; expected {FORMS}")
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    try:
        url.get_dialect().import_dbapi()
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise StoreError(f"events.store: no driver ({error}); expected {FORMS}") from error
    return url


def _said(label: Any) -> str:
    """Return a label as JSON; a number has one spelling, as SQLite makes 7 of 7.0."""
    if isinstance(label, float) and label.is_integer() and abs(label) < LARGE:
        label = int(label)
    return msgspec.json.encode(label).decode()


def _as_is(text: str) -> str:
    return text


def _set_up_sqlite(connection: Any, _: Any) -> None:
    # sqlite3 would begin transactions where it likes; `_begin_sqlite` does.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode = WAL")
    # A segment is deleted once it is stored: also a power cut must not undo that.
    connection.execute("PRAGMA synchronous = FULL")


def _begin_sqlite(connection: sa.Connection) -> None:
    # A transaction that turns from reading to writing would not wait for its turn, but fail.
    reads = connection.get_execution_options().get("reads")
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
