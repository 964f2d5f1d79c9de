import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from {{ cookiecutter.package }} import store as stores
from {{ cookiecutter.package }}.errors import StoreError
from {{ cookiecutter.package }}.store import ground_truth, prediction_event

MIGRATE = """
import sys
from {{ cookiecutter.package }}.store import opened
with opened(sys.argv[1]) as store:
    print(store.positions(["none"]))
"""
LATER = """
import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

def upgrade():
    with op.batch_alter_table("prediction_event") as table:
        table.add_column(sa.Column("region", sa.Text))
        table.alter_column("latency_ms", nullable=True)
"""


@pytest.fixture
def store(address):
    with stores.opened(address) as opened:
        yield opened


def row(number, role="champion", **parts):
    """A row of prediction_event."""
    values = {
        "prediction_id": f"{number}-0",
        "request_id": "r",
        "ts": float(number),
        "model_name": "Garden",
        "model_version": "v",
        "role": role,
        "schema_hash": "f",
        "features": json.dumps({"n": number}),
        "latency_ms": 0.5,
        "status": 200,
    }
    return values | parts


def add(store, *rows):
    with store.writing() as connection:
        for each in rows:
            connection.execute(sa.insert(prediction_event), each)


def column(store, wanted):
    """All values of a column, or of an expression, in order."""
    with store.reading() as connection:
        return list(connection.scalars(sa.select(wanted).order_by(wanted)))


def truth(number, label='"tall"', observed_at=None, source=None):
    """A truth as `record` takes it."""
    names = {"prediction_id": f"{number}-0", "label": label}
    return {**names, "observed_at": observed_at, "source": source}


def test_tables_and_migrations_agree(store):
    """The steps, run on an empty database, make exactly the tables that the code uses."""
    with store.writing() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert [] == compare_metadata(context, stores.metadata)
    scripts = ScriptDirectory(str(Path(stores.__file__).with_name("migrations")))
    assert stores.REVISION == scripts.get_current_head()


def test_an_upgrade_keeps_what_is_there(store, tmp_path, monkeypatch):
    """A later step changes the tables, and every row of before is still in them."""
    add(store, row(1), row(2, features=None))
    steps = shutil.copytree(Path(stores.__file__).with_name("migrations"), tmp_path / "steps")
    (steps / "versions" / "0003_region.py").write_text(LATER, encoding="utf-8")
    monkeypatch.setattr(stores, "MIGRATIONS", str(steps))
    monkeypatch.setattr(stores, "REVISION", "0003")
    store.migrate()
    with store.reading() as connection:
        found = connection.exec_driver_sql(
            "SELECT prediction_id, region FROM prediction_event ORDER BY ts"
        ).all()
    assert [("1-0", None), ("2-0", None)] == found
    assert [{"n": 1}] == [each for each in column_of_features(store) if each]
    monkeypatch.undo()
    with pytest.raises(StoreError, match=r"other tables than this version knows .*0003.*; use the"):
        store.migrate()


def column_of_features(store):
    with store.reading() as connection:
        return list(connection.scalars(sa.select(prediction_event.c.features)))


def test_processes_that_migrate_at_once(address):
    """Several processes may start with an empty database at the same moment."""
    command = [sys.executable, "-c", MIGRATE, address]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    started = [subprocess.Popen(command, text=True, **pipes) for _ in range(4)]
    assert [("{}\n", "")] * 4 == [each.communicate() for each in started]


def test_json_can_be_asked_for_its_parts(store):
    """Features are JSON to the database, whichever it is."""
    add(store, row(7), row(9))
    assert [7, 9] == column(store, prediction_event.c.features["n"].as_integer())


def test_a_transaction_that_fails_changes_nothing(store):
    """Half of what was to be written is nothing, and the reason is one line."""
    with pytest.raises(StoreError, match=r"^events.store: .*(UNIQUE|unique)") as caught:
        add(store, row(1), row(2), row(1))
    assert "\n" not in str(caught.value)
    assert [] == column(store, prediction_event.c.prediction_id)


def test_a_reader_does_not_hold_up_a_writer(store):
    """Events are stored while somebody is still reading others."""
    add(store, row(1), row(2))
    with store.reading() as connection:
        found = connection.execute(sa.select(prediction_event.c.ts).order_by("ts"))
        assert 1.0 == found.fetchone().ts
        add(store, row(3))
        assert [(2.0,)] == [tuple(each) for each in found]


def test_truths_are_added_and_never_changed(store):
    """The same again changes nothing; anything else is the next revision."""
    assert [(1, True), (1, True)] == store.record([truth(1), truth(2, "1.5", 10.0, "a")])
    assert [(1, False), (1, False)] == store.record([truth(1), truth(2, "1.5", 10.0, "a")])
    assert [(2, True), (2, False), (3, True)] == store.record(
        [truth(1, '"dwarf"'), truth(1, '"dwarf"'), truth(1, '"dwarf"', 10.0)]
    )
    assert [(2, True)] == store.record([truth(2, "1.5", 10.0, "b")])
    with store.reading() as connection:
        table = ground_truth.c
        chosen = sa.select(table.prediction_id, table.revision, table.label)
        found = connection.execute(chosen.order_by(table.prediction_id, table.revision)).all()
    assert [
        ("1-0", 1, "tall"),
        ("1-0", 2, "dwarf"),
        ("1-0", 3, "dwarf"),
        ("2-0", 1, 1.5),
        ("2-0", 2, 1.5),
    ] == [tuple(each) for each in found]


def test_true_is_not_one(store):
    """They are different truths; a number is the same however it is written."""
    truths = [truth(1, "true"), truth(1, "1"), truth(1, "1.0"), truth(1, "1e300")]
    assert [(1, True), (2, True), (2, False), (3, True)] == store.record(truths)
    assert [1, 2, 2, 3] == [revision for revision, _ in store.record(truths)]
    assert not any(is_new for _, is_new in store.record(truths))


def test_known(store, monkeypatch):
    """A prediction is known by its id, unless it failed; there may be many to look for."""
    monkeypatch.setattr(stores, "PARAMETERS", 2)
    add(store, row(1), row(1, "shadow"), row(2, status=503), row(3))
    assert {"1-0", "3-0"} == store.known(["1-0", "2-0", "3-0", "4-0"])


def test_prune(store, monkeypatch):
    """What is older is deleted with its truths, in pieces; the rest stays."""
    monkeypatch.setattr(stores, "DELETED_AT_ONCE", 2)
    add(store, *(row(number) for number in range(7)), row(0, "shadow"))
    store.record([truth(number) for number in range(7)])
    assert 6 == store.prune(before=5.0)
    assert ["5-0", "6-0"] == column(store, prediction_event.c.prediction_id)
    assert ["5-0", "6-0"] == column(store, ground_truth.c.prediction_id)


def test_erase(store, monkeypatch):
    """What is known of one entity goes with its truths, in pieces; the rest stays."""
    monkeypatch.setattr(stores, "DELETED_AT_ONCE", 2)
    add(store, *({**row(n), "entity_key": "a" if n < 5 else "b"} for n in range(7)))
    store.record([truth(number) for number in range(7)])
    assert 5 == store.erase("a")
    assert ["5-0", "6-0"] == column(store, prediction_event.c.prediction_id)
    assert ["5-0", "6-0"] == column(store, ground_truth.c.prediction_id)
    assert 0 == store.erase("a")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nix:geheim", "events.store is no database URL; expected sqlite:///file.db or"),
        ("odd://u:geheim@h/d", "events.store: 'odd' is not supported; expected sqlite:///"),
        ("sqlite+odd:///x.db", "events.store: no driver .*odd.*; expected sqlite:///file.db or"),
        ("sqlite://", "events.store: a database in memory forgets; expected"),
        (
            "postgres://kit:geheim@127.0.0.1:1/shop",
            r"events.store: postgresql\+psycopg://kit:\*\*\*@127.0.0.1:1/shop: .*refused",
        ),
        ("sqlite:////dev/null/store.db", "sqlite:////dev/null/store.db: .*; set events.store"),
    ],
)
def test_addresses_that_cannot_be_used(url, message):
    """Each is told in one line, with the way out and without the password."""
    with pytest.raises(StoreError, match=message) as caught, stores.opened(url):
        pass
    assert "\n" not in str(caught.value)
    assert "geheim" not in str(caught.value)
