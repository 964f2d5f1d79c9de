"""The stages of the road; each reads files, writes files, and says in a line what came out."""

import json
import platform
import subprocess
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sklearn

from . import bundle, contract, data, evaluation, inspection, plots, training, violations
from .artifacts import write_json
from .contract import Contract, Kind
from .encoding import Matrix, encode_frame, encode_target
from .errors import ContractError, DataError
from .inference import Predictor
from .plan import Plan
from .settings import Settings

SNAPSHOT = Path("data/snapshot.parquet")
TRAIN, TEST = Path("data/train.parquet"), Path("data/test.parquet")
CONTRACT = Path("contract.json")
MODEL, TRAINING = Path("models/model.skops"), Path("models/training.json")
REPORTS = Path("reports")
METRICS = REPORTS / "metrics.json"
EXAMPLES = 8


def snapshot(settings: Settings) -> str:
    """Read the source and keep what was read."""
    frame = data.read(settings.data.source, settings.data)
    facts = data.write_snapshot(frame, SNAPSHOT, settings.data.source)
    return f"{facts['rows']:,} rows, {facts['columns']} columns of {facts['source']}"


def agree(settings: Settings, accept: bool = False) -> str:
    """Check the snapshot against the contract; infer one where there is none, or for other data.

    Parameters
    ----------
    settings : Settings
    accept : bool
        Infer it anew, whatever stands in contract.json.

    Raises
    ------
    ContractError
        With a table of all violations.
    """
    frame = _table(SNAPSHOT, "snapshot")
    known = contract.read(CONTRACT) if CONTRACT.exists() and not accept else None
    if known and known.agreed == inspection.agreement(settings.data):
        if found := violations.check(frame, known):
            raise ContractError(
                f"{settings.data.source} breaks {CONTRACT}:\n{violations.explain(found)}\n"
                "mend the source, edit contract.json, or accept the data: contract --accept"
            )
        return f"kept by {len(frame):,} rows"
    inferred = inspection.infer(frame, settings.data)
    contract.write(inferred, CONTRACT)
    target = f", target {inferred.target.name}" if inferred.target else ""
    left_out = "".join(f"\n  without {c.name}: {c.reason}" for c in inferred.excluded)
    again = " again, as the data settings changed" if known else ""
    return f"inferred{again}: {inferred.task}{target}, {len(inferred.features)} features{left_out}"


def prepare(settings: Settings) -> str:
    """Split the snapshot into training and test rows."""
    agreed, frame = contract.read(CONTRACT), _table(SNAPSHOT, "snapshot")
    train, test = data.split(frame, agreed, settings.data)
    data.write_table(train, TRAIN)
    data.write_table(test, TEST)
    dropped = len(frame) - len(train) - len(test)
    without = f", {dropped:,} without a target left out" if dropped else ""
    return f"{len(train):,} training and {len(test):,} test rows{without}"


def train(settings: Settings) -> str:
    """Cross-validate and fit on the training rows."""
    agreed = contract.read(CONTRACT)
    matrix, target = _encoded(TRAIN, agreed)
    name = training.estimator_name(agreed, len(matrix), settings)
    scores = training.cross_validate(agreed, matrix, target, settings)
    bundle.dump_model(training.fit(agreed, matrix, target, settings), MODEL)
    write_json({"estimator": name, "cross_validation": scores}, TRAINING)
    if scores["mean"] is None:
        return f"{name}, too few rows to cross-validate"
    return (
        f"{name}, {scores['metric']} {scores['mean']:.3f} ± {scores['std']:.3f} in cross-validation"
    )


def evaluate(settings: Settings) -> str:
    """Measure the fitted model on the test rows and draw what it does."""
    agreed, pipeline = contract.read(CONTRACT), bundle.load_model(MODEL)
    matrix, truth = _encoded(TEST, agreed)
    metrics, result = evaluation.evaluate(pipeline, agreed, matrix, truth)
    shares: dict[str, dict[str, float]] = {}
    if truth is not None and settings.evaluation.importance_repeats:
        shares = evaluation.importance(pipeline, agreed, matrix, truth, settings.evaluation)
    transformed = pipeline[:-1].transform(matrix) if truth is None else None
    drawn = plots.draw(REPORTS, agreed, truth, result, transformed, shares)
    trained = encode_target(agreed, _table(TRAIN, "prepare"))
    base = evaluation.baseline(agreed, trained, truth)
    write_json({"test": metrics, "baseline": base, "importance": shares}, METRICS)
    primary = evaluation.PRIMARY[agreed.task]
    against = f" (baseline {base[primary]:.3f})" if base else ""
    pictures = ", ".join(path.name for path in drawn)
    return f"{primary} {metrics[primary]:.3f}{against} on {len(matrix):,} test rows; {pictures}"


def package(settings: Settings) -> str:
    """Compile the model and make the bundle that serving loads."""
    import onnxruntime
    import skops

    from .compilation import compile_pipeline

    agreed, pipeline = contract.read(CONTRACT), bundle.load_model(MODEL)
    facts, trained = _read_json(SNAPSHOT.with_suffix(".json")), _read_json(TRAINING)
    measured = _read_json(METRICS)
    train_rows, test_rows = _table(TRAIN, "prepare"), _table(TEST, "prepare")
    compiled = compile_pipeline(pipeline, agreed, encode_frame(agreed, test_rows))
    card = {
        "name": settings.project.name,
        "task": agreed.task,
        "target": agreed.target.name if agreed.target else None,
        "estimator": trained["estimator"],
        "metrics": measured["test"],
        "baseline": measured["baseline"],
        "importance": measured["importance"],
        "cross_validation": trained["cross_validation"],
        "data": {**facts, "training_rows": len(train_rows), "test_rows": len(test_rows)},
        "settings": settings.model_dump(mode="json", include={"data", "preprocessing", "training"}),
        "plan": compiled.card,
        "git_commit": git_commit(),
        "libraries": {
            "python": platform.python_version(),
            "scikit-learn": sklearn.__version__,
            "numpy": np.__version__,
            "skops": skops.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
    }
    written = bundle.write(
        settings.serving.bundle,
        compiled.plan,
        compiled.graph or MODEL.read_bytes(),
        agreed,
        card,
        reference(agreed, train_rows),
        examples(agreed, compiled.plan, test_rows),
    )
    difference = f"largest difference {compiled.card['difference']:.1g}"
    return f"version {written['version']}, {compiled.card['form']}, {difference}"


def reference(agreed: Contract, frame: pd.DataFrame) -> dict[str, Any]:
    """Profile the training rows: missing share, quantiles of numbers, shares of categories."""
    matrix = encode_frame(agreed, frame)
    columns: dict[str, Any] = {}
    for column, values in zip(agreed.features, matrix.T, strict=True):
        given = values[~np.isnan(values)]
        profile: dict[str, Any] = {"kind": column.kind, "missing": float(np.isnan(values).mean())}
        if column.kind in ("categorical", "boolean"):
            counts = np.bincount(given.astype(int), minlength=len(column.categories))
            shares = (counts / max(len(given), 1)).tolist()
            profile["shares"] = dict(zip(column.categories, shares, strict=True))
        elif len(given):
            profile["quantiles"] = np.quantile(given, np.linspace(0, 1, 21)).tolist()
        columns[column.name] = profile
    return {"rows": len(frame), "columns": columns}


def examples(agreed: Contract, plan: Plan, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Answer a few test rows, of different classes where there are any, the truth beside them."""
    if agreed.classes and agreed.target:
        turn = frame.groupby(agreed.target.name, sort=False).cumcount()
        frame = frame.loc[turn.sort_values(kind="stable").index]
    frame = frame.head(EXAMPLES)
    rows = [
        {
            column.name: _plain(column.kind, value)
            for column, value in zip(agreed.features, row, strict=True)
        }
        for row in frame[[column.name for column in agreed.features]].itertuples(index=False)
    ]
    truths = frame[agreed.target.name].tolist() if agreed.target else [None] * len(rows)
    answers = Predictor(agreed, plan, {}, []).predict(rows)
    return [
        {"row": row, "truth": truth, "prediction": asdict(answer)}
        for row, truth, answer in zip(rows, truths, answers, strict=True)
    ]


STAGES = {
    "snapshot": snapshot,
    "contract": agree,
    "prepare": prepare,
    "train": train,
    "evaluate": evaluate,
    "package": package,
}


def _plain(kind: Kind, value: Any) -> Any:
    """Return a value as JSON carries it; whole numbers that pandas made float become int again."""
    if pd.isna(value):
        return None
    if kind == "integer":
        return int(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return value.item() if isinstance(value, np.generic) else value


def _table(path: Path, stage: str) -> pd.DataFrame:
    if not path.is_file():
        raise DataError(f"{path} not found: run the {stage} step first")
    return pd.read_parquet(path)


def _encoded(path: Path, agreed: Contract) -> tuple[Matrix, Matrix | None]:
    frame = _table(path, "prepare")
    return encode_frame(agreed, frame), encode_target(agreed, frame)


def _read_json(path: Path) -> Any:
    if not path.is_file():
        raise DataError(f"{path} not found: run the earlier steps first, or the whole pipeline")
    return json.loads(path.read_text(encoding="utf-8"))


def git_commit() -> str | None:
    """Return the commit that is checked out; None outside of a repository, or without git."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return found.stdout.strip() if found.returncode == 0 else None
