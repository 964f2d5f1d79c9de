from datetime import date, datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from {{ cookiecutter.package }} import columns, encoding, violations
from {{ cookiecutter.package }}.contract import Column, Contract
from {{ cookiecutter.package }}.errors import ContractError

COLUMNS = (
    Column("height", "numeric", True, 0.0, 2.0),
    Column("width", "numeric", False, 0.0, 2.0),
    Column("leaves", "integer", True, 0, 10),
    Column("treated", "boolean", True, categories=("no", "yes")),
    Column("alive", "boolean", False, categories=("false", "true")),
    Column("bed", "categorical", False, categories=("1", "Nord", "Süd")),
    Column("planted", "datetime", True, format="%d.%m.%Y"),
    Column("seen", "datetime", False),
)
CONTRACT = Contract("clustering", None, COLUMNS)

MOMENTS = st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1))
TEXT = st.sampled_from(["1.5", "-3", "1e3", "x", "inf", "2", "+7", "Nord", "no", "soon"])
NUMBERS = [
    (st.floats(), pa.float64()),
    (st.floats(width=32), pa.float32()),
    (st.integers(-(2**31), 2**31), pa.int64()),
    (st.integers(0, 255), pa.uint8()),
    (st.booleans(), pa.bool_()),
    (TEXT, pa.string()),
]
WORDS = [
    (st.sampled_from(["yes", "NO", "true", "False", "Nord", "Mars", "perhaps"]), pa.string()),
    (st.booleans(), pa.bool_()),
]
TIMES = [
    (MOMENTS, pa.timestamp("us")),
    (MOMENTS.map(lambda moment: moment.replace(microsecond=0)), pa.timestamp("s")),
    (MOMENTS, pa.timestamp("us", "Europe/Paris")),
    (MOMENTS, pa.timestamp("ns")),
    (st.dates(date(1800, 1, 1), date(2200, 1, 1)), pa.date32()),
    (MOMENTS.map(datetime.isoformat), pa.string()),
    (st.dates().map(lambda day: f"{day:%d.%m.%Y}") | st.just("soon"), pa.string()),
]


@st.composite
def arrays(draw, kinds, rows):
    """Values of one of some types, some missing, sometimes as codes and a dictionary."""
    values, kind = draw(st.sampled_from(kinds))
    array = pa.array(draw(st.lists(st.none() | values, min_size=rows, max_size=rows)), kind)
    return array.dictionary_encode() if kind == pa.string() and draw(st.booleans()) else array


@st.composite
def whole_tables(draw):
    """A table of the contract's columns."""
    rows = draw(st.integers(1, 6))
    kinds = {"numeric": NUMBERS, "integer": NUMBERS, "boolean": WORDS, "categorical": WORDS}
    return pa.table(
        {
            column.name: draw(arrays(kinds.get(column.kind, TIMES), rows))
            for column in CONTRACT.features
        }
    )


def as_frame(table):
    """The frame that a snapshot of the table is."""
    kinds = [f.type.value_type if pa.types.is_dictionary(f.type) else f.type for f in table.schema]
    return table.cast(pa.schema(list(zip(table.column_names, kinds, strict=True)))).to_pandas()


@settings(max_examples=60)
@given(whole_tables())
def test_tables_and_frames_agree(table):
    """Batches (tables) and training (frames) see the same numbers and the same violations."""
    frame = as_frame(table)
    encoded = columns.encode_table(CONTRACT, table)
    np.testing.assert_array_equal(encoding.encode_frame(CONTRACT, frame), encoded.matrix)
    counts = {"missing value": encoded.missing, "type": encoded.unreadable}
    by_table = {
        (column.name, rule): int(where[:, j].sum())
        for rule, where in counts.items()
        for j, column in enumerate(CONTRACT.features)
        if where[:, j].any()
    }
    found = violations.check(frame, CONTRACT, with_target=False)
    assert {(v.column, v.rule): v.count for v in found if v.rule in counts} == by_table
    tolerated = sum(v.count for v in found if v.rule not in counts)
    assert tolerated == columns.unfamiliar(CONTRACT, encoded.matrix)


def test_reasons_are_those_of_rows():
    """A rejected row says what a request with the same row would be told."""
    row = {"height": "x", "width": 1.0, "leaves": 2, "treated": "perhaps", "alive": True}
    row |= {"bed": "Nord", "planted": "soon", "seen": "2024-01-01"}
    table = pa.Table.from_pylist([row])
    (said,) = columns.reasons(CONTRACT, table, columns.encode_table(CONTRACT, table))
    assert [
        "height: expected a number, not 'x'",
        "treated: expected true, false, 'yes' or 'no', not 'perhaps'",
        "planted: expected an ISO 8601 date or time or '%d.%m.%Y', not 'soon'",
    ] == said.split("; ")
    with pytest.raises(ContractError, match="row 0: " + said.split("; ", maxsplit=1)[0]):
        encoding.encode_rows(CONTRACT, [row])


def test_nested_values_are_unreadable():
    """A list in a column of text cannot be read, and is shown only in part."""
    array = pa.array([["Nord"] * 40, None])
    codes, missing = columns.encode_array(COLUMNS[5], array)
    assert [True, True] == np.isnan(codes).tolist()
    assert [False, True] == missing.tolist()
    assert 60 == len(columns.shown(["Nord"] * 40))


def test_blanks_do_not_count():
    """Text is the same with blanks around it, and missing where there is nothing else."""
    codes, missing = columns.encode_array(COLUMNS[5], pa.array([" Nord", "Süd ", "  ", None]))
    np.testing.assert_array_equal([1, 2, np.nan, np.nan], codes)
    assert [False, False, True, True] == missing.tolist()
    assert pd.isna(codes[2])
