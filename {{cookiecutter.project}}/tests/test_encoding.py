import math
from datetime import date, datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from {{ cookiecutter.package }} import encoding
from {{ cookiecutter.package }}.contract import Column, Contract
from {{ cookiecutter.package }}.errors import ContractError

NUMBER = Column("height", "numeric", True, 0.0, 2.0)
WHOLE = Column("leaves", "integer", False, 0, 10)
FLAG = Column("treated", "boolean", True, categories=("no", "yes"))
BED = Column("bed", "categorical", True, categories=("Nord", "Süd"))
WHEN = Column("planted", "datetime", True, format="%d.%m.%Y")
CONTRACT = Contract("clustering", None, (NUMBER, WHOLE, FLAG, BED, WHEN))


@pytest.mark.parametrize(
    ("column", "value", "code"),
    [
        (NUMBER, 1.5, 1.5),
        (NUMBER, 2, 2.0),
        (NUMBER, np.float32(0.5), 0.5),
        (WHOLE, 3.0, 3.0),
        (WHOLE, np.int64(4), 4.0),
        (FLAG, True, 1.0),
        (FLAG, "No", 0.0),
        (FLAG, "true", 1.0),
        (BED, "Süd", 1.0),
        (BED, "Mars", encoding.UNSEEN),
        (WHEN, "1970-01-02", 86400.0),
        (WHEN, "02.01.1970", 86400.0),
        (WHEN, "1970-01-02T01:00:00+01:00", 86400.0),
        (WHEN, date(1970, 1, 2), 86400.0),
        (WHEN, datetime(1970, 1, 2, 0, 0, 1), 86401.0),
    ],
)
def test_values_become_numbers(column, value, code):
    """Each kind has one number for a value, however it is written."""
    assert code == encoding.encode_value(column, value)


@pytest.mark.parametrize("value", [None, math.nan, np.nan])
@pytest.mark.parametrize("column", [NUMBER, FLAG, BED, WHEN])
def test_missing_values(column, value):
    """What is missing becomes NaN where the contract allows it."""
    assert math.isnan(encoding.encode_value(column, value))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (NUMBER, "1.5", "expected a number, not '1.5'"),
        (NUMBER, True, "expected a number, not True"),
        (NUMBER, math.inf, "expected a number, not inf"),
        (WHOLE, 3.5, "expected a whole number, not 3.5"),
        (WHOLE, 10**400, f"expected a whole number, not {10**400}"),
        (WHOLE, None, "missing, expected a whole number"),
        (FLAG, "perhaps", "expected true, false, 'yes' or 'no', not 'perhaps'"),
        (BED, 3, "expected text, not 3"),
        (WHEN, "soon", "expected an ISO 8601 date or time or '%d.%m.%Y', not 'soon'"),
        (WHEN, 5, "expected an ISO 8601 date or time or '%d.%m.%Y', not 5"),
    ],
)
def test_wrong_values_are_explained(column, value, message):
    """The message names the value and what was expected."""
    with pytest.raises(ValueError, match=r".") as caught:
        encoding.encode_value(column, value)
    assert message == str(caught.value)


def test_row_and_column_of_a_wrong_value():
    """A wrong value in a batch is found by its row and column."""
    row = {"height": 1, "leaves": 2}
    with pytest.raises(ContractError, match=r"^row 1: leaves: expected a whole number, not 'x'$"):
        encoding.encode_rows(CONTRACT, [row, {**row, "leaves": "x"}])


def test_warnings():
    """Unseen categories and far values are answered with a warning; ordinary rows without."""
    near = {"height": 2.9, "leaves": -5, "bed": "Nord"}
    far = {"height": 3.1, "leaves": 99, "bed": "Mars"}
    assert [
        (),
        (
            "height: 3.1 lies far outside the training range 0 to 2",
            "leaves: 99 lies far outside the training range 0 to 10",
            "bed: 'Mars' was not seen in training (Nord, Süd)",
        ),
    ] == encoding.encode_rows(CONTRACT, [near, far])[1]


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "height": st.none() | st.floats(allow_nan=False, allow_infinity=False, width=32),
            "leaves": st.integers(-(2**31), 2**31),
            "treated": st.none() | st.sampled_from(["yes", "no", "Yes", "NO"]),
            "bed": st.none() | st.sampled_from(["Nord", "Süd", "Mars", "nord", "1"]),
            "planted": st.none()
            | st.datetimes(datetime(1800, 1, 1), datetime(2200, 1, 1)).map(datetime.isoformat)
            | st.dates(date(1800, 1, 1), date(2200, 1, 1)).map(lambda day: f"{day:%d.%m.%Y}"),
        }
    ),
    min_size=1,
    max_size=8,
)


@given(ROWS)
def test_rows_and_frames_agree(rows):
    """Serving (rows) and training (frames) see exactly the same numbers."""
    frame = pd.DataFrame(rows)
    by_row, _ = encoding.encode_rows(CONTRACT, rows)
    np.testing.assert_array_equal(encoding.encode_frame(CONTRACT, frame), by_row)


def test_unreadable_values_of_a_frame_are_nan():
    """A frame is encoded whole; inspection tells unreadable values from missing ones."""
    frame = pd.DataFrame(
        {
            "height": ["x", np.inf],
            "leaves": [1.5, 2],
            "treated": ["perhaps", "yes"],
            "bed": ["Nord", "Mars"],
            "planted": ["soon", "01.01.1970"],
        }
    )
    np.testing.assert_array_equal(
        [[np.nan, np.nan, np.nan, 0, np.nan], [np.nan, 2, 1, encoding.UNSEEN, 0]],
        encoding.encode_frame(CONTRACT, frame),
    )
