"""A project's own table can be a query of a real PostgreSQL server."""

import json
import subprocess

import pytest
from conftest import PASSWORD, QUOTED, copy_project

from scripts.demo import environment

QUERY = "-- every penguin\nSELECT * FROM penguins ORDER BY row_number;\n"
DRIVER = ("postgres:", "postgresql+psycopg:")
LOAD = """
import os, pandas, sqlalchemy
table = pandas.read_csv("data/raw/penguins.csv").rename_axis("row_number").reset_index()
table.to_sql("penguins", sqlalchemy.create_engine(os.environ["DATABASE_URL"]), index=False)
"""
COUNT = """
import os, sqlalchemy
with sqlalchemy.create_engine(os.environ["DATABASE_URL"]).connect() as connection:
    print(connection.execute(sqlalchemy.text("SELECT count(*) FROM penguins")).scalar())
"""


def run(project, *words, url):
    """Run the default project's Python in another folder, with an address of a database."""
    return subprocess.run(
        words, cwd=project, env=environment(DATABASE_URL=url), capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def project(default_project, postgres, tmp_path_factory):
    """A copy of the default project, its table in the database instead of in a file."""
    copy = copy_project(default_project, tmp_path_factory.mktemp("sql") / "penguins")
    python = default_project / ".venv/bin/python"
    loaded = run(copy, python, "-c", LOAD, url=postgres.replace(*DRIVER))
    assert "" == loaded.stderr
    params = (copy / "params.yaml").read_text(encoding="utf-8")
    edited = params.replace("source: data/raw/penguins.csv", "source: penguins.sql")
    assert params != edited
    (copy / "params.yaml").write_text(edited, encoding="utf-8")
    (copy / "penguins.sql").write_text(QUERY, encoding="utf-8")
    for made in ("contract.json", "data/snapshot.parquet", "data/snapshot.json"):
        (copy / made).unlink(missing_ok=True)
    said = stages(default_project, copy, "snapshot", "contract", url=postgres)
    assert (0, "") == (said.returncode, said.stderr)
    return copy


def stages(default_project, folder, *names, url):
    """Run stages, and return what the last one said."""
    for name in names:
        words = [default_project / ".venv/bin/python", "-m", "penguins", name]
        last = run(folder, *words, url=url)
    return last


def snapshot_files(project):
    """Read the files of the snapshot, whole or partial."""
    return {path.name: path.read_bytes() for path in (project / "data").glob("*snapshot*")}


def test_a_query_makes_the_same_contract_as_the_file(default_project, project):
    """One edit turns the file into the query of a server; types and values come out the same."""
    found = json.loads((project / "contract.json").read_text(encoding="utf-8"))
    known = json.loads((default_project / "contract.json").read_text(encoding="utf-8"))
    assert "row_number" == found["columns"].pop(0)["name"]
    assert known["columns"] == found["columns"]
    assert known["target"] == found["target"]
    facts = json.loads((project / "data/snapshot.json").read_text(encoding="utf-8"))
    assert ("penguins.sql", 344) == (facts["source"], facts["rows"])


@pytest.mark.parametrize(
    ("query", "change", "message"),
    [
        (QUERY, (QUOTED, "wrong"), 'password authentication failed for user "kit"; check host'),
        (QUERY, ("127.0.0.1:", "127.0.0.1:1"), "no connection to postgresql"),
        (QUERY, ("/postgres", "/shop"), 'database "shop" does not exist; check host'),
        ("SELECT * FROM pinguine", None, 'relation "pinguine" does not exist; mend the query'),
        ("SELECT FORM x", None, "refuses the query: "),
        ("SELECT * FROM penguins WHERE false", None, "the query returns no rows; expected at"),
        ("DELETE FROM penguins", None, "holds 'DELETE FROM penguins'; expected one query"),
        ("SELECT 1; DELETE FROM penguins", None, "refuses the query: "),
        ("WITH x AS (DELETE FROM penguins RETURNING 1) SELECT * FROM x", None, "refuses the qu"),
    ],
    ids=["password", "port", "database", "table", "syntax", "empty", "delete", "two", "with"],
)
def test_what_goes_wrong_is_told_in_a_line(
    default_project, project, postgres, query, change, message
):
    """No password is shown, the last snapshot stays, and nothing changes in the database."""
    before = snapshot_files(project)
    try:
        (project / "penguins.sql").write_text(query, encoding="utf-8")
        url = postgres.replace(*change) if change else postgres
        said = stages(default_project, project, "snapshot", url=url)
    finally:
        (project / "penguins.sql").write_text(QUERY, encoding="utf-8")
    assert 4 == said.returncode
    assert message in said.stderr
    assert 1 == said.stderr.count("\n")
    assert PASSWORD not in said.stderr
    assert QUOTED not in said.stderr
    assert before == snapshot_files(project)
    if "DELETE" in query:
        python = default_project / ".venv/bin/python"
        count = run(project, python, "-c", COUNT, url=postgres.replace(*DRIVER))
        assert "344\n" == count.stdout
