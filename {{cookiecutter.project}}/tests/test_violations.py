import pytest

from {{ cookiecutter.package }} import inspection, violations


@pytest.fixture
def contract(garden, settings_with):
    """The contract of the garden; its other two targets are left out."""
    return inspection.infer(garden, settings_with(data={"exclude": ["weight", "alive"]}).data)


def test_violations_are_found(garden, contract):
    """Column, rule, number of rows, the first rows and what was expected; nothing else."""
    frame = garden.drop(columns="treated").astype({"leaves": object})
    frame.loc[[0, 4], "leaves"] = ["many", 9999]
    frame.loc[range(10), "bed"] = "Mars"
    frame.loc[7, "leaves"] = None
    frame.loc[9, "variety"] = "giant"
    found = {
        (v.column, v.rule): (v.count, v.rows, v.found) for v in violations.check(frame, contract)
    }
    assert {
        ("treated", "column"),
        ("leaves", "type"),
        ("leaves", "range"),
        ("leaves", "missing value"),
        ("bed", "category"),
        ("variety", "target"),
    } == set(found)
    assert (1, (1,), "'many'; expected a whole number") == found["leaves", "type"]
    assert (1, (8,)) == found["leaves", "missing value"][:2]
    assert (1, (5,)) == found["leaves", "range"][:2]
    assert (10, (1, 2, 3, 4, 5)) == found["bed", "category"][:2]
    assert "'giant'; expected one of dwarf, middle, tall" == found["variety", "target"][2]


def test_each_value_of_another_type_is_found(garden, contract):
    """A date, a flag and a category that are nothing of the kind are found by their rows."""
    frame = garden.astype({"planted": object, "treated": object, "bed": object})
    frame.loc[3, ["planted", "treated"]] = ["soon", "perhaps"]
    frame.at[4, "bed"] = ["Nord"]
    found = {(v.column, v.rule): (v.rows, v.found) for v in violations.check(frame, contract)}
    assert {
        ("planted", "type"): ((4,), "'soon'; expected an ISO 8601 date or time"),
        ("treated", "type"): ((4,), "'perhaps'; expected true, false, 'yes' or 'no'"),
        ("bed", "category"): ((5,), "['Nord']; expected one of Nord, Süd, Île"),
    } == found


def test_explanation_is_a_table(garden, contract):
    """The explanation lines columns up and shows that there are more rows."""
    frame = garden.assign(bed="Mars").drop(columns="variety")
    assert [
        "column   rule      rows  first rows        found",
        "bed      category  240   1, 2, 3, 4, 5, …  'Mars'; expected one of Nord, Süd, Île",
        "variety  column    240                     the column is not there",
    ] == violations.explain(violations.check(frame, contract)).splitlines()


def test_batch_files_come_without_target(garden, contract):
    """A batch has no target and is not asked for it."""
    assert [] == violations.check(garden.drop(columns="variety"), contract, with_target=False)


def test_columns_of_the_contract_only(garden, contract):
    """Further columns of a table are not looked at."""
    assert [] == violations.check(garden.assign(surplus="?"), contract)
