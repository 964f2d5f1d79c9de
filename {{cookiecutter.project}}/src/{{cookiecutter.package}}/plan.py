"""The plan: the form in which a model is run; `compilation` chooses it and proves it equal.

Four forms, the fastest first: ``dense``, own encoding and the estimator as ONNX with one dense
input; ``graph``, the whole pipeline as one ONNX graph; ``estimator``, own encoding and
scikit-learn's estimator; ``pipeline``, the fitted pipeline as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from .encoding import Matrix
from .errors import BundleError
from .features import date_parts, ratios

Tier: TypeAlias = Literal["dense", "graph", "estimator", "pipeline"]
FORMS: dict[Tier, str] = {
    "dense": "dense ONNX",
    "graph": "ONNX graph",
    "estimator": "own encoding with scikit-learn",
    "pipeline": "scikit-learn",
}
IN_ONNX: tuple[Tier, ...] = ("dense", "graph")

# What an element of each array is where it does nothing; JSON has null for it.
NEUTRAL = {
    "low": -np.inf,
    "high": np.inf,
    "fill": np.nan,
    "subtract": 0.0,
    "divide": 1.0,
    "multiply": 1.0,
    "add": 0.0,
    "level": np.nan,
}


class Encoder:
    """A fitted preprocessing in plain numpy and float64.

    Parameters
    ----------
    parts : list of dict
        Where the columns come from, in order: ``columns`` of the matrix and what is made of them,
        ``make``: ``take``, ``ratios`` or ``date_parts`` (with ``parts``).
    arrays : dict of str to ndarray of shape (n_columns,)
        By the names of `NEUTRAL`. A column is held between ``low`` and ``high``, missing values
        become ``fill``, then ``subtract``, ``divide``, ``multiply``, ``add``.
    owner, level : ndarray of shape (n_features,), or None
        One-hot encoding: of which column a feature is made, and which value makes it 1; a level
        that is NaN leaves the column as it is.
    reductions : list of dict
        ``components`` (n_kept, n_features), ``offset`` and ``scale`` (n_kept,) of a PCA.
    """

    def __init__(
        self,
        parts: list[dict[str, Any]],
        arrays: dict[str, Matrix],
        owner: Any = None,
        level: Matrix | None = None,
        reductions: list[dict[str, Matrix]] | None = None,
    ) -> None:
        self.parts = parts
        # What does nothing to any column is not kept: one row pays for each operation.
        self.arrays = {
            name: array
            for name, array in arrays.items()
            if not np.array_equal(array, np.full_like(array, NEUTRAL[name]), equal_nan=True)
        }
        self.owner = owner
        self.level = level
        self.hot = None if level is None else np.flatnonzero(~np.isnan(level))
        self.reductions = reductions or []
        self.order = None
        if all(part["make"] == "take" for part in parts):
            self.order = np.array([j for part in parts for j in part["columns"]], dtype=np.intp)

    def __call__(self, matrix: Matrix) -> Matrix:
        """Encode (n_rows, n_columns of the contract) to (n_rows, n_features)."""
        if self.order is not None:
            values = matrix.take(self.order, axis=1)
        else:
            values = np.hstack([self._make(part, matrix) for part in self.parts])
        arrays = self.arrays
        if "low" in arrays:
            np.maximum(values, arrays["low"], out=values)
            np.minimum(values, arrays["high"], out=values)
        if "fill" in arrays:
            np.copyto(values, arrays["fill"], where=np.isnan(values))
        for name, operation in OPERATIONS.items():
            if name in arrays:
                operation(values, arrays[name], out=values)
        if self.owner is not None and self.level is not None:
            values = values[:, self.owner]
            values[:, self.hot] = values[:, self.hot] == self.level[self.hot]
        for reduction in self.reductions:
            values = (values @ reduction["components"].T - reduction["offset"]) / reduction["scale"]
        return values

    @staticmethod
    def _make(part: dict[str, Any], matrix: Matrix) -> Matrix:
        columns = matrix[:, part["columns"]]
        if part["make"] == "ratios":
            return ratios(columns)
        return date_parts(columns, part["parts"]) if part["make"] == "date_parts" else columns

    def content(self) -> dict[str, Any]:
        """Return what `from_content` takes, as JSON can hold it: floats exactly."""
        return {
            "parts": self.parts,
            "arrays": {name: _listed(array) for name, array in self.arrays.items()},
            "owner": None if self.owner is None else self.owner.tolist(),
            "level": None if self.level is None else _listed(self.level),
            "reductions": [
                {name: array.tolist() for name, array in reduction.items()}
                for reduction in self.reductions
            ],
        }

    @classmethod
    def from_content(cls, content: dict[str, Any]) -> Encoder:
        """Build it again."""
        level = content["level"]
        return cls(
            content["parts"],
            {name: _array(values, NEUTRAL[name]) for name, values in content["arrays"].items()},
            None if content["owner"] is None else np.array(content["owner"], dtype=np.intp),
            None if level is None else _array(level, NEUTRAL["level"]),
            [
                {name: np.array(values) for name, values in reduction.items()}
                for reduction in content["reductions"]
            ],
        )


OPERATIONS: dict[str, Callable[..., Any]] = {
    "subtract": np.subtract,
    "divide": np.divide,
    "multiply": np.multiply,
    "add": np.add,
}


class Plan:
    """A model that can be asked.

    Parameters
    ----------
    tier : str
        One of `FORMS`.
    estimate : callable
        From encoded features to values: probabilities (n_rows, n_classes), numbers (n_rows,),
        distances from the centres (n_rows, n_groups) or scores (n_rows,).
    encoder : Encoder or None
        None where `estimate` takes the matrix of the contract.
    classes : tuple of int or None
        Positions in the contract's classes, one for each column of the probabilities.
    offset : float or None
        Of scores: minus the score above which a row is an outlier.
    """

    def __init__(
        self,
        tier: Tier,
        estimate: Callable[[Matrix], Matrix],
        encoder: Encoder | None,
        classes: tuple[int, ...] | None,
        offset: float | None,
    ) -> None:
        self.tier = tier
        self.estimate = estimate
        self.encoder = encoder
        self.classes = classes
        self.offset = offset
        self.transform: Callable[[Matrix], Matrix] = encoder or np.nan_to_num

    @classmethod
    def of(cls, model: Any, encoder: Encoder | None = None) -> Plan:
        """Plan a fitted pipeline, or an estimator behind an own encoder; a plan is its own."""
        if isinstance(model, Plan):
            return model
        classes = getattr(model, "classes_", None)
        last = _last(model)
        plan = cls(
            "estimator" if encoder else "pipeline",
            partial(ask, model),
            encoder,
            None if classes is None else tuple(classes.astype(int).tolist()),
            float(last.offset_) if hasattr(last, "score_samples") else None,
        )
        if last is not model:
            plan.transform = model[:-1].transform
        return plan

    def features(self, matrix: Matrix) -> Matrix:
        """Return rows as the estimator sees them, (n_rows, n_features).

        Where one graph holds everything, the rows as they are, without missing values.
        """
        return self.transform(matrix)

    def values(self, matrix: Matrix) -> Matrix:
        """Run the model on (n_rows, n_columns), as `encoding` makes it."""
        return self.estimate(self.encoder(matrix) if self.encoder else matrix)

    def content(self) -> dict[str, Any]:
        """Return what has to be stored beside the model, as JSON can hold it."""
        return {
            "tier": self.tier,
            "classes": None if self.classes is None else list(self.classes),
            "offset": self.offset,
            "encoder": self.encoder.content() if self.encoder else None,
        }

    @classmethod
    def from_content(cls, content: dict[str, Any], estimate: Callable[[Matrix], Matrix]) -> Plan:
        """Build it again around a model."""
        encoder, classes = content["encoder"], content["classes"]
        return cls(
            content["tier"],
            estimate,
            Encoder.from_content(encoder) if encoder else None,
            None if classes is None else tuple(classes),
            content["offset"],
        )


class Session:
    """An ONNX graph with one dense input, run by onnxruntime in the thread that asks.

    Parameters
    ----------
    graph : bytes or Path
        The last of its outputs is the answer.

    Raises
    ------
    BundleError
        Where this onnxruntime cannot run the graph.
    """

    def __init__(self, graph: bytes | Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self.session = onnxruntime.InferenceSession(
                graph if isinstance(graph, bytes) else str(graph),
                options,
                providers=["CPUExecutionProvider"],
            )
        # pylint: disable-next=catching-non-exception
        except onnxruntime_errors() as error:
            reason = " ".join(str(error).split())
            # pylint: disable-next=bad-exception-cause
            raise BundleError(
                f"onnxruntime {onnxruntime.__version__} cannot run the model: {reason}"
            ) from error
        (expected,) = self.session.get_inputs()
        self.input = expected.name
        self.dtype = np.dtype(np.float32 if expected.type == "tensor(float)" else np.float64)
        answer = self.session.get_outputs()[-1]
        self.outputs = [answer.name]
        self.flat = len(answer.shape) == 2 and answer.shape[1] == 1

    def __call__(self, features: Matrix) -> Matrix:
        """Answer (n_rows, n_features)."""
        (values,) = self.session.run(
            self.outputs, {self.input: features.astype(self.dtype, copy=False)}
        )
        return np.asarray(values[:, 0] if self.flat else values, dtype=np.float64)


def onnxruntime_errors() -> tuple[type[Exception], ...]:
    """Return what onnxruntime raises; its errors have no base of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return tuple(
        each
        for each in vars(state).values()
        if isinstance(each, type) and issubclass(each, Exception)
    )


def ask(model: Any, features: Matrix) -> Matrix:
    """Ask a fitted pipeline or estimator for its values, of the kind that `Plan` describes."""
    if isinstance(getattr(model, "estimators_", None), list) and _is_forest(model):
        # As the forest does it, without the checks of each tree: far faster for one row.
        rows = features.astype(np.float32)
        total = sum(tree.tree_.predict(rows) for tree in model.estimators_)
        values = total / len(model.estimators_)
        if not hasattr(model, "predict_proba"):
            values = values[:, 0]
    elif hasattr(model, "predict_proba"):
        values = model.predict_proba(features)
    elif hasattr(model, "score_samples"):
        # Scikit-learn's scores are low where a row is unusual.
        values = -model.score_samples(features)
    elif hasattr(_last(model), "cluster_centers_"):
        values = model.transform(features)
    else:
        values = model.predict(features)
    return np.asarray(values, dtype=np.float64)


def _is_forest(model: Any) -> bool:
    from sklearn import ensemble

    return isinstance(
        model,
        ensemble.RandomForestClassifier
        | ensemble.RandomForestRegressor
        | ensemble.ExtraTreesClassifier
        | ensemble.ExtraTreesRegressor,
    )


def _last(model: Any) -> Any:
    return model[-1] if hasattr(model, "steps") else model


def _listed(array: Matrix) -> list[float | None]:
    return [value if np.isfinite(value) else None for value in array.tolist()]


def _array(values: list[float | None], neutral: float) -> Matrix:
    return np.array([neutral if value is None else value for value in values], dtype=np.float64)
