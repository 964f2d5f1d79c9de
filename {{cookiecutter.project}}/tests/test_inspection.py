import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.pandas import column, data_frames, range_indexes

from {{ cookiecutter.package }} import inspection, violations
from {{ cookiecutter.package }}.encoding import encode_series
from {{ cookiecutter.package }}.errors import ContractError
from {{ cookiecutter.package }}.settings import Data


def data(target=None, **values):
    return Data(source="garden.csv", target=target, **values)


def inferred(values, name="x"):
    """The column that is inferred from some values, beside one that is surely a feature."""
    frame = pd.DataFrame({"other": np.linspace(0, 1, len(values)), name: values})
    return inspection.infer(frame, data()).columns[1]


def test_contract_of_the_garden(garden):
    """Every kind is recognised, and what is left out has its reason."""
    contract = inspection.infer(garden, data("variety", exclude=("weight", "alive")))
    assert {
        "id": ("excluded", "identifier: every value differs"),
        "Höhe (cm)": ("numeric", None),
        "leaves": ("integer", None),
        "bed": ("categorical", None),
        "treated": ("boolean", None),
        "planted": ("datetime", None),
        "note": ("excluded", "free text: 240 different values in 240 rows"),
        "unit": ("excluded", "constant: always cm"),
        "leaves again": ("excluded", "the same values as leaves"),
        "weight": ("excluded", "listed in data.exclude"),
        "alive": ("excluded", "listed in data.exclude"),
    } == {c.name: (c.kind, c.reason) for c in contract.columns}
    assert ("multiclass", ("dwarf", "middle", "tall")) == (contract.task, contract.classes)


def test_ranges_categories_and_nullability(garden):
    """The contract holds what the values were."""
    contract = inspection.infer(garden, data("variety"))
    by_name = {c.name: c for c in contract.columns}
    assert (garden.leaves.min(), garden.leaves.max()) == (
        by_name["leaves"].minimum,
        by_name["leaves"].maximum,
    )
    assert ("Nord", "Süd", "Île") == by_name["bed"].categories
    assert by_name["bed"].nullable
    assert not by_name["leaves"].nullable
    assert garden.planted.min() + "T00:00:00" == by_name["planted"].minimum


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([True, False], ("boolean", ("false", "true"))),
        (["Y", "n"], ("boolean", ("n", "Y"))),
        (["ja", "Nein"], ("boolean", ("Nein", "ja"))),
        (["oui", "non"], ("boolean", ("non", "oui"))),
        (["T", "F"], ("boolean", ("F", "T"))),
        (["0", "1", "x"], ("categorical", ("0", "1", "x"))),
        ([0, 1, 0], ("integer", ())),
        ([True, False, None], ("boolean", ("False", "True"))),
        ([1.0, np.nan], ("excluded", ())),
        ([1.0, 2.0, np.nan], ("integer", ())),
        (["31.12.2024", "01.02.2024"], ("datetime", ())),
        (["12/31/2024", "02/01/2024"], ("datetime", ())),
        (["2024/12/31", "2024/02/01"], ("datetime", ())),
        (["12/31/2024 1:05 PM", "2/1/2024 11:00 AM"], ("datetime", ())),
        (["31-Dec-2024", "01-Feb-2024"], ("datetime", ())),
        (["December 31, 2024", "February 1, 2024"], ("datetime", ())),
        (["2024-12-31T10:00:00Z", "2024-01-01T10:00:00Z"], ("datetime", ())),
        (["1.5", "2.5", "3.5", "x"], ("excluded", ())),
        ([[1], [2]], ("excluded", ())),
        ([None, None], ("excluded", ())),
        ([float("inf"), 1.0], ("excluded", ())),
    ],
)
def test_kinds(values, expected):
    """Kinds of unusual columns."""
    found = inferred(values)
    assert expected == (found.kind, found.categories)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (["1.5", "2.5", "3.5", "x"], "numbers mixed with text in 1 rows, such as 'x'"),
        (["1.5", "2.5"], "numbers written as text"),
        ([None, None], "empty"),
        ([f"k{i}" for i in range(50)], "identifier: 50 different values in 50 rows"),
        ([f"v{i % 1001}" for i in range(3000)], "1001 categories; at most 1000 are used"),
        (pd.to_timedelta([1, 2], "D"), "values of type timedelta64[us]"),
        ([b"a", b"b"], "binary values"),
        ([f"{i}.5 %" for i in range(40)], "numbers with '%', such as '0.5 %'; write plain numbers"),
        ([f"€ {i},50" for i in range(40)], "numbers with '€', such as '€ 0,50'; write plain"),
        ([f"{i}kg" for i in range(40)], "numbers with 'kg', such as '0kg'; write plain numbers"),
        (
            [*(f"2024-01-{i:02}" for i in range(1, 29)), *(f"{i}.02.2024" for i in range(10, 20))],
            "dates written in several ways, such as '2024-01-01' and '10.02.2024'; write them all",
        ),
        (
            [*(f"2024-01-{i:02}" for i in range(1, 29)), "soon", "soon"],
            "dates mixed with text in 2 rows, such as 'soon'; empty these in the source",
        ),
    ],
)
def test_reasons(values, reason):
    """What is left out says why."""
    assert inferred(values).reason.partition("[")[0].startswith(reason.partition("[")[0])


@pytest.mark.parametrize("count", [150, 1000])
def test_many_categories(count):
    """A thousand categories are categories, also where their names look like quantities."""
    values = [f"A{i % count}" for i in range(count * 3)]
    assert ("categorical", count) == (inferred(values).kind, len(inferred(values).categories))


def test_mixed_codes_are_categories():
    """Codes of which some are numbers keep their spelling, in a part of the table too."""
    found = inferred(["7", "42", "B"] * 5)
    assert ("categorical", ("42", "7", "B")) == (found.kind, found.categories)
    numbers = pd.Series([7, 42, 3])
    assert [1, 0, -1] == encode_series(found, numbers).tolist()
    assert [1, 0, -1] == encode_series(found, numbers.astype(float)).tolist()


def test_time_must_be_dates(garden):
    """What orders the rows must be a column of dates, and not the target."""
    with pytest.raises(ContractError, match=r"data.time: no column 'when' in garden.csv; it has"):
        inspection.infer(garden, data("variety", time="when"))
    with pytest.raises(ContractError, match=r"'bed' holds no dates that can be read \(categorical"):
        inspection.infer(garden, data("variety", time="bed"))
    with pytest.raises(ContractError, match="both name 'planted'; name two columns"):
        inspection.infer(garden, data("planted", time="planted"))


def test_an_awkward_target_says_why(garden):
    """Lists and infinite numbers cannot be predicted."""
    with pytest.raises(ContractError, match=r"'y' holds nested values, such as \[1\]; exp"):
        inspection.infer(garden.assign(y=[[1], [2]] * 120), data("y"))
    with pytest.raises(ContractError, match=r"'y' holds infinite numbers \(rows 240\); mend or em"):
        inspection.infer(garden.assign(y=[float(i) for i in range(239)] + [np.inf]), data("y"))


def test_numbers_that_differ_are_no_identifier():
    """A measurement may well differ in every row; only names and counting make an identifier."""
    values = list(np.random.default_rng(0).permutation(np.arange(0, 300, 3)))
    assert "integer" == inferred(values, "price").kind
    assert "excluded" == inferred(values, "customer_id").kind


@pytest.mark.parametrize(
    ("target", "task", "expected"),
    [
        ("variety", "auto", "multiclass"),
        ("alive", "auto", "binary"),
        ("weight", "auto", "regression"),
        ("leaves", "auto", "regression"),
        ("treated", "classification", "binary"),
        (None, "auto", "clustering"),
        ("variety", "clustering", "clustering"),
    ],
)
def test_task_follows_from_the_target(garden, target, task, expected):
    """The task is the target's kind, unless it is set."""
    assert expected == inspection.infer(garden, data(target, task=task)).task


def test_clustering_does_not_see_a_named_target(garden):
    """A clustering that names a target leaves it out of the features."""
    contract = inspection.infer(garden, data("variety", task="clustering"))
    assert "variety" not in [c.name for c in contract.features]


def test_few_whole_numbers_are_classes():
    """0 and 1 are two classes, whatever their type, and stay numbers."""
    frame = pd.DataFrame({"x": np.sin(np.arange(40)), "y": [0.0, 1.0] * 20})
    contract = inspection.infer(frame, data("y"))
    assert ("binary", (0, 1)) == (contract.task, contract.classes)
    assert "regression" == inspection.infer(frame, data("y", task="regression")).task


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": "nothing"}, "data.target: no column 'nothing' in garden.csv; it has id,"),
        ({"exclude": ("nothing",)}, "data.exclude: no column 'nothing'"),
        ({"target": "bed", "exclude": ("bed",)}, "data.exclude lists the target 'bed'"),
        ({"target": "unit"}, "'unit' has fewer than two different values"),
        ({"target": "note"}, "'note' has 240 classes in 240 rows"),
        ({"task": "regression"}, "data.task is regression, but data.target is null"),
        ({"target": "bed", "task": "regression"}, "'bed' should hold numbers"),
        ({"exclude": ("a", "b")}, "no column 'a'"),
    ],
)
def test_impossible_wishes(garden, settings, message):
    """What cannot be done is refused with the value and the choice."""
    with pytest.raises(ContractError, match=message):
        inspection.infer(garden, data(**settings))


def test_text_in_a_numeric_target_names_the_rows(garden):
    """A numeric target with text in it names the rows to mend."""
    frame = garden.astype({"weight": object})
    frame.loc[[3, 70], "weight"] = ["n/a?", "heavy"]
    with pytest.raises(
        ContractError, match=r"2 rows hold text, such as 'n/a\?', 'heavy' \(rows 4, 71\)"
    ):
        inspection.infer(frame, data("weight"))


def test_no_feature_left(garden):
    """A table without any usable column says why for each."""
    with pytest.raises(ContractError, match=r"no column can be used .*unit: constant: always cm"):
        inspection.infer(garden[["unit", "note", "variety"]], data("variety"))


FRAMES = data_frames(
    [
        column("number", elements=st.floats(allow_infinity=False, width=32)),
        column("whole", elements=st.integers(-(2**40), 2**40)),
        column("flag", elements=st.booleans()),
        column("text", elements=st.text(max_size=5), dtype=object),
        column("answer", elements=st.sampled_from(["yes", "no", None]), dtype=object),
        column("day", elements=st.dates().map(str), dtype=object),
    ],
    index=range_indexes(min_size=2, max_size=30),
)


@given(FRAMES)
@settings(max_examples=15)
def test_a_contract_accepts_what_it_was_inferred_from(frame):
    """Whatever the table, its own contract finds no violation."""
    frame = frame.assign(surely=range(0, 3 * len(frame), 3))
    contract = inspection.infer(frame, data())
    assert [] == violations.check(frame, contract)
