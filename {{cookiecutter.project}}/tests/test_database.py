import sqlite3

import pandas as pd
import pytest

from {{ cookiecutter.package }} import data as sources
from {{ cookiecutter.package }} import database, inspection, stages
from {{ cookiecutter.package }}.errors import DataError
from {{ cookiecutter.package }}.settings import Data

QUERY = "-- all of it\nSELECT * FROM garden;\n"


@pytest.fixture
def shop(tmp_path, garden, monkeypatch):
    """A SQLite database with the garden, at DATABASE_URL, and a query of it."""
    path = tmp_path / "shop.db"
    connection = sqlite3.connect(path)
    garden.to_sql("garden", connection, index=False)
    connection.close()
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{path}")
    (tmp_path / "garden.sql").write_text(QUERY, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return path


def read(source):
    return sources.read(source, Data(source=source))


@pytest.mark.parametrize("source", ["garden.sql", "SELECT * FROM garden"])
@pytest.mark.usefixtures("shop")
def test_a_query_is_a_table(garden, monkeypatch, source):
    """A query, in a file or in the settings, reads as the table it asks for, in pieces."""
    monkeypatch.setattr(database, "ROWS", 100)
    expected = garden.assign(alive=garden.alive.astype(int))
    pd.testing.assert_frame_equal(expected, read(source), check_dtype=False)


@pytest.mark.usefixtures("shop")
def test_the_road_begins_at_a_query(settings_with):
    """Source and target are all the edits it takes."""
    settings = settings_with(data={"source": "garden.sql", "exclude": ("weight", "alive")})
    assert "240 rows, 12 columns of garden.sql" == stages.snapshot(settings)
    assert "multiclass, target variety, 5 features" in stages.agree(settings)
    first = stages.SNAPSHOT.with_suffix(".json").read_bytes()
    stages.snapshot(settings)
    assert first == stages.SNAPSHOT.with_suffix(".json").read_bytes()


@pytest.mark.usefixtures("shop")
def test_text_of_a_query_is_taken_literally():
    """Colons and percent signs are no parameters."""
    frame = read("SELECT ':a' AS x, 'b%' AS y, bed FROM garden WHERE bed LIKE 'N%'")
    assert (":a", "b%", "Nord") == tuple(frame.iloc[0])


@pytest.mark.usefixtures("shop")
def test_values_of_many_types():
    """Numbers are numbers, also beside empty pieces; several types in one column are text."""
    frame = read(
        "SELECT 1 AS n, NULL AS e, 'a' AS m, 1 AS twice, 2 AS twice, x'00' AS b "
        "UNION ALL SELECT 2.5, NULL, 7, 1, 2, x'01'"
    )
    assert ["n", "e", "m", "twice", "twice.1", "b"] == list(frame.columns)
    assert ([1, 2.5], ["a", "7"]) == (frame.n.tolist(), frame.m.tolist())
    contract = inspection.infer(frame, Data(source="q"))
    reasons = {column.name: column.reason for column in contract.columns}
    assert ("empty", "binary values") == (reasons["e"], reasons["b"])


@pytest.mark.usefixtures("shop")
def test_types_that_differ_between_pieces(monkeypatch):
    """The type of a column does not depend on where a piece ends."""
    monkeypatch.setattr(database, "ROWS", 1)
    frame = read("SELECT NULL AS a, 1 AS b, 1 AS c UNION ALL SELECT 2, 2.5, 'x'")
    assert (2, [1, 2.5], ["1", "x"]) == (frame.a[1], frame.b.tolist(), frame.c.tolist())


@pytest.mark.parametrize(
    ("url", "query", "message"),
    [
        (None, "SELECT 1", "DATABASE_URL is not set, but data.source is a query; set it to sql"),
        ("shop", "SELECT * FROM none", "q.sql: sqlite.* refuses the query: no such table: none; m"),
        ("shop", "SELECT * FROM garden WHERE 0", "q.sql: the query returns no rows; expected at"),
        ("shop", "DELETE FROM garden", "q.sql holds 'DELETE FROM garden'; expected one query"),
        ("shop", "SELECT 1; DELETE FROM garden", "only execute one statement at a time"),
        ("shop", " ", "q.sql is empty; expected one query"),
        ("sqlite:///no.db", "SELECT 1", "no SQLite file no.db; name one that exists"),
        ("nix:geheim", "SELECT 1", "DATABASE_URL is no database URL; expected sqlite:///"),
        ("odd://u:geheim@h/d", "SELECT 1", "no driver for odd .* or add the driver"),
        (
            "postgres://kit:geheim@127.0.0.1:1/shop",
            "SELECT 1",
            r"no connection to postgresql\+psycopg://kit:\*\*\*@127.0.0.1:1/shop: .*; check host",
        ),
    ],
)
def test_no_answer(shop, monkeypatch, settings_with, url, query, message):
    """Each way not to get a table is told in one line, without the password; nothing is left."""
    if url is None:
        monkeypatch.delenv("DATABASE_URL")
    elif url != "shop":
        monkeypatch.setenv("DATABASE_URL", url)
    (shop.parent / "q.sql").write_text(query, encoding="utf-8")
    before = set(shop.parent.iterdir())
    with pytest.raises(DataError, match=message) as caught:
        stages.snapshot(settings_with(data={"source": "q.sql"}))
    assert "\n" not in str(caught.value)
    assert "geheim" not in str(caught.value)
    assert before == set(shop.parent.iterdir())
    with sqlite3.connect(shop) as connection:
        assert (240,) == connection.execute("SELECT count(*) FROM garden").fetchone()
    connection.close()


def test_nothing_is_committed(shop):
    """A query that writes under the name of WITH changes nothing."""
    with pytest.raises(DataError):
        read("WITH x AS (SELECT 1) DELETE FROM garden")
    with sqlite3.connect(shop) as connection:
        assert (240,) == connection.execute("SELECT count(*) FROM garden").fetchone()
    connection.close()


@pytest.mark.usefixtures("shop")
def test_a_missing_query_file():
    """A query's file that is not there is missed like any other source."""
    with pytest.raises(DataError, match=r"none.sql not found; data.source must name"):
        read("none.sql")
