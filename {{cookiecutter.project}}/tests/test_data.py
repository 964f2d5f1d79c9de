import gzip
import hashlib
import json
from datetime import date
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from {{ cookiecutter.package }} import data as sources
from {{ cookiecutter.package }} import inspection
from {{ cookiecutter.package }}.errors import ContractError, DataError
from {{ cookiecutter.package }}.settings import Data

TABLE = 'name,größe,city\nAnna,1.5,Zürich\nBen,2.5,"Genève, Ville"\nCleo,3.5,Łódź\n'


def read(path, **values):
    return sources.read(path, Data(source=str(path), **values))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
def test_delimiter_and_encoding_are_detected(tmp_path, delimiter, encoding):
    """Any common delimiter in any common encoding reads as the same table."""
    rows = ["name;größe;city", "Anna;1.5;Zürich", "Ben;2.5;Genève, Ville", "Çelik;3.5;Köln"] * 5
    text = "\n".join(rows[:1] + [row for row in rows if not row.startswith("name")])
    if delimiter == ",":
        text = text.replace("Genève, Ville", "Genève")
    path = tmp_path / "table.csv"
    path.write_text(text.replace(";", delimiter), encoding=encoding)
    frame = read(path)
    assert ["name", "größe", "city"] == list(frame.columns)
    assert ("Anna", 1.5, "Zürich") == tuple(frame.iloc[0])
    assert 15 == len(frame)


GERMAN = "größe;preis;menge;tag\n1,5;1.234,50;1.000;31.12.2024\n-2,25;12,00;12;01.02.2024\n"


def test_decimal_comma_is_detected(tmp_path):
    """Decimal commas and grouped thousands are numbers, dates stay dates, a setting wins."""
    path = tmp_path / "table.csv"
    path.write_text(GERMAN, encoding="cp1252")
    frame = read(path)
    assert [1.5, -2.25] == frame["größe"].tolist()
    assert [1234.5, 12] == frame["preis"].tolist()
    assert [1000, 12] == frame["menge"].tolist()
    assert ["31.12.2024", "01.02.2024"] == frame["tag"].tolist()
    assert ["1,5", "-2,25"] == read(path, decimal=".")["größe"].tolist()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (["1,234.5", "12.5"], [1234.5, 12.5]),
        (["1'234.5", "12.5"], [1234.5, 12.5]),
        (["1\u202f234,5", "12,5"], [1234.5, 12.5]),
        (["1,234", "2,500"], [1.234, 2.5]),
        (["1.234", "2.500"], [1.234, 2.5]),
        (["0,5", "1.234"], [0.5, 1234]),
        (["030 123", "040 123"], ["030 123", "040 123"]),
        (["10.0.0.1", "10.0.0.2"], ["10.0.0.1", "10.0.0.2"]),
    ],
)
def test_thousands(tmp_path, fields, expected):
    """Only what reads as a number in every row becomes one."""
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["x;y", *(f"{field};a" for field in fields)]), encoding="utf-8")
    assert expected == read(path).x.tolist()


@pytest.mark.parametrize("delimiter", [" ", ":", "^"])
def test_rare_delimiters(tmp_path, delimiter):
    """A rare delimiter is taken where no common one cuts, and every row alike."""
    path = tmp_path / "table.csv"
    path.write_text("x y\n1 2\n3 4\n".replace(" ", delimiter), encoding="utf-8")
    assert ["x", "y"] == list(read(path).columns)
    path.write_text("at\n10:30\n11:45\n", encoding="utf-8")
    assert ["10:30", "11:45"] == read(path)["at"].tolist()


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("nombre,ciudad\nMuñoz,Málaga\nPeña,Córdoba\n", "cp1252"),
        ("preis,stadt\n5 €,Köln\n7 €,Çeşme\n".replace("ş", "s"), "cp1252"),
        ("imię,miasto\nŁukasz,Łódź\nWięcław,Gdańsk\n", "cp1250"),
        ("Ълъ,Жцж\nИлья,Фёдор Щукин\nЮлия,Жданов\n", "cp1251"),
        ("größe,x\n1,2\n", "utf-16-le"),
        ("größe,x\n1,2\n", "utf-16-be"),
    ],
)
def test_encodings(tmp_path, text, encoding):
    """Accents survive, whatever the encoding they came in."""
    path = tmp_path / "table.csv"
    path.write_bytes(text.encode(encoding))
    frame = read(path)
    assert text.splitlines()[0].split(",") == list(frame.columns)
    assert text.splitlines()[1].split(",") == [str(value) for value in frame.iloc[0]]


def test_an_accent_far_down(tmp_path):
    """One letter of another encoding behind a megabyte of plain text is still read."""
    path = tmp_path / "table.csv"
    path.write_bytes(b"x,y\n" + b"1,abc\n" * 200_000 + "2,größe\n".encode("latin-1"))
    assert "größe" == read(path).y.iloc[-1]


def test_compressed(tmp_path):
    """A name ending in .gz is compressed text; half of one says so."""
    path = tmp_path / "table.csv.gz"
    path.write_bytes(gzip.compress(GERMAN.encode("cp1252")))
    assert [1.5, -2.25] == read(path)["größe"].tolist()
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match=r"table.csv.gz cannot be read: Compressed file ended"):
        read(path)


def test_names_and_blanks(tmp_path):
    """Names are whole, all there and different; blanks around text are no part of it."""
    path = tmp_path / "table.csv"
    path.write_text('a , a,,"b\nc"\n red,1, ,x \nred ,2,,y\n', encoding="utf-8")
    frame = read(path)
    assert ["a", "a.1", "Unnamed: 2", "b c"] == list(frame.columns)
    assert ["red", "red"] == frame.a.tolist()
    assert frame["Unnamed: 2"].isna().all()
    assert ["x", "x.1", "x.2", "x.1.1"] == sources.column_names(["x", "x", "x", "x.1"])


def test_quotes_and_set_values(tmp_path):
    """Quoted delimiters do not split, and settings win over detection."""
    path = tmp_path / "table.csv"
    path.write_text(TABLE, encoding="utf-8")
    assert "Genève, Ville" == read(path).city[1]
    path.write_bytes(TABLE.replace(",", ":").replace("Łódź", "Lodz").encode("latin-1"))
    assert ["name", "größe", "city"] == list(read(path, delimiter=":", encoding="latin-1").columns)


def test_one_column(tmp_path):
    """A table of one column has no delimiter at all."""
    path = tmp_path / "table.csv"
    path.write_text("x\n1\n2\n", encoding="utf-8")
    assert [1, 2] == read(path).x.tolist()


def test_parquet(tmp_path, garden):
    """Parquet keeps its types; dictionary columns become their values."""
    garden.astype({"bed": "category"}).to_parquet(tmp_path / "garden.parquet")
    frame = read(tmp_path / "garden.parquet")
    pd.testing.assert_frame_equal(garden, frame, check_dtype=False)
    assert not isinstance(frame.bed.dtype, pd.CategoricalDtype)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "not found; data.source must name a CSV or Parquet file"),
        (b"", "is empty"),
        (b"a,b\n", "has a header but no rows"),
        (b"a,b\n1,2\n1,2,3\n", "cannot be read: .* line 3"),
        (b"a,b\n1,2,3\n4,5,6\n", "more fields than the 2 columns of the header; name every"),
    ],
)
def test_no_table(tmp_path, content, message):
    """A source that is no table is named, with what is wrong."""
    if content is not None:
        (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path / "x.csv")


def test_no_parquet_and_wrong_encoding(tmp_path):
    """A broken Parquet file and an encoding that does not fit are named."""
    (tmp_path / "x.parquet").write_bytes(b"PAR0")
    with pytest.raises(DataError, match=r"x.parquet cannot be read"):
        read(tmp_path / "x.parquet")
    (tmp_path / "x.csv").write_bytes("größe\n1\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"set data.encoding"):
        read(tmp_path / "x.csv", encoding="utf-8")
    with pytest.raises(DataError, match=r"unknown encoding: klingon; set data.encoding"):
        read(tmp_path / "x.csv", encoding="klingon")


def test_types_of_parquet(tmp_path):
    """Each meaning has one type, whatever Parquet called it; lists stay for the contract to see."""
    table = pa.table(
        {
            "price": pa.array([Decimal("1.50"), None], pa.decimal128(8, 2)),
            "day": pa.array([date(2024, 1, 2), None], pa.date32()),
            "seen": pa.array([0, 1], pa.timestamp("ms", tz="Europe/Berlin")),
            "big": pa.array([2**62, 1], pa.int64()),
            "kind": pa.array([" a", "b"]).dictionary_encode(),
            "tags": [[1], [2, 3]],
            "where": [{"x": 1}, None],
            "__index_level_0__": [0, 1],
        }
    )
    twice = pa.table([*table.columns, table["price"]], names=[*table.column_names, "price"])
    pq.write_table(twice, tmp_path / "x.parquet")
    frame = read(tmp_path / "x.parquet")
    assert {
        "price": "float64",
        "day": "datetime64[us]",
        "seen": "datetime64[ms, Europe/Berlin]",
        "big": "int64",
        "kind": "str",
        "tags": "object",
        "where": "str",
        "price.1": "float64",
    } == {name: str(dtype) for name, dtype in frame.dtypes.items()}
    assert (1.5, "a", 2**62) == (frame.price[0], frame.kind[0], frame.big[0])


def test_a_folder_of_parquet(tmp_path, garden):
    """Nested files are one table, columns in the order of the first, folders' names are columns."""
    for year in (2022, 2023, 2024):
        part = garden.iloc[(year - 2022) * 80 :].head(80)
        (tmp_path / f"year={year}").mkdir()
        columns = list(garden.columns)[:: 1 if year == 2022 else -1]
        part[columns].to_parquet(tmp_path / f"year={year}" / "part.parquet")
    frame = read(tmp_path)
    assert [2022] * 80 + [2023] * 80 + [2024] * 80 == frame.pop("year").tolist()
    pd.testing.assert_frame_equal(garden, frame, check_dtype=False)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"a": [1]}, r"b.parquet has no column b; expected the columns of .*a.parquet: a, b"),
        ({"a": [1], "b": ["x"], "c": [1]}, r"b.parquet has a further column c; expected"),
        ({"a": ["x"], "b": ["x"]}, r"b.parquet: column 'a' is (large_)?string, but int64 in .*a.p"),
    ],
)
def test_a_folder_that_does_not_fit(tmp_path, second, message):
    """The file whose columns differ is named."""
    pd.DataFrame({"a": [1], "b": ["x"]}).to_parquet(tmp_path / "a.parquet")
    pd.DataFrame(second).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(DataError, match=message):
        read(tmp_path)


def test_a_folder_of_mixed_numbers(tmp_path):
    """Whole and broken numbers, and columns that are empty in one file, fit together."""
    pd.DataFrame({"a": [1], "b": [None]}).to_parquet(tmp_path / "a.parquet")
    pd.DataFrame({"a": [1.5], "b": ["x"]}).to_parquet(tmp_path / "b.parquet")
    frame = read(tmp_path)
    assert ([1, 1.5], "x") == (frame.a.tolist(), frame.b[1])


def test_a_folder_without_tables(tmp_path):
    """A folder without Parquet files, or with a broken one, says so."""
    with pytest.raises(DataError, match=r"holds no Parquet file; expected names ending in .parq"):
        read(tmp_path)
    (tmp_path / "x.parquet").write_bytes(b"PAR0")
    with pytest.raises(DataError, match=r"x.parquet cannot be read"):
        read(tmp_path)


def test_snapshot_has_a_hash(tmp_path, garden):
    """The snapshot's hash is that of its bytes, and stands beside it."""
    path = tmp_path / "deep" / "snapshot.parquet"
    facts = sources.write_snapshot(garden, path, "garden.csv")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == facts["sha256"]
    assert facts == json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert (240, 12) == (facts["rows"], facts["columns"])


def test_a_failed_snapshot_leaves_the_last_one(tmp_path, garden):
    """What cannot be written leaves no half file, and the earlier snapshot stays."""
    path = tmp_path / "snapshot.parquet"
    sources.write_snapshot(garden, path, "garden.csv")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(pa.ArrowException):
        sources.write_snapshot(pd.DataFrame({"x": [1, "a", [2]]}), path, "other.csv")
    assert before == {file.name: file.read_bytes() for file in tmp_path.iterdir()}


def test_the_newest_rows_are_held_out(garden, settings_with):
    """With data.time every test row is newer than every training row; its column stays."""
    settings = settings_with(data={"time": "planted"})
    contract = inspection.infer(garden, settings.data)
    train, test = sources.split(garden, contract, settings.data)
    assert train.planted.max() < test.planted.min()
    assert 240 == len(train) + len(test)
    assert abs(len(test) - 60) <= 2
    assert list(train.index) == list(range(len(train)))


def test_time_that_the_model_does_not_see(garden, settings_with):
    """Excluded, the column still orders the rows, in whatever way it is written."""
    written = pd.to_datetime(garden.planted).dt.strftime("%d.%m.%Y")
    frame = garden.assign(planted=written, order=range(240))
    settings = settings_with(data={"time": "planted", "exclude": ("planted",)})
    contract = inspection.infer(frame, settings.data)
    train, test = sources.split(frame, contract, settings.data)
    assert "planted" not in train.columns
    moments = pd.to_datetime(garden.planted)
    newest = moments.sort_values().iloc[-len(test) :].min()
    assert frame[moments >= newest].leaves.sum() == test.leaves.sum()


def test_one_moment_stays_together(garden, settings_with):
    """Rows of one day are never cut apart, as near to the wanted share as that allows."""
    days = np.repeat(["2024-01-01", "2024-01-02", "2024-01-03"], [100, 100, 40])
    frame = garden.assign(planted=days)
    settings = settings_with(data={"time": "planted"})
    contract = inspection.infer(frame, settings.data)
    train, test = sources.split(frame, contract, settings.data)
    assert ({"2024-01-03"}, 40, 200) == (set(test.planted), len(test), len(train))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"planted": "2024-01-01"}, DataError, "all 240 rows have the same 'planted'"),
        ({"planted": None}, DataError, r"240 rows have no 'planted' \(rows 1, 2, 3"),
    ],
)
def test_times_that_order_nothing(garden, settings_with, change, error, message):
    """Missing and equal times cannot hold the newest rows out, and say so."""
    settings = settings_with(data={"time": "planted"})
    contract = inspection.infer(garden, settings.data)
    with pytest.raises(error, match=message):
        sources.split(garden.assign(**change), contract, settings.data)


def test_a_class_of_the_newest_rows_only(garden, settings_with):
    """A class that no older row has could not be learned, and is named."""
    settings = settings_with(data={"time": "planted"})
    newest = garden.planted >= garden.planted.sort_values().iloc[-5]
    frame = garden.assign(variety=garden.variety.mask(newest, "giant"))
    contract = inspection.infer(frame, settings.data)
    with pytest.raises(ContractError, match=r"class 'giant' of 'variety' is only among the \d+ n"):
        sources.split(frame, contract, settings.data)


def test_split_keeps_shares_and_loses_nothing(garden, settings_with):
    """Every row is either training or test, classes keep their shares, rows repeat exactly."""
    settings = settings_with()
    contract = inspection.infer(garden, settings.data)
    first, again = (sources.split(garden, contract, settings.data) for _ in range(2))
    pd.testing.assert_frame_equal(first[1], again[1])
    train, test = first
    assert (180, 60) == (len(train), len(test))
    whole = garden.variety.value_counts(normalize=True)
    assert (whole - test.variety.value_counts(normalize=True)).abs().max() < 0.02
    columns = [c.name for c in contract.features] + ["variety"]
    both = pd.concat([train, test]).sort_values(columns).reset_index(drop=True)
    expected = garden[columns].sort_values(columns).reset_index(drop=True)
    pd.testing.assert_frame_equal(expected, both)


def test_rows_without_target_are_left_out(garden, settings_with):
    """A row without an answer teaches nothing."""
    settings = settings_with()
    frame = garden.assign(variety=garden.variety.where(garden.index >= 40))
    contract = inspection.infer(frame, settings.data)
    assert 200 == sum(map(len, sources.split(frame, contract, settings.data)))


def test_a_class_of_one_row(garden, settings_with):
    """A class that cannot be both trained and tested is named."""
    settings = settings_with()
    frame = garden.copy()
    frame.loc[3, "variety"] = "giant"
    contract = inspection.infer(frame, settings.data)
    with pytest.raises(ContractError, match=r"class 'giant' of 'variety' has 1 row\(s\)"):
        sources.split(frame, contract, settings.data)


def test_too_few_rows(garden, settings_with):
    """Too few rows for a split say so."""
    settings = settings_with(data={"target": "weight"})
    contract = inspection.infer(garden, settings.data)
    with pytest.raises(DataError, match="1 rows cannot be split"):
        sources.split(garden.head(1), contract, settings.data)
