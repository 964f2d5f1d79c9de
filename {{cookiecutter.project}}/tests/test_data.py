import hashlib
import json

import pandas as pd
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


@pytest.mark.parametrize("name", ["garden.csv", "garden.parquet"])
def test_pieces_are_the_whole(tmp_path, garden, name):
    """Pieces hold at most so many rows and together the whole table."""
    path = tmp_path / name
    write = {".parquet": garden.to_parquet, ".csv": garden.to_csv}[path.suffix]
    write(path, index=False)
    pieces = list(sources.read_chunks(path, Data(source=str(path)), 100))
    assert [100, 100, 40] == [len(piece) for piece in pieces]
    pd.testing.assert_frame_equal(read(path), pd.concat(pieces, ignore_index=True))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "not found; data.source must name a CSV or Parquet file"),
        (b"", "is empty"),
        (b"a,b\n", "has a header but no rows"),
        (b"a,b\n1,2\n1,2,3\n", "cannot be read: .* line 3"),
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


def test_snapshot_has_a_hash(tmp_path, garden):
    """The snapshot's hash is that of its bytes, and stands beside it."""
    path = tmp_path / "deep" / "snapshot.parquet"
    facts = sources.write_snapshot(garden, path, "garden.csv")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == facts["sha256"]
    assert facts == json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert (240, 12) == (facts["rows"], facts["columns"])


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
