import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from {{ cookiecutter.package }}.contract import Column, Contract, Target
from {{ cookiecutter.package }}.serving import schemas

AWKWARD = [
    "bill length (mm)",
    "class",
    "model_x",
    "_a",
    "größe",
    "rows",
    "column_1",
    "",
    "a.b",
    "__init__",
]


def contract_of(names, target="t"):
    """A contract with one numeric column for each name."""
    columns = tuple(Column(name, "numeric", minimum=0.0, maximum=1.0) for name in names)
    return Contract("binary", Target(target, ("no", "yes")), columns)


@given(st.lists(st.text(), min_size=1, max_size=12, unique=True), st.text())
def test_columns_may_have_any_name(names, target):
    """A request goes in and comes out by the names of the contract, whatever they are."""
    row = {name: i / 2 for i, name in enumerate(names) if name != target}
    if not row:
        return
    contract = contract_of(row, target)
    request = schemas.request_model(contract)
    parsed = schemas.rows_by_name(request.model_validate({"rows": [row]}))
    assert [{**row, target: None}] == parsed


def test_awkward_names_are_shown_and_taken():
    """Names that are no identifiers, keywords, private or used inside are columns like others."""
    contract = contract_of(AWKWARD)
    request = schemas.request_model(contract)
    assert [*AWKWARD, "t"] == list(request.model_json_schema()["$defs"]["Row"]["properties"])
    row = dict.fromkeys(AWKWARD, 0.5)
    assert [{**row, "t": None}] == schemas.rows_by_name(request.model_validate({"rows": [row]}))


def test_no_name_of_a_field_inside_is_taken():
    """Rows are known by their columns' names only."""
    request = schemas.request_model(contract_of(["a"]))
    with pytest.raises(ValidationError):
        request.model_validate({"rows": [{"column_0": 0.5}]})


@pytest.mark.parametrize(
    ("column", "shown"),
    [
        (
            Column("when", "datetime", True, "2024-01-01", "2024-12-31", format="%d.%m.%Y"),
            {
                "type": ["string", "null"],
                "description": "ISO 8601 or %d.%m.%Y; 2024-01-01 to 2024-12-31 in training; "
                "may be missing",
            },
        ),
        (
            Column("flag", "boolean", categories=("false", "true")),
            {"type": "boolean", "description": ""},
        ),
        (
            Column("kind", "categorical", categories=tuple(f"k{i}" for i in range(30))),
            {"type": "string", "examples": [f"k{i}" for i in range(20)]},
        ),
        (Column("size", "numeric", example=1.5), {"type": "number", "examples": [1.5]}),
    ],
    ids=lambda value: value.kind if isinstance(value, Column) else "",
)
def test_a_column_is_described(column, shown):
    """OpenAPI says of a column what the contract says."""
    contract = Contract("clustering", None, (column,))
    row = schemas.request_model(contract).model_json_schema()["$defs"]["Row"]
    assert shown.items() <= row["properties"][column.name].items()


def test_example_without_held_out_rows():
    """Typical values of the contract stand in where there is no example."""
    contract = Contract("clustering", None, (Column("size", "numeric", example=1.5),))
    assert {"rows": [{"size": 1.5}]} == schemas.example_request(contract, [])
    assert None is schemas.example_answer({"name": "n", "version": "v"}, [])
