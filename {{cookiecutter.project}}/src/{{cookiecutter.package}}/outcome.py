"""The outcome of a run: what the stages left, gathered for the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import contract as contracts
from . import tracking
from .artifacts import (
    CONTRACT,
    METRICS,
    PLOTS,
    RUN,
    SNAPSHOT,
    TEST,
    TRAIN,
    TRIALS,
    read_json,
    read_table,
)
from .bundle import CARD, EXAMPLES, REFERENCE
from .contract import Contract
from .encoding import encode_target
from .settings import Settings


@dataclass(frozen=True)
class Outcome:
    """What a run left.

    Attributes
    ----------
    contract : Contract
    card, reference, examples
        Parts of the bundle.
    metrics : dict
        reports/metrics.json.
    targets : dict
        Counts of the classes in ``train`` and ``test``, or ``quantiles`` of a numeric target.
    missing : dict
        Missing share of every column of the snapshot, where known.
    pictures : dict
        PNG files by name.
    trials : sequence of dict
        What a search tried.
    tracked : dict or None
        reports/run.json, and the tracking server under ``tracking_uri``.
    decision : mapping or None
        What the gate would decide, as `release.compare` gives it; None without a champion.
    description : str
    """

    contract: Contract
    card: Mapping[str, Any]
    reference: Mapping[str, Any]
    metrics: Mapping[str, Any]
    examples: Sequence[Mapping[str, Any]] = ()
    targets: Mapping[str, Any] = field(default_factory=dict)
    missing: Mapping[str, float] = field(default_factory=dict)
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    trials: Sequence[Mapping[str, Any]] = ()
    tracked: Mapping[str, Any] | None = None
    decision: Mapping[str, Any] | None = None
    description: str = ""

    @property
    def primary(self) -> str:
        """The metric that decides."""
        return str(self.card["cross_validation"]["metric"])

    @property
    def test_rows(self) -> int:
        """How many rows were held out."""
        return int(self.card["data"]["test_rows"])


def collect(settings: Settings, decision: Mapping[str, Any] | None = None) -> Outcome:
    """Gather what the stages left; of the data only the target is read."""
    agreed, bundle = contracts.read(CONTRACT), settings.serving.bundle
    tracked = read_json(RUN) if RUN.is_file() else None
    if tracked is not None:
        tracked = {"tracking_uri": tracking.uri(settings), **tracked}
    return Outcome(
        contract=agreed,
        card=read_json(bundle / CARD),
        reference=read_json(bundle / REFERENCE),
        examples=read_json(bundle / EXAMPLES),
        metrics=read_json(METRICS),
        targets=_targets(agreed),
        missing=missing_shares(SNAPSHOT),
        pictures={path.stem: path.read_bytes() for path in sorted(PLOTS.glob("*.png"))},
        trials=read_json(TRIALS) if TRIALS.is_file() else (),
        tracked=tracked,
        decision=decision,
        description=settings.project.description,
    )


def missing_shares(path: Path) -> dict[str, float]:
    """Read the missing share of every column from a Parquet file's footer, not from its rows.

    Returns
    -------
    dict
        Without columns of which the footer does not tell; empty where there is no file.
    """
    if not path.is_file():
        return {}
    from pyarrow.parquet import read_metadata

    footer = read_metadata(path)
    counts: dict[str, int] = {}
    unknown = set()
    for i in range(footer.num_row_groups):
        group = footer.row_group(i)
        for j in range(group.num_columns):
            chunk = group.column(j)
            name, facts = chunk.path_in_schema, chunk.statistics
            if facts is None or not facts.has_null_count:
                unknown.add(name)
                continue
            counts[name] = counts.get(name, 0) + facts.null_count
    return {
        name: nulls / max(footer.num_rows, 1)
        for name, nulls in counts.items()
        if name not in unknown
    }


def _targets(agreed: Contract) -> dict[str, Any]:
    """Count the classes of training and test rows; quantiles of a numeric target."""
    if agreed.target is None:
        return {}
    import numpy as np

    codes = {}
    for part, path in (("train", TRAIN), ("test", TEST)):
        found = encode_target(agreed, read_table(path, "prepare", [agreed.target.name]))
        codes[part] = found[~np.isnan(found)]
    if not agreed.classes:
        return {"quantiles": np.quantile(codes["train"], np.linspace(0, 1, 21)).tolist()}
    return {
        part: dict(
            zip(
                agreed.class_names,
                np.bincount(found.astype(int), minlength=len(agreed.classes)).tolist(),
                strict=True,
            )
        )
        for part, found in codes.items()
    }
