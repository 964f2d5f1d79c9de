"""What two contracts mean to a client: where the newer one takes less than the older."""

import json

from .contract import Column, Contract


def kind(contract: Contract) -> str:
    """Name the task and its target; two classes or more are the same task."""
    task = "classification" if contract.classes else contract.task
    return f"{task} of {contract.target.name}" if contract.target else task


def classes(old: Contract, new: Contract) -> tuple[list[str], list[str]]:
    """Return the classes, as JSON spells them, that are gone and those that are new."""
    before, after = (
        [json.dumps(label, ensure_ascii=False) for label in contract.classes]
        for contract in (old, new)
    )
    return (
        [name for name in before if name not in after],
        [name for name in after if name not in before],
    )


def narrowings(old: Contract, new: Contract) -> list[str]:
    """Say where a new contract refuses what the old one takes, or reads it otherwise.

    A column may be added if it can be missing, a whole number may become any number, and missing
    values, categories and spellings may be added. A column that the model no longer uses is taken
    and ignored as long as the contract knows it, so it must not vanish from the source; a category
    that is gone would be answered, but by a model that has never seen it.

    Parameters
    ----------
    old, new : Contract

    Returns
    -------
    list of str
        One reason for each column, which it names; empty if all that was sent can be sent on.
    """
    known = {column.name for column in new.columns}
    if new.target:
        known.add(new.target.name)
    found = [f"{c.name!r} is no longer taken" for c in old.columns if c.name not in known]
    before = {column.name: column for column in old.features}
    for column in new.features:
        if column.name in before:
            found += _narrowed(before[column.name], column)
        elif not column.nullable:
            found.append(f"{column.name!r} is new and required")
    return found


def _narrowed(old: Column, new: Column) -> list[str]:
    if new.kind != old.kind and (old.kind, new.kind) != ("integer", "numeric"):
        return [f"{new.name!r} was {old.kind}, is {new.kind}"]
    if old.nullable and not new.nullable:
        return [f"{new.name!r} may no longer be missing"]
    lost = []
    if new.kind == "categorical":
        lost = [value for value in old.categories if value not in new.codes]
    elif new.kind == "boolean":
        lost = [value for value, code in old.codes.items() if new.codes.get(value) != code]
    elif new.kind == "datetime" and old.format not in (None, new.format):
        lost = [str(old.format)]
    return [f"{new.name!r} no longer knows {', '.join(map(repr, lost[:3]))}"] if lost else []
