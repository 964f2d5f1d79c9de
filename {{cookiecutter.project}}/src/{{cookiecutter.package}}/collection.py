"""Collection: the newest predictions whose truth is known, from the store, as rows to learn from.

Where nothing is to be predicted the newest ones count, without a truth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from .contract import Contract
from .encoding import encode_rows, label, shortened
from .errors import ContractError, SettingsError
from .monitoring.windows import ANSWERED
from .settings import Events
from .store import ground_truth, latest, opened, prediction_event

_event, _truth = prediction_event.c, ground_truth.c


@dataclass(frozen=True)
class Collected:
    """Rows that clients sent, oldest first.

    Attributes
    ----------
    rows : list of dict
    labels : list
        Their truths, as the contract spells them; empty for a clustering.
    entities : list of str or None
        None where nothing tells what rows are about.
    moments : list of float
        When they were answered.
    left_out : int
        How many more there were that the contract does not take, or whose truth is none of it.
    """

    rows: list[dict[str, Any]]
    labels: list[Any]
    entities: list[str | None] | None
    moments: list[float]
    left_out: int

    def __len__(self) -> int:
        return len(self.rows)


def collect(
    contract: Contract, settings: Events, most: int, since: float | None = None
) -> Collected:
    """Read the newest predictions that can be learnt from.

    Parameters
    ----------
    contract : Contract
    settings : Events
    most : int
    since : float or None
        Only those that were answered at this moment or later.

    Raises
    ------
    SettingsError
        Where the store does not keep a column that the model needs.
    StoreError
        Where the store cannot be used.
    """
    _require_features(contract, settings)
    with opened(settings.store) as store, store.reading() as connection:
        found = connection.execute(_statement(contract, most, since)).all()[::-1]
    kept = [(event, truth) for event in found if (truth := _truth_of(contract, event)) is not ...]
    about = [event.entity_key for event, _ in kept]
    return Collected(
        [event.features for event, _ in kept],
        [truth for _, truth in kept] if contract.target else [],
        about if any(each is not None for each in about) else None,
        [event.ts for event, _ in kept],
        len(found) - len(kept),
    )


def _require_features(contract: Contract, settings: Events) -> None:
    if settings.mode == "off":
        raise SettingsError("events.mode is off: no prediction is kept to learn from")
    kept = settings.features
    names = [column.name for column in contract.features]
    if kept is not None and (lacking := [name for name in names if name not in kept]):
        raise SettingsError(
            f"events.features leaves out {shortened(lacking)}, which the model needs: list it "
            "there, or put newer rows into the source and run make pipeline"
        )


def _statement(contract: Contract, most: int, since: float | None) -> sa.Select[Any]:
    columns: Sequence[Any] = (_event.features, _event.entity_key, _event.ts)
    chosen = sa.select(*columns)
    if contract.target:
        same = _truth.prediction_id == _event.prediction_id
        chosen = sa.select(*columns, _truth.label).join(ground_truth, same).where(latest())
    chosen = chosen.where(*ANSWERED)
    if since is not None:
        chosen = chosen.where(_event.ts >= since)
    return chosen.order_by(_event.ts.desc(), _event.prediction_id.desc()).limit(most)


def _truth_of(contract: Contract, event: Any) -> Any:
    """Return the truth of an event, None where none is asked for, ... where it is of no use."""
    try:
        encode_rows(contract, [event.features or {}])
        return label(contract, event.label) if contract.target else None
    except (ContractError, ValueError):
        return ...
