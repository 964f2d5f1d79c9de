"""Packaging: what earlier stages left becomes the bundle that serving loads."""

import platform
import subprocess
from dataclasses import asdict
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import sklearn
import skops

from . import bundle, contract, data, feedback
from . import reference as references
from .artifacts import (
    CONTRACT,
    METRICS,
    MODEL,
    SNAPSHOT,
    TEST,
    TRAIN,
    TRAINING,
    read_json,
    read_table,
)
from .compilation import compile_pipeline
from .contract import Contract
from .encoding import encode_frame, encode_target, plain_rows
from .inference import Predictor, output
from .plan import Plan
from .settings import Settings

EXAMPLES = 8


def package(settings: Settings) -> str:
    """Compile the fitted pipeline and make the bundle, from the files that earlier stages left."""
    agreed, pipeline = contract.read(CONTRACT), bundle.load_model(MODEL)
    facts, trained = read_json(SNAPSHOT.with_suffix(".json")), read_json(TRAINING)
    measured = read_json(METRICS)
    if known := feedback.read(agreed):
        facts["feedback"] = known.facts
    train_rows = read_table(TRAIN, "prepare")
    test_rows = read_table(TEST, "prepare")
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
        "settings": {**settings.model_dump(mode="json", include={"data"}), **trained["settings"]},
        "search": trained["search"],
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
        {
            bundle.REFERENCE: reference(agreed, train_rows),
            bundle.EXAMPLES: examples(agreed, compiled.plan, test_rows),
            bundle.SAMPLE: references.stored(samples(agreed, compiled.plan, settings)),
        },
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


def samples(agreed: Contract, plan: Plan, settings: Settings) -> list[references.Sample]:
    """Sample the features of all rows, and what the model says of those that were held out.

    With feedback these are its rows alone: older ones would make the world of today look unusual.
    """
    window, about = settings.monitoring.window, None
    if known := feedback.read(agreed):
        frame, held = known.rows, known.held_out
        if known.entities:
            about = references.entity_codes(known.entities)
    else:
        frame = read_table(SNAPSHOT, "snapshot")
        held = data.positions(frame, agreed, settings.data)[1]
        if settings.events.entity in frame:
            keys = frame[settings.events.entity].astype(object)
            about = references.entity_codes(keys.where(keys.notna(), None))
    rows, of = references.chosen(np.arange(len(frame)), window, about)
    matrix = encode_frame(agreed, frame.take(rows))
    found = [
        references.sample(column.name, column.categories, values, of)
        for column, values in zip(agreed.features, matrix.T, strict=True)
    ]
    rows, of = references.chosen(held, window, about)
    held_out = frame.take(rows)
    said = output(plan, agreed, encode_frame(agreed, held_out))
    truth = encode_target(agreed, held_out)
    if agreed.task == "regression":
        off = np.abs(said.labels - truth)
        samples = (references.PREDICTION, said.labels), (references.LOSS, off)
        return [*found, *(references.sample(name, None, values, of) for name, values in samples)]
    groups = agreed.class_names or tuple(sorted(set(map(str, said.labels))))
    codes = references.codes(groups, said.labels)
    found.append(references.sample(references.PREDICTION, groups, codes, of))
    if said.probabilities is None:
        return [*found, references.sample(references.SCORE, None, np.asarray(said.scores), of)]
    errs = (codes != truth).astype(float)
    samples = (references.SCORE, said.probabilities.max(1)), (references.LOSS, errs)
    return [*found, *(references.sample(name, None, values, of) for name, values in samples)]


def examples(agreed: Contract, plan: Plan, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Answer a few test rows, of different classes where there are any, the truth beside them."""
    if agreed.classes and agreed.target:
        turn = frame.groupby(agreed.target.name, sort=False).cumcount()
        frame = frame.loc[turn.sort_values(kind="stable").index]
    frame = frame.head(EXAMPLES)
    rows = plain_rows(agreed, frame)
    truths = frame[agreed.target.name].tolist() if agreed.target else [None] * len(rows)
    answers = Predictor(agreed, plan, {}, []).predict(rows)
    return [
        {"row": row, "truth": truth, "prediction": asdict(answer)}
        for row, truth, answer in zip(rows, truths, answers, strict=True)
    ]


def git_commit() -> str | None:
    """Return the commit that is checked out; None outside of a repository, or without git."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return found.stdout.strip() if found.returncode == 0 else None
