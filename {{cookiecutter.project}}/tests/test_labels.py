from datetime import UTC, datetime

import pandas as pd
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from {{ cookiecutter.package }} import checks, cli, labels, tables
from {{ cookiecutter.package }}.contract import Contract, Target
from {{ cookiecutter.package }}.encoding import label_of_text
from {{ cookiecutter.package }}.errors import ContractError, DataError, StoreError
from {{ cookiecutter.package }}.store import (
    Store,
    ground_truth,
    opened,
    prediction_event,
)


class Desk:
    """A store with some predictions, and files with what is true of them."""

    def __init__(self, road, folder, address):
        events = road.settings.events.model_copy(update={"store": address})
        self.settings = road.settings.model_copy(update={"events": events})
        self.folder, self.address = folder, address
        row = {
            "request_id": "r",
            "ts": 1.0,
            "model_name": "Garden",
            "model_version": "v",
            "role": "champion",
            "schema_hash": "f",
            "latency_ms": 0.5,
            "status": 200,
        }
        with opened(address) as store, store.writing() as connection:
            for number in range(4):
                values = {**row, "prediction_id": f"{number}-0"}
                connection.execute(sa.insert(prediction_event), values)

    def write(self, text, name="labels.csv"):
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path

    def read(self, path):
        return labels.read(self.settings, path)

    def truths(self):
        """All that was recorded: id, label, moment, source."""
        table = ground_truth.c
        columns = (table.prediction_id, table.label, table.observed_at, table.source)
        with opened(self.address) as store, store.reading() as connection:
            order = (table.prediction_id, table.revision)
            return [tuple(row) for row in connection.execute(sa.select(*columns).order_by(*order))]


@pytest.fixture(name="desk_of")
def desk_of_fixture(tmp_path, address):
    return lambda road: Desk(road, tmp_path, address)


@pytest.fixture(name="desk")
def desk_fixture(desk_of, road):
    return desk_of(road)


def test_truths_of_a_file(desk):
    """Label, moment and source are recorded; whatever else the file holds does not matter."""
    path = desk.write(
        "label;prediction_id;observed_at;who;source\n"
        "tall;0-0;2026-02-03T04:05:06+01:00;Eve;lab\n dwarf ;1-0;2026-02-03;;\nmiddle;2-0;;;\n"
    )
    assert labels.Imported(new=3) == desk.read(path)
    early, late = datetime(2026, 2, 3, tzinfo=UTC), datetime(2026, 2, 3, 3, 5, 6, tzinfo=UTC)
    assert [
        ("0-0", "tall", late.timestamp(), "lab"),
        ("1-0", "dwarf", early.timestamp(), None),
        ("2-0", "middle", None, None),
    ] == desk.truths()


def test_the_same_file_again(desk):
    """It changes nothing; a label that changed is the next revision."""
    path = desk.write("prediction_id,label\n0-0,tall\n1-0,dwarf\n0-0,tall\n")
    assert labels.Imported(new=2, known=1) == desk.read(path)
    assert labels.Imported(known=3) == desk.read(path)
    assert 2 == len(desk.truths())
    path = desk.write("prediction_id,label\n0-0,dwarf\n1-0,dwarf\n")
    assert labels.Imported(new=1, known=1) == desk.read(path)
    assert ["tall", "dwarf", "dwarf"] == [each[1] for each in desk.truths()]


def test_unknown_predictions(desk):
    """They are passed over and counted, the first are named."""
    rows = "".join(f"x{i}-0,tall\n" for i in range(5))
    path = desk.write(f"prediction_id,label\n{rows}2-0,tall\nx0-0,tall\n")
    found = desk.read(path)
    assert (1, 0, 6) == (found.new, found.known, found.unknown)
    with opened(desk.address) as store, store.reading() as connection:
        (kept,) = checks.actions(connection, checks.IMPORT)
    assert {"rows": 7, "unknown": 6} == kept["detail"]
    expected = "1 new, 0 known already, 6 of unknown predictions (x0-0, x1-0, x2-0, …)"
    assert expected == str(found)
    assert [("2-0", "tall", None, None)] == desk.truths()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1-0,huge,,", "label: expected one of dwarf, middle, tall, not 'huge'"),
        ("1-0,,,", "label: expected one of dwarf, middle, tall, not None"),
        ("1-0,tall,soon,", "observed_at: expected an ISO 8601 date or time, not 'soon'"),
        ("1-0,tall,99,", "observed_at: expected an ISO 8601 date or time, not '99'"),
        (",tall,,", "prediction_id: expected text of at most 200 characters, not None"),
        (f"1-0,tall,,{'s' * 201}", "source: expected text of at most 200 characters, not 'sss"),
    ],
)
def test_a_wrong_row_refuses_the_file(desk, monkeypatch, row, message):
    """Row, column, value and what was expected are named; nothing is recorded, not even before."""
    monkeypatch.setattr(labels, "ROWS", 1)
    path = desk.write(f"prediction_id,label,observed_at,source\n0-0,tall,,\n{row}\n2-0,tall,,\n")
    with pytest.raises(ContractError) as caught:
        desk.read(path)
    assert str(caught.value).startswith(f"{path}: row 2: {message}")
    assert [] == desk.truths()


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("id,label\n0-0,tall\n", ContractError, "no column 'prediction_id'; its columns are id, "),
        ("prediction_id\n0-0\n", ContractError, "no column 'label'"),
        ("prediction_id,label\n0-0,tall\n1-0\n", DataError, "row 2: 1 fields, expected 2: '1-0'"),
        ("", DataError, "is empty"),
    ],
)
def test_no_table_of_labels(desk, text, error, message):
    """A missing column, or a line that is no row, is told."""
    path = desk.write(text)
    with pytest.raises(error, match=message):
        desk.read(path)
    assert [] == desk.truths()


def test_parquet(desk):
    """Types stay what they are."""
    moments = pd.to_datetime(["2026-02-03", None])
    frame = pd.DataFrame({"prediction_id": ["0-0", "1-0"], "label": ["tall", "dwarf"]})
    frame["label"] = frame["label"].astype("category")
    path = desk.folder / "labels.parquet"
    frame.assign(observed_at=moments, source=["lab", None]).to_parquet(path)
    assert labels.Imported(new=2) == desk.read(path)
    moment = datetime(2026, 2, 3, tzinfo=UTC).timestamp()
    assert [("0-0", "tall", moment, "lab"), ("1-0", "dwarf", None, None)] == desk.truths()
    frame.assign(prediction_id=[7, 8]).to_parquet(path)
    with pytest.raises(ContractError, match=r"row 1: prediction_id: expected text .*, not 7"):
        desk.read(path)


@pytest.mark.parametrize(
    ("task", "values", "expected"),
    [
        ("binary", ["true", "FALSE", True, False], [True, False, True, False]),
        ("regression", ["7", "7.50", 1, 2.5], [7.0, 7.5, 1.0, 2.5]),
        ("clustering", ["inlier", "3", 3, "x"], ["inlier", 3, 3, "x"]),
    ],
)
def test_labels_follow_from_the_task(desk_of, roads, task, values, expected):
    """Text of CSV becomes what the contract knows; Parquet has it already."""
    desk = desk_of(roads[task])
    ids = [f"{i}-0" for i in range(4)]
    frame = pd.DataFrame({"prediction_id": ids[:2], "label": values[:2]})
    frame.to_csv(desk.folder / "labels.csv", index=False)
    desk.read(desk.folder / "labels.csv")
    for name, value in zip(ids[2:], values[2:], strict=True):
        frame = pd.DataFrame({"prediction_id": [name], "label": [value]})
        frame.to_parquet(desk.folder / "labels.parquet")
        desk.read(desk.folder / "labels.parquet")
    found = [each[1] for each in desk.truths()]
    assert expected == found
    assert [isinstance(each, bool) for each in expected] == [isinstance(e, bool) for e in found]
    assert labels.Imported(known=1) == desk.read(desk.folder / "labels.parquet")


def test_decimal_commas(desk_of, roads):
    """They are found out, as in the table of training."""
    desk = desk_of(roads["regression"])
    path = desk.write("prediction_id;label\n0-0;1,5\n1-0;2,25\n2-0;1.234,5\n")
    with pytest.raises(ContractError, match=r"row 3: label: expected a number, not '1.234.5'"):
        desk.read(path)
    desk.read(desk.write("prediction_id;label\n0-0;1,5\n1-0;2,25\n"))
    assert [1.5, 2.25] == [each[1] for each in desk.truths()]


@pytest.mark.parametrize(
    ("classes", "text", "expected"),
    [
        ((0, 1), "1", 1),
        ((0, 1), "1.0", 1),
        ((0.5, 1.5), "1.50", 1.5),
        (("0", "1"), "1", "1"),
        (("007", "7"), "007", "007"),
        ((False, True), "True", True),
        (("yes", "no"), "yes", "yes"),
    ],
)
def test_labels_as_text(classes, text, expected):
    """A class is known by any spelling of its kind, an exact one first."""
    found = label_of_text(Contract("binary", Target("kind", classes), ()), text)
    assert (expected, type(expected)) == (found, type(found))


@pytest.mark.parametrize(
    ("classes", "text"),
    [((0, 1), "true"), ((False, True), "1"), (("yes", "no"), "YES"), ((0, 1), "nan"), ((0, 1), "")],
)
def test_text_that_is_no_label(classes, text):
    """One is not true, and nothing is not a number."""
    with pytest.raises(ValueError, match=f"expected one of .*, not {text!r}"):
        label_of_text(Contract("binary", Target("kind", classes), ()), text)
    with pytest.raises(ValueError, match="expected a number, not 'inf'"):
        label_of_text(Contract("regression", Target("size"), ()), "inf")


def test_a_large_file_is_read_in_pieces(desk, monkeypatch):
    """However long it is, some rows at a time are held."""
    monkeypatch.setattr(labels, "ROWS", 2)
    monkeypatch.setattr(tables, "PIECE_ROWS", 3)
    ids = [f"{i}-0" for i in range(7)]
    frame = pd.DataFrame({"prediction_id": ids, "label": ["tall"] * 7})
    frame.to_parquet(desk.folder / "labels.parquet")
    sizes, record = [], Store.record

    def counted(store, truths):
        sizes.append(len(truths))
        return record(store, truths)

    monkeypatch.setattr(Store, "record", counted)
    assert (4, 3) == (desk.read(desk.folder / "labels.parquet").new, 3)
    assert [2, 1, 1, 0, 0] == sizes
    frame.loc[6, "label"] = "huge"
    frame.to_parquet(desk.folder / "labels.parquet")
    with pytest.raises(ContractError, match="row 7: label: expected one of"):
        desk.read(desk.folder / "labels.parquet")


def test_the_store_is_gone(desk, tmp_path):
    """The error names it."""
    (tmp_path / "blocked").touch()
    events = desk.settings.events.model_copy(update={"store": f"sqlite:///{tmp_path}/blocked/s.db"})
    desk.settings = desk.settings.model_copy(update={"events": events})
    with pytest.raises(StoreError, match=r"set events.store"):
        desk.read(desk.write("prediction_id,label\n0-0,tall\n"))


def test_the_command(desk, monkeypatch):
    """It tells in a line what became of the rows."""
    monkeypatch.setattr(cli, "_settings", lambda _: desk.settings)
    path = desk.write("prediction_id,label\n0-0,tall\nx,tall\n")
    said = CliRunner().invoke(cli.app, ["labels", "import", str(path)])
    expected = "labels    1 new, 0 known already, 1 of unknown predictions (x)\n"
    assert (0, expected) == (said.exit_code, said.stdout)
