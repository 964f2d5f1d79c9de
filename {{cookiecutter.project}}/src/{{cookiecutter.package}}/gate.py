"""The gate: whether a challenger may take the champion's place, and a table of the reasons."""

from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd

from .artifacts import aligned
from .comparison import Slice, compare, losing, slices
from .compatibility import classes, kind, narrowings
from .contract import Contract
from .encoding import Matrix, encode_frame, encode_series, encode_target, plain_rows, shortened
from .errors import ContractError, SettingsError
from .evaluation import LOWER_IS_BETTER, METRICS, PRIMARY, measure, silhouettes
from .inference import Output, Predictor
from .settings import Gate

LEAST_ROWS = 30
LATENCY_ROWS = 20
LATENCY_CALLS = 100
LATENCY_SECONDS = 2.0


@dataclass(frozen=True)
class Check:
    """One line of the table of reasons.

    Attributes
    ----------
    name : str
    champion, challenger : str
        What was found; ``-`` where there is nothing.
    required : str
    passed : bool
    """

    name: str
    champion: str
    challenger: str
    required: str
    passed: bool


@dataclass(frozen=True)
class Decision:
    """Whether the challenger is promoted, and why.

    Attributes
    ----------
    promoted : bool
        Whether all checks passed.
    checks : tuple of Check
    reason : str
        One line.
    figures : dict
        What the checks rest on, as JSON carries it: ``rows``, ``left_out`` (without a truth that
        the challenger knows), ``latency_ms``; unless there are too few rows ``metrics`` of the
        challenger; of a comparison ``metric``, ``champion``, ``challenger``, ``difference``,
        ``interval`` (each end with the one-sided ``confidence``), ``margin``, ``resamples`` and
        ``slices``, the worst first.
    """

    promoted: bool
    checks: tuple[Check, ...]
    reason: str
    figures: dict[str, Any]


def decide(
    challenger: Predictor, champion: Predictor | None, frame: pd.DataFrame, settings: Gate
) -> Decision:
    """Compare two models on the same held-out rows, and check what else a challenger must show.

    - rows: at least `LEAST_ROWS`; with fewer, no quality is measured and the answer is no.
    - task, classes, contract: it answers whatever clients of the champion send
      (`compatibility.narrowings`). No class may go, which a client may be waiting for; a new one
      may come, as it is often the reason to train again.
    - the primary metric: better than the champion's by more than ``margin`` (`comparison.compare`).
    - floors: every metric in ``floors`` reaches its value; for losses and errors
      (`evaluation.LOWER_IS_BETTER`) the value is the most that is allowed.
    - slices: no group of rows loses (`comparison.losing`).
    - latency: the median time of ``predict`` for one row, after warming up.

    Without a champion rows, floors and latency decide. Clusterings, which have no truth, are
    compared by the silhouettes of the same rows, at most `evaluation.SILHOUETTE_ROWS`, each model
    in the space that its own preprocessing makes.

    Parameters
    ----------
    challenger, champion : Predictor
        Each reads the rows by its own contract.
    frame : DataFrame
        Rows that neither was trained on, with the target and the columns of both contracts.
    settings : Gate

    Returns
    -------
    Decision

    Raises
    ------
    SettingsError
        Where ``gate.floors`` names no metric of the challenger's task.
    ContractError
        Where the rows lack a column of the challenger's contract.
    """
    contract = challenger.contract
    _refuse_unknown_floors(contract, settings)
    if lacking := _lacking(contract, frame):
        raise ContractError(
            f"the held-out rows lack {shortened(lacking)}; expected all columns of the challenger"
        )
    given, truth = len(frame), encode_target(contract, frame)
    if truth is not None:
        frame, truth = frame[~np.isnan(truth)], truth[~np.isnan(truth)]
    enough = len(frame) >= LEAST_ROWS
    checks = [Check("rows", "-", f"{len(frame):,}", f"at least {LEAST_ROWS}", enough)]
    figures: dict[str, Any] = {"rows": len(frame), "left_out": given - len(frame)}
    if champion:
        checks += _compatible(champion.contract, contract)
    if enough:
        matrix = encode_frame(contract, frame)
        result = challenger.output(matrix)
        features = challenger.seen(matrix) if truth is None else None
        metrics = measure(contract, truth, result, features)
        figures["metrics"] = metrics
        if champion:
            answers = _answers(contract, challenger, result, features)
            compared, more = _compared(contract, truth, answers, champion, frame, settings)
            checks += compared
            figures |= more
        checks += _floors(metrics, settings)
    latencies = {
        name: _latency(predictor, frame)
        for name, predictor in (("champion", champion), ("challenger", challenger))
        if predictor
    }
    figures["latency_ms"] = latencies
    checks.append(_fast(latencies, settings))
    failed = [check for check in checks if not check.passed]
    return Decision(not failed, tuple(checks), _reason(champion, checks, failed), figures)


def explain(decision: Decision) -> str:
    """Lay the checks out as a table: check, champion, challenger, required, result."""
    table = [("check", "champion", "challenger", "required", "result")]
    for c in decision.checks:
        result = "passed" if c.passed else "failed"
        table.append((c.name, c.champion, c.challenger, c.required, result))
    return aligned(table)


def _refuse_unknown_floors(contract: Contract, settings: Gate) -> None:
    known = METRICS[contract.task]
    for name in settings.floors:
        if name not in known:
            raise SettingsError(
                f"gate.floors: {name!r} is no metric of a {contract.task}; "
                f"expected one of {', '.join(known)}"
            )


def _lacking(contract: Contract, frame: pd.DataFrame) -> list[str]:
    names = [column.name for column in contract.features]
    names += [contract.target.name] if contract.target else []
    return [name for name in names if name not in frame]


def _compatible(old: Contract, new: Contract) -> list[Check]:
    checks = [Check("task", kind(old), kind(new), "the same", kind(old) == kind(new))]
    if old.classes and new.classes:
        lost, added = classes(old, new)
        said = [str(len(new.classes))]
        said += [f"without {shortened(lost)}"] if lost else []
        said += [f"new: {shortened(added)}"] if added else []
        required = "the champion's, or more"
        after = ", ".join(said)
        checks.append(Check("classes", str(len(old.classes)), after, required, not lost))
    found = narrowings(old, new)
    more = [f"{len(found) - 3} more"] if len(found) > 3 else []
    after = "; ".join([*found[:3], *more]) or f"{len(new.features)} columns"
    required = "takes what the champion takes"
    return [*checks, Check("contract", f"{len(old.features)} columns", after, required, not found)]


def _answers(contract: Contract, predictor: Predictor, result: Output, features: Any) -> Matrix:
    """Return what is compared of each row: class positions in a contract, numbers, silhouettes."""
    if contract.task == "clustering":
        return silhouettes(result.labels, features)[1]
    if contract.task == "regression":
        return np.asarray(result.labels, dtype=np.float64)
    positions = {name: float(code) for code, name in enumerate(contract.class_names)}
    own = zip(predictor.contract.classes, predictor.contract.class_names, strict=True)
    codes = {label: positions.get(name, -1.0) for label, name in own}
    found: Matrix = pd.Series(result.labels, dtype=object).map(codes).to_numpy(np.float64)
    return found


def _compared(
    contract: Contract,
    truth: Any,
    answers: Any,
    champion: Predictor,
    frame: pd.DataFrame,
    settings: Gate,
) -> tuple[list[Check], dict[str, Any]]:
    metric, old = PRIMARY[contract.task], champion.contract
    required = f"better by more than {settings.margin:g}, {settings.confidence:.4g} confident"
    problem = "another task" if kind(old) != kind(contract) else ""
    if lacking := _lacking(old, frame):
        problem = f"the held-out rows lack {shortened(lacking)}"
    if problem:
        return [Check(metric, "not comparable", problem, required, False)], {}
    matrix = encode_frame(old, frame)
    result = champion.output(matrix)
    features = champion.seen(matrix) if truth is None else None
    before = _answers(contract, champion, result, features)
    found = compare(contract.task, truth, before, answers, settings)
    better = found.low > settings.margin
    said = f"{found.challenger:.4g} ({found.difference:+.4g}, at least {found.low:+.4g})"
    checks = [Check(metric, f"{found.champion:.4g}", said, required, better)]
    if truth is None:
        chosen = silhouettes(result.labels, features)[0]
        frame, matrix = frame.iloc[chosen], matrix[chosen]
    known = {column.name for column in old.features}
    encoded = list(zip(old.features, matrix.T, strict=True))
    added = [column for column in contract.features if column.name not in known]
    encoded += [(column, encode_series(column, frame[column.name])) for column in added]
    theirs, ours = (_scores(contract, truth, each, before) for each in (before, answers))
    parts = slices(encoded, theirs, ours, settings)
    parts.sort(key=lambda part: -part.loss)
    checks.append(_fair(parts, settings))
    return checks, {
        "metric": metric,
        "champion": found.champion,
        "challenger": found.challenger,
        "difference": found.difference,
        "interval": [found.low, found.high],
        "confidence": settings.confidence,
        "margin": settings.margin,
        "resamples": settings.resamples,
        "slices": [{**vars(part), "loss": part.loss} for part in parts],
    }


def _scores(contract: Contract, truth: Any, answers: Any, before: Any) -> Any:
    """Score each row: hit or not; minus the error, in mean errors before; the silhouette."""
    if truth is None:
        return answers
    if contract.classes:
        return (answers == truth).astype(float)
    return 0.0 - np.abs(truth - answers) / (np.abs(truth - before).mean() or 1.0)


def _fair(parts: list[Slice], settings: Gate) -> Check:
    lost = losing(parts, settings)
    limit = f"none loses more than {settings.slice_loss:g}"
    if not parts:
        return Check("slices", "-", f"no group of {settings.slice_rows} rows", limit, True)
    worst = (lost or parts)[0]
    said = f"{worst.challenger:.4g}"
    if lost:
        said += f" ({len(lost)} losing)"
    required = f"of {len(parts)} groups {limit}"
    return Check("slices", f"{worst.name}: {worst.champion:.4g}", said, required, not lost)


def _floors(metrics: dict[str, Any], settings: Gate) -> list[Check]:
    checks = []
    for name, bound in settings.floors.items():
        value, lower = metrics.get(name), name in LOWER_IS_BETTER
        reached = value is not None and (value <= bound if lower else value >= bound)
        said = "not measured" if value is None else f"{value:.4g}"
        required = f"at {'most' if lower else 'least'} {bound:g}"
        checks.append(Check(f"floor {name}", "-", said, required, reached))
    return checks


def _latency(predictor: Predictor, frame: pd.DataFrame) -> float | None:
    """Return the median milliseconds of one row, None if no row can be answered."""
    if _lacking(predictor.contract, frame):
        return None
    answered = []
    for row in plain_rows(predictor.contract, frame.head(LATENCY_ROWS)):
        try:
            predictor.predict([row])
        except ContractError:
            continue
        answered.append(row)
    if not answered:
        return None
    times: list[float] = []
    end = perf_counter() + LATENCY_SECONDS
    while len(times) < LATENCY_CALLS and (perf_counter() < end or len(times) < LATENCY_ROWS):
        row = answered[len(times) % len(answered)]
        start = perf_counter()
        predictor.predict([row])
        times.append(perf_counter() - start)
    return 1000 * median(times)


def _fast(latencies: dict[str, float | None], settings: Gate) -> Check:
    said = {
        name: "no row answered" if value is None else f"{value:.3g} ms"
        for name, value in latencies.items()
    }
    value = latencies["challenger"]
    passed = value is not None and value <= settings.latency_ms
    required = f"at most {settings.latency_ms:g} ms for a row"
    return Check("latency", said.get("champion", "-"), said["challenger"], required, passed)


def _reason(champion: Predictor | None, checks: list[Check], failed: list[Check]) -> str:
    if failed:
        return "refused: " + "; ".join(
            f"{check.name}: {_against(check)}, required: {check.required}" for check in failed
        )
    if champion is None:
        return "first deployment: no champion to compare with, all else passed"
    metric = next(check for check in checks if check.name in PRIMARY.values())
    return f"{metric.name} {metric.challenger} against {metric.champion}, all else passed"


def _against(check: Check) -> str:
    plain = check.champion == "-"
    return check.challenger if plain else f"{check.challenger} against {check.champion}"
