"""The quick decoder against the thorough one, and the fast path against the plain pipeline."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from {{ cookiecutter.package }}.contract import Column, Contract, Target
from {{ cookiecutter.package }}.encoding import encode_frame
from {{ cookiecutter.package }}.inference import output
from {{ cookiecutter.package }}.serving.errors import RequestError
from {{ cookiecutter.package }}.serving.rows import Decoder
from {{ cookiecutter.package }}.serving.schemas import request_model

ROW = {"Höhe (cm)": 99.5, "leaves": 20, "bed": "Nord", "treated": "yes", "planted": "2024-05-01"}
NUMBERS = (
    st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(10**25), 10**25)
    | st.integers(-100, 100).map(float)
    | st.sampled_from([-0.0, 0.0, 5e-324, 1.7976931348623157e308, 2**53 + 1, 1e16, 1e22, 10**400])
)
DATES = st.datetimes(timezones=st.none() | st.timezones()).map(lambda moment: moment.isoformat())
TEXTS = st.text() | st.sampled_from(["Nord", "Süd", "Île", "I\u0302le", "nord", "", "None", "NaN"])
VALUES = {
    "Höhe (cm)": st.none() | NUMBERS,
    "leaves": NUMBERS,
    "bed": st.none() | TEXTS,
    "treated": st.booleans() | st.sampled_from(["yes", "no", "YES", "True", "false", "maybe"]),
    "planted": DATES | st.sampled_from(["2024-05-01", "20240501", "2024-W18-3", "01.05.2024"]),
}
ANY = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
IGNORED = {"id": ANY, "note": ANY, "variety": ANY}
USUAL = st.fixed_dictionaries(VALUES, optional=IGNORED)
STRANGE = st.fixed_dictionaries(
    {}, optional={**{name: ANY | values for name, values in VALUES.items()}, **IGNORED, "else": ANY}
)
# What few JSON writers would write, put where a value stands.
numerals = ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "01", "1.", "+1", "0x1", "1_0", "-"]
numerals += ["1e", "1.0", "1e0", "10e-1", "1E+2", "0.1e1", "-0", "-0.0", "1e-400", "\t1", " 1 "]
numerals += ["1" + "0" * 5000, "1" * 4301, "0" * 30 + "1", "9007199254740993", "0.1" + "0" * 400]
quoted = ['"\\ud800"', '"\\udc00\\ud800"', '"\\ud83d\\ude00"', '"\\u0000"', '"\\x"', '"\t"', "'a'"]
quoted += ['"a" "b"', '"\\u00d6"', "tru", "nul", "\\", '"', "", "1, 2"]
nested = [f"{'[' * n}{']' * n}" for n in (1, 100, 190, 300, 2000)]
nested += ['{"a":' * n + "1" + "}" * n for n in (1, 190, 300, 2000)]
ENDINGS = ["", " ", "\n", "x", ",", "{}", "\x00", "\ufeff"]


@pytest.fixture(scope="module", name="decoder")
def decoder_fixture(road):
    contract = road.predictor.contract
    return Decoder(contract, request_model(contract))


def bits(rows):
    """Rows to the last bit; what is missing is alike however it is said."""
    if rows is None:
        return None
    matrix = np.array(rows, dtype=np.float64)
    matrix[np.isnan(matrix)] = math.nan
    return matrix.shape, matrix.tobytes()


def agreed(decoder, body):
    """Let both read a body; give back what the thorough one said."""
    quick, thorough, error = decoder.quick(body), None, None
    try:
        thorough = decoder.thorough(body)
    except RequestError as refused:
        error = refused
    assert error is None or (error.status in (400, 422) and error.problem.message)
    assert quick is None or bits(thorough) == bits(quick)
    return thorough


@given(st.lists(USUAL, max_size=3))
@settings(max_examples=150)
def test_the_quick_decoder_reads_what_the_thorough_one_does(decoder, rows):
    """Rows of the usual form, with everything that a value can be."""
    agreed(decoder, json.dumps({"rows": rows}).encode())
    agreed(decoder, json.dumps({"rows": rows}, ensure_ascii=False).encode("utf-8", "surrogatepass"))


@given(st.lists(USUAL | STRANGE | ANY, max_size=3) | ANY)
@settings(max_examples=100)
def test_what_is_refused_is_refused_by_both(decoder, rows):
    """Rows of any form; the quick decoder never takes what the thorough one does not."""
    agreed(decoder, json.dumps({"rows": rows}).encode())


@pytest.mark.parametrize("name", [*VALUES, "id", "else", "rows"])
def test_literals_and_depths(decoder, name):
    """Numbers, texts and depths that JSON may not have, beside or instead of a usual value."""
    row = json.dumps(ROW)[1:-1]
    for literal in [*numerals, *quoted, *nested]:
        value = f'"{name}": {literal}'
        for pairs in (f"{value}, {row}", f"{row}, {value}"):
            agreed(decoder, ('{"rows": [{' + pairs + "}]}").encode())
            agreed(decoder, ("{" + value + ', "rows": [{' + row + "}]}").encode())


@pytest.mark.parametrize("ending", ENDINGS, ids=repr)
def test_more_around_the_body(decoder, ending):
    """Only blanks may stand before and behind it."""
    body = json.dumps({"rows": [ROW]})
    for around in (body + ending, ending + body):
        given = agreed(decoder, around.encode())
        assert (given is not None) == (ending.strip(" \n") == "")


def test_text_that_is_no_unicode(decoder):
    """Whether its column is looked at or not, and whether it is escaped or not."""
    body = json.dumps({"rows": [{**ROW, "bed": "?", "id": "?"}]}).encode()
    first, second, third = body.split(b"?")
    for wrong in (b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\\ud800", b"\\udfff"):
        assert agreed(decoder, first + wrong + second + b"a" + third) is None
        assert agreed(decoder, first + b"a" + second + wrong + third) is None


@given(st.binary(max_size=300))
def test_any_bytes(decoder, body):
    """Whatever comes: rows, or an error with a status."""
    agreed(decoder, body)


@given(st.data())
@settings(max_examples=100)
def test_damaged_bytes(decoder, data):
    """A body with some of its bytes replaced, dropped or doubled."""
    body = bytearray(json.dumps({"rows": [ROW, ROW]}, ensure_ascii=False).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(body)))
        end = start + data.draw(st.integers(0, 3))
        body[start:end] = data.draw(st.binary(max_size=3) | st.just(bytes(body[start:end]) * 2))
    agreed(decoder, bytes(body))


def test_what_the_quick_decoder_is_for(decoder):
    """Rows as most clients send them do not take the long way."""
    body = json.dumps({"rows": [ROW, {**ROW, "bed": None, "treated": True}]}).encode()
    assert bits(decoder.thorough(body)) == bits(decoder.quick(body))


PLAUSIBLE = st.fixed_dictionaries(
    {
        "Höhe (cm)": st.none()
        | st.floats(-1e6, 1e6)
        | st.sampled_from([-0.0, 5e-324, 1e300, -1e300, 1e-300, 100]),
        "leaves": st.integers(-(2**53), 2**53) | st.integers(0, 90) | st.integers(0, 90).map(float),
        "bed": st.none() | TEXTS.filter(bool),
        "treated": st.sampled_from(["yes", "no", "YES", "No"]),
        "planted": st.datetimes(pd.Timestamp("1900-01-01"), pd.Timestamp("2200-01-01")).map(str),
    }
)


@given(rows=st.lists(PLAUSIBLE, min_size=1, max_size=30))
@settings(max_examples=15)
def test_fast_path_and_plain_pipeline_agree(roads, rows):
    """What is decoded from bytes and run as planned is what scikit-learn says of a table."""
    for road in roads.values():
        contract = road.predictor.contract
        decoder = Decoder(contract, request_model(contract))
        body = json.dumps({"rows": rows}).encode()
        matrix = np.array(decoder(body), dtype=np.float64)
        expected = encode_frame(contract, pd.DataFrame(rows))
        np.testing.assert_array_equal(expected, matrix)
        fitted = output(road.pipeline, contract, expected)
        given = road.predictor.output(matrix)
        assert (fitted.probabilities is None) == (given.probabilities is None)
        if fitted.probabilities is not None:
            np.testing.assert_allclose(given.probabilities, fitted.probabilities, atol=1e-9)
        elif fitted.scores is not None:
            np.testing.assert_allclose(given.scores, fitted.scores, rtol=1e-6)
            assert fitted.labels.tolist() == given.labels.tolist()
        else:
            np.testing.assert_allclose(given.labels, fitted.labels, rtol=1e-6)


@given(st.lists(st.text(), min_size=1, max_size=8, unique=True), st.text())
def test_columns_may_have_any_name(names, target):
    """Quotes, backslashes and control characters in a name cost speed, nothing else."""
    columns = tuple(Column(name, "numeric") for name in names if name != target)
    if not columns:
        return
    contract = Contract("binary", Target(target, ("no", "yes")), columns)
    row = {column.name: i / 2 for i, column in enumerate(columns)}
    decoder = Decoder(contract, request_model(contract))
    body = json.dumps({"rows": [row]}).encode()
    assert [list(row.values())] == decoder(body)
    usual = not any(set(name) & {*map(chr, range(32)), '"', "\\"} for name in [*row, target])
    assert usual == (decoder.quick(body) is not None)
