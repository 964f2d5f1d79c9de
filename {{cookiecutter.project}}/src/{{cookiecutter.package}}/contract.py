"""The contract: what columns hold and what is predicted; agreed once, enforced at every border."""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from .artifacts import write_json
from .errors import ContractError

Kind = Literal["numeric", "integer", "boolean", "categorical", "datetime", "excluded"]
Task = Literal["binary", "multiclass", "regression", "clustering"]
Label = str | int | float | bool

RANGE_SLACK = 0.5


@dataclass(frozen=True)
class Column:
    """One column of the source.

    Attributes
    ----------
    name : str
        As the source spells it.
    kind : str
        ``numeric``, ``integer``, ``boolean``, ``categorical``, ``datetime`` or ``excluded``.
    nullable : bool
        Whether values may be missing.
    minimum, maximum : float or str or None
        The range seen in training; ISO 8601 text for datetimes.
    categories : tuple of str
        The values of a categorical column; the false and the true spelling of a boolean one.
    format : str or None
        How a datetime column is written (``strptime``), None for ISO 8601.
    example : object
        A typical value, shown in the API and on the page.
    reason : str or None
        Why the column is excluded.
    """

    name: str
    kind: Kind
    nullable: bool = False
    minimum: float | str | None = None
    maximum: float | str | None = None
    categories: tuple[str, ...] = ()
    format: str | None = None
    example: Any = None
    reason: str | None = None

    @cached_property
    def codes(self) -> dict[str, float]:
        """The code of each category; of each spelling, in lower case, of a boolean column."""
        if self.kind == "boolean":
            false, true = self.categories
            return {"false": 0.0, "true": 1.0, false.lower(): 0.0, true.lower(): 1.0}
        return {category: float(code) for code, category in enumerate(self.categories)}


@dataclass(frozen=True)
class Target:
    """What is predicted: its column and, for a classification, its classes in order."""

    name: str
    classes: tuple[Label, ...] = ()
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True)
class Contract:
    """Columns, target and task of one data set.

    Attributes
    ----------
    task : str
        ``binary``, ``multiclass``, ``regression`` or ``clustering``.
    target : Target or None
        None for clustering.
    columns : tuple of Column
        In the order of the source, without the target; excluded ones too, with their reason.
    agreed : dict
        The data settings that the contract was inferred under.
    """

    task: Task
    target: Target | None
    columns: tuple[Column, ...]
    agreed: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def features(self) -> tuple[Column, ...]:
        """The columns that the model sees, in the order of its input."""
        return tuple(column for column in self.columns if column.kind != "excluded")

    @property
    def excluded(self) -> tuple[Column, ...]:
        """The columns that the model does not see."""
        return tuple(column for column in self.columns if column.kind == "excluded")

    @property
    def classes(self) -> tuple[Label, ...]:
        """The classes of a classification; empty for other tasks."""
        return self.target.classes if self.target else ()

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """The classes as JSON keys and headings: numbers and booleans as JSON spells them."""
        return tuple(map(spelled, self.classes))

    def positions(self, kinds: Collection[Kind]) -> list[int]:
        """Return the input positions of the features of some kinds."""
        return [i for i, column in enumerate(self.features) if column.kind in kinds]


def spelled(label: Label | None) -> str:
    """Return a label as text: numbers and booleans as JSON spells them."""
    return label if isinstance(label, str) else json.dumps(label)


def write(contract: Contract, path: str | Path) -> None:
    """Write a contract as JSON that is pleasant to review: defaults are left out."""
    content = asdict(contract)
    content["columns"] = [_without_defaults(column) for column in content["columns"]]
    if content["target"]:
        content["target"] = _without_defaults(content["target"])
    write_json(content, Path(path))


def read(path: str | Path) -> Contract:
    """Read a contract.

    Raises
    ------
    ContractError
        Where the file is missing or holds no contract.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        target = content["target"]
        return Contract(
            task=content["task"],
            target=Target(**_with_tuples(target)) if target else None,
            columns=tuple(Column(**_with_tuples(column)) for column in content["columns"]),
            agreed=content["agreed"],
        )
    except FileNotFoundError as error:
        raise ContractError(f"{path} not found: run the contract step first") from error
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ContractError(
            f"{path} is no contract ({error}); delete it to have it inferred again"
        ) from error


def allowed_range(column: Column) -> tuple[float, float]:
    """Return the bounds outside which a number is far from anything seen in training.

    The range of the training data is widened by half its width on both sides.
    """
    if not isinstance(column.minimum, int | float) or not isinstance(column.maximum, int | float):
        return float("-inf"), float("inf")
    slack = RANGE_SLACK * (column.maximum - column.minimum)
    return column.minimum - slack, column.maximum + slack


def _without_defaults(item: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in item.items()
        if value is not None and value is not False and value != ()
    }


def _with_tuples(item: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in item.items()}
