import pytest

from {{ cookiecutter.package }} import contract as contracts
from {{ cookiecutter.package }}.contract import Column, Contract, Target
from {{ cookiecutter.package }}.errors import ContractError

CONTRACT = Contract(
    "binary",
    Target("alive", (False, True)),
    (
        Column("height", "numeric", True, 0.0, 2.5, example=1.1),
        Column("id", "excluded", reason="identifier: every value differs"),
        Column("bed", "categorical", categories=("Nord", "Süd")),
    ),
    {"source": "garden.csv", "target": "alive", "task": "auto", "exclude": []},
)


def test_round_trip(tmp_path):
    """A contract that was written reads back equal."""
    contracts.write(CONTRACT, tmp_path / "contract.json")
    assert CONTRACT == contracts.read(tmp_path / "contract.json")


def test_file_is_pleasant_to_review(tmp_path):
    """Accents stay readable and what does not apply is left out."""
    contracts.write(CONTRACT, tmp_path / "contract.json")
    text = (tmp_path / "contract.json").read_text(encoding="utf-8")
    assert "Süd" in text
    assert ": null" not in text


def test_features_and_positions():
    """Excluded columns are no features; positions count features only."""
    assert ["height", "bed"] == [column.name for column in CONTRACT.features]
    assert ["id"] == [column.name for column in CONTRACT.excluded]
    assert [1] == CONTRACT.positions(["categorical"])
    assert (False, True) == CONTRACT.classes
    assert ("false", "true") == CONTRACT.class_names


def test_allowed_range():
    """Half the width of the range is added on both sides."""
    assert (-1.25, 3.75) == contracts.allowed_range(CONTRACT.columns[0])
    assert (float("-inf"), float("inf")) == contracts.allowed_range(CONTRACT.columns[2])


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"task": "binary", "target": {"nam": 1}}'])
def test_damaged_file(tmp_path, text):
    """A damaged contract is refused with the way out."""
    (tmp_path / "contract.json").write_text(text, encoding="utf-8")
    with pytest.raises(ContractError, match="delete it to have it inferred again"):
        contracts.read(tmp_path / "contract.json")


def test_missing_file(tmp_path):
    """A missing contract says which step makes it."""
    with pytest.raises(ContractError, match="run the contract step first"):
        contracts.read(tmp_path / "contract.json")
