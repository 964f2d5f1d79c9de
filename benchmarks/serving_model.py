"""Run by the Python of a generated project: data, models and requests of the serving benchmark.

`serving_model.py data <path>` writes the table; `serving_model.py plain <folder> <name>` refits
the estimator that the project trained in a plain scikit-learn pipeline, which peers serve and all
answers are compared with; `serving_model.py fallback <bundle>` packages the project's pipeline
without ONNX; `serving_model.py inside <bundle> <model> <requests>` times single rows in process.
"""

import json
import sys
import time
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.compose import make_column_selector as chosen
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

ROWS, BODIES, LARGEST = 8_000, 64, 256
TARGET = "outcome"


def data(path):
    """Write a table of 14 columns: 8 numbers, 2 booleans, 4 categories."""
    random = np.random.default_rng(0)
    table = pd.DataFrame({f"reading_{i}": random.normal(i, 1 + i, ROWS).round(3) for i in range(6)})
    table.loc[random.random(ROWS) < 0.05, "reading_0"] = np.nan
    table["age"] = random.integers(18, 90, ROWS)
    table["visits"] = random.integers(0, 400, ROWS)
    table["member"] = random.random(ROWS) < 0.4
    table["urban"] = random.random(ROWS) < 0.7
    codes = {}
    for name, size in (("region", 5), ("plan", 12), ("device", 30), ("channel", 8)):
        codes[name] = random.integers(0, size, ROWS)
        table[name] = [f"{name} {code:02d}" for code in codes[name]]
    pull = table["reading_1"] - table["reading_2"] / 3 + table["age"] / 30 + table["member"]
    pull += np.sin(codes["region"]) + random.normal(0, 1, ROWS)
    table[TARGET] = np.where(pull > np.median(pull), "stays", "leaves")
    table.to_parquet(path, index=False)


def plain_pipeline(estimator):
    """Put an estimator into a pipeline as a tutorial has it, with the columns in our order."""
    texts, booleans = chosen(dtype_include="str"), chosen(dtype_include="bool")
    numbers = chosen(dtype_include="number")
    if isinstance(estimator, LogisticRegression):
        encode = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
        fill = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    else:
        encode = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
        forest = "Forest" in type(estimator).__name__
        fill = SimpleImputer(strategy="median") if forest else "passthrough"
    columns = make_column_transformer((fill, numbers), ("passthrough", booleans), (encode, texts))
    return make_pipeline(columns, clone(estimator))


def plain(folder, name):
    """Fit the plain pipeline on the project's training rows; write it, for MLflow too."""
    from mlflow import sklearn as flavor
    from mlflow.models import infer_signature
    from penguins import bundle
    from penguins.artifacts import MODEL, TEST, TRAIN

    train, test = (pd.read_parquet(path) for path in (TRAIN, TEST))
    inputs = train.drop(columns=TARGET)
    model = plain_pipeline(bundle.load_model(MODEL)[-1]).fit(inputs, train[TARGET])
    folder = Path(folder)
    joblib.dump(model, folder / f"{name}.joblib")
    flavor.save_model(
        model,
        folder / f"{name}-mlflow",
        pyfunc_predict_fn="predict_proba",
        signature=infer_signature(inputs, model.predict_proba(inputs)),
        serialization_format="cloudpickle",
        pip_requirements=[],
    )
    requests = {}
    for size in (1, 32, LARGEST):
        random = np.random.default_rng(size)
        frames = [
            test.drop(columns=TARGET).iloc[random.choice(len(test), size)] for _ in range(BODIES)
        ]
        requests[size] = [
            {
                "rows": json.loads(frame.to_json(orient="records")),
                "split": json.loads(frame.to_json(orient="split", index=False)),
                "shares": model.predict_proba(frame).tolist(),
            }
            for frame in frames
        ]
    (folder / f"{name}.json").write_text(json.dumps(requests))


def fallback(path):
    """Package what the project trained as if ONNX could not express it."""
    from penguins import compilation, packaging, settings

    compilation.TIERS = {"estimator": compilation.TIERS["estimator"]}
    wanted = settings.load()
    serving = wanted.serving.model_copy(update={"bundle": Path(path)})
    print(packaging.package(wanted.model_copy(update={"serving": serving})))


def inside(bundle, model, requests, seconds=1.0):
    """Print µs of one row, by the project's predictor and by pandas with scikit-learn, in turn."""
    from penguins.inference import Predictor

    predictor, pipeline = Predictor.load(bundle), joblib.load(model)
    rows = [body["rows"] for body in json.loads(Path(requests).read_text())["1"]]
    calls = {
        "ours": predictor.predict,
        "pandas": lambda row: pipeline.predict_proba(pd.DataFrame(row)),
    }
    taken = {name: [] for name in calls}
    for _ in range(5):
        for name, call in calls.items():
            done, start = 0, time.perf_counter()
            while time.perf_counter() - start < seconds / 5:
                call(rows[done % len(rows)])
                done += 1
            taken[name].append((time.perf_counter() - start) / done * 1e6)
    print(json.dumps({name: float(np.median(values)) for name, values in taken.items()}))


if __name__ == "__main__":
    {"data": data, "plain": plain, "fallback": fallback, "inside": inside}[sys.argv[1]](
        *sys.argv[2:]
    )
