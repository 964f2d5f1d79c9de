"""Compilation: the fastest plan of a fitted pipeline that is proven to answer as it does."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    RobustScaler,
    StandardScaler,
)

from . import graphs
from .contract import Column, Contract
from .encoding import UNSEEN, Matrix
from .errors import BundleError
from .plan import FORMS, NEUTRAL, Encoder, Plan, Session, Tier, ask, onnxruntime_errors
from .preprocessing import Clip, DateParts, Ratios

TOLERANCE = 1e-6
HELD_OUT_ROWS = 10_000
BASES = 50
THRESHOLDS = 400
SKL2ONNX_OPSETS = {"": 17, "ai.onnx.ml": 3}
# What a converter raises for what it cannot convert, or for libraries that do not fit together.
CONVERSION_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    graphs.InexpressibleError,
)
SINGLE_MAX = float(np.nextafter(np.float32(np.inf), np.float32(0)))
YEAR_1, YEAR_9999 = -62_135_596_800.0, 253_402_300_799.0

Candidate = Callable[[], tuple[Plan, bytes | None]]


class RefusedError(Exception):
    """A tier cannot express a pipeline, or does not answer as it does."""


@dataclass(frozen=True)
class Compiled:
    """A pipeline's plan.

    Attributes
    ----------
    plan : Plan
    graph : bytes or None
        The ONNX model; None where the plan needs the fitted pipeline.
    card : dict
        ``tier``, the ``form`` in words, the largest ``difference`` from scikit-learn on so many
        ``rows``, and for each tier that was ``refused`` the reason.
    """

    plan: Plan
    graph: bytes | None
    card: dict[str, Any]


def compile_pipeline(pipeline: Pipeline, contract: Contract, matrix: Matrix) -> Compiled:
    """Find the fastest plan that gives the answers of a pipeline.

    Parameters
    ----------
    pipeline : sklearn Pipeline
        Fitted.
    contract : Contract
    matrix : ndarray, shape (n_rows, n_features)
        Rows that the pipeline was not fitted on.

    Returns
    -------
    Compiled

    Raises
    ------
    BundleError
        Where the pipeline's own labels are not those that serving would read from it.
    """
    gate = Gate(pipeline, contract, matrix)
    refused: dict[str, str] = {}
    for tier, candidates in TIERS.items():
        reasons = []
        for candidate in candidates(pipeline):
            try:
                plan, graph = candidate()
                difference = gate.prove(plan)
            except RefusedError as reason:
                reasons.append(str(reason))
                continue
            card = {
                "tier": tier,
                "form": FORMS[tier],
                "difference": difference,
                "rows": gate.rows,
                "refused": refused,
            }
            return Compiled(plan, graph, card)
        refused[tier] = "; ".join(dict.fromkeys(reasons))
    raise BundleError(f"the model cannot be served as it is: {refused['pipeline']}")


def encoder_of(pipeline: Pipeline) -> Encoder:
    """Read an encoder off a fitted pipeline; raise RefusedError for steps that it lacks."""
    steps = [step for _, step in pipeline.steps[:-1] if not _idle(step)]
    if not steps or not isinstance(steps[0], ColumnTransformer):
        raise RefusedError("the first step is no ColumnTransformer")
    blocks = [
        _block(transformer, [int(column) for column in columns])
        for _, transformer, columns in steps[0].transformers_
        if not isinstance(transformer, str) or transformer != "drop"
    ]
    arrays = {
        name: np.concatenate([block.arrays[name] for block in blocks])
        for name in NEUTRAL
        if name != "level"
    }
    levels = [level for block in blocks for level in block.levels]
    owner = level = None
    if any(each is not None for each in levels):
        counts = [1 if each is None else len(each) for each in levels]
        owner = np.repeat(np.arange(len(levels)), counts)
        level = np.concatenate([[np.nan] if each is None else each for each in levels])
    reductions = []
    for step in steps[1:]:
        if not isinstance(step, PCA):
            raise RefusedError(f"{type(step).__name__} has no own encoding")
        reductions.append(_reduction(step))
    return Encoder([block.part for block in blocks], arrays, owner, level, reductions)


@dataclass
class _Block:
    part: dict[str, Any]
    arrays: dict[str, Matrix]
    levels: list[Any]


def _block(transformer: Any, columns: list[int]) -> _Block:
    steps = [
        step
        for step in (
            [step for _, step in transformer.steps]
            if isinstance(transformer, Pipeline)
            else [transformer]
        )
        if not _idle(step)
    ]
    part: dict[str, Any] = {"make": "take", "columns": columns}
    width = len(columns)
    if steps and isinstance(steps[0], Ratios):
        part["make"], width = "ratios", width // 2
        steps = steps[1:]
    elif steps and isinstance(steps[0], DateParts):
        parts = list(steps[0].parts)
        part |= {"make": "date_parts", "parts": parts}
        width *= len(parts)
        steps = steps[1:]
    arrays = {name: np.full(width, value) for name, value in NEUTRAL.items() if name != "level"}
    levels: list[Any] = [None] * width
    done = -1
    for step in steps:
        order, read = READABLE.get(type(step), (-1, None))
        if read is None:
            raise RefusedError(f"{type(step).__name__} has no own encoding")
        if order <= done:
            raise RefusedError(f"{type(step).__name__} has no own encoding at this place")
        done = order
        for name, array in read(step).items():
            if name == "level":
                levels = array
            elif array is not None:
                arrays[name] = np.asarray(array, dtype=np.float64)
    return _Block(part, arrays, levels)


def _idle(step: Any) -> bool:
    if isinstance(step, FunctionTransformer):
        return step.func is None
    return step is None or (isinstance(step, str) and step == "passthrough")


def _imputed(step: SimpleImputer) -> dict[str, Any]:
    fill = np.asarray(step.statistics_, dtype=np.float64)
    if step.add_indicator or not np.isnan(step.missing_values) or np.isnan(fill).any():
        raise RefusedError("SimpleImputer has no own encoding with these arguments")
    return {"fill": fill}


def _spread(step: MinMaxScaler) -> dict[str, Any]:
    if step.clip:
        raise RefusedError("MinMaxScaler(clip=True) has no own encoding")
    return {"multiply": step.scale_, "add": step.min_}


def _leveled(step: OneHotEncoder) -> dict[str, Any]:
    grouped = step.min_frequency is not None or step.max_categories is not None
    if step.handle_unknown != "ignore" or step.drop is not None or grouped:
        raise RefusedError("OneHotEncoder has no own encoding with these arguments")
    if any(np.isnan(categories).any() for categories in step.categories_):
        raise RefusedError("OneHotEncoder has no own encoding for missing values as a category")
    return {"level": list(step.categories_)}


READABLE: dict[type, tuple[int, Callable[[Any], dict[str, Any]]]] = {
    Clip: (0, lambda step: {"low": step.low_, "high": step.high_}),
    SimpleImputer: (1, _imputed),
    StandardScaler: (2, lambda step: {"subtract": step.mean_, "divide": step.scale_}),
    RobustScaler: (2, lambda step: {"subtract": step.center_, "divide": step.scale_}),
    MinMaxScaler: (2, _spread),
    OneHotEncoder: (3, _leveled),
}


def _reduction(step: PCA) -> dict[str, Matrix]:
    scale = np.ones(len(step.components_))
    if step.whiten:
        scale = np.maximum(np.sqrt(step.explained_variance_), np.spacing(1.0))
    offset = (step.mean_[None] @ step.components_.T)[0]
    return {"components": step.components_, "offset": offset, "scale": scale}


def _dense(pipeline: Pipeline) -> list[Candidate]:
    estimator = pipeline[-1]

    def planned(convert: Callable[[], bytes]) -> tuple[Plan, bytes]:
        encoder = encoder_of(pipeline)
        graph = _converted(convert)
        return in_onnx("dense", graph, pipeline, encoder), graph

    return [partial(planned, convert) for convert in _conversions(estimator)]


def _graph(pipeline: Pipeline) -> list[Candidate]:
    def planned(convert: Callable[[], bytes]) -> tuple[Plan, bytes]:
        graph = _converted(convert)
        return in_onnx("graph", graph, pipeline), graph

    return [partial(planned, partial(skl2onnx_graph, pipeline, double)) for double in (True, False)]


def _estimator(pipeline: Pipeline) -> list[Candidate]:
    def planned() -> tuple[Plan, None]:
        estimator = pipeline[-1]
        return Plan.of(estimator, encoder_of(pipeline)), None

    return [planned]


def _pipeline(pipeline: Pipeline) -> list[Candidate]:
    return [lambda: (Plan.of(pipeline), None)]


TIERS: dict[Tier, Callable[[Pipeline], list[Candidate]]] = {
    "dense": _dense,
    "graph": _graph,
    "estimator": _estimator,
    "pipeline": _pipeline,
}


def _conversions(estimator: Any) -> list[Callable[[], bytes]]:
    if type(estimator) in graphs.DRAWERS:
        return [partial(graphs.draw, estimator)]
    return [partial(skl2onnx_graph, estimator, double) for double in (True, False)]


def in_onnx(tier: Tier, graph: bytes, pipeline: Any, encoder: Encoder | None = None) -> Plan:
    """Plan an ONNX model that stands for a fitted pipeline, or for its estimator."""
    like = Plan.of(pipeline)
    try:
        session = Session(graph)
    except BundleError as error:
        raise RefusedError(str(error)) from error
    return Plan(tier, session, encoder, like.classes, like.offset)


def skl2onnx_graph(model: Any, double: bool) -> bytes:
    """Convert a fitted estimator or pipeline with skl2onnx; raises whatever that raises."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    graphs.require_size(model[-1] if isinstance(model, Pipeline) else model)
    kind = DoubleTensorType if double else FloatTensorType
    with warnings.catch_warnings():
        # It uses what scikit-learn and numpy are about to drop.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        converted = convert_sklearn(
            model,
            name="model",
            initial_types=[(graphs.INPUT, kind([None, model.n_features_in_]))],
            target_opset=SKL2ONNX_OPSETS,
            options={id(model): {"zipmap": False}} if hasattr(model, "predict_proba") else None,
        )
    serialized: bytes = converted.SerializeToString(deterministic=True)
    return serialized


def _converted(convert: Callable[[], bytes]) -> bytes:
    try:
        return convert()
    except CONVERSION_ERRORS as error:
        reason = " ".join(str(error).split())
        short = reason if len(reason) <= 200 else f"{reason[:200]} …"
        raise RefusedError(f"not converted: {type(error).__name__}: {short}") from error


class Gate:
    """Proof that a plan answers as a pipeline does, on held-out rows and on generated ones.

    Parameters
    ----------
    pipeline : sklearn Pipeline
        Fitted.
    contract : Contract
    matrix : ndarray, shape (n_rows, n_features)
        Rows that the pipeline was not fitted on.

    Attributes
    ----------
    rows : int
        How many rows a plan is compared on.
    """

    def __init__(self, pipeline: Pipeline, contract: Contract, matrix: Matrix) -> None:
        self.task = contract.task
        self.matrix, self.kinds = probes(pipeline, contract, matrix)
        self.expected = ask(pipeline, self.matrix)
        self.labels = pipeline.predict(self.matrix)
        self.classes = getattr(pipeline, "classes_", None)
        self.offset = Plan.of(pipeline).offset
        self.features = _at_thresholds(pipeline, matrix)
        self.expected_of_features = (
            ask(pipeline[-1], self.features) if len(self.features) else self.features
        )
        self.rows = len(self.matrix) + len(self.features)

    def prove(self, plan: Plan) -> float:
        """Return the largest difference; raise RefusedError, saying where, if it is too large.

        Numbers are compared relatively, probabilities and scores absolutely, distances relatively
        where they are more than 1.
        """
        try:
            values = plan.values(self.matrix)
            difference = self._difference(self.expected, values, self.kinds)
            self.check_labels(values)
            if plan.encoder and len(self.features):
                values = plan.estimate(self.features)
                kinds = np.full(len(values), "at thresholds")
                exact = self._difference(self.expected_of_features, values, kinds)
                difference = max(difference, exact)
        # pylint: disable-next=catching-non-exception
        except onnxruntime_errors() as error:
            # pylint: disable-next=bad-exception-cause
            raise RefusedError(f"not run: {' '.join(str(error).split())}") from error
        return difference

    def _difference(self, expected: Matrix, values: Matrix, kinds: Any) -> float:
        if expected.shape != values.shape:
            raise RefusedError(f"answers of shape {values.shape} instead of {expected.shape}")
        apart = np.abs(expected - values)
        if self.task == "regression":
            apart = np.divide(apart, np.abs(expected), out=apart, where=apart > 0)
        elif self.task == "clustering":
            apart = apart / np.maximum(1.0, np.abs(expected))
        apart = np.where(np.isnan(apart), np.inf, apart)
        worst = apart if apart.ndim == 1 else apart.max(axis=1)
        _refuse("differs", worst > TOLERANCE, kinds, float(worst.max()))
        return float(worst.max())

    def check_labels(self, values: Matrix) -> None:
        """Raise RefusedError for labels that differ, but where scikit-learn is between the two."""
        if self.task == "regression":
            return
        every = np.arange(len(values))
        if self.offset is not None:
            given = np.where(-values - self.offset < 0, -1, 1)
            tied = np.abs(-self.expected - self.offset) <= TOLERANCE
        elif self.task == "clustering":
            given = values.argmin(axis=1)
            there, here = self.expected[every, self.labels], self.expected[every, given]
            tied = np.abs(there - here) <= TOLERANCE * np.maximum(1.0, there)
        else:
            classes = np.asarray(self.classes)
            column = values.argmax(axis=1)
            given = classes[column]
            own = np.searchsorted(classes, self.labels)
            tied = np.abs(self.expected[every, own] - self.expected[every, column]) <= TOLERANCE
        _refuse("other labels", (given != self.labels) & ~tied, self.kinds)


def _refuse(what: str, bad: Any, kinds: Any, most: float | None = None) -> None:
    if bad.any():
        by = "" if most is None else f" by up to {most:.1g}"
        on = ", ".join(dict.fromkeys(kinds[bad].tolist()))
        raise RefusedError(f"{what}{by} in {bad.sum():,} of {len(bad):,} rows: {on}")


def probes(pipeline: Pipeline, contract: Contract, matrix: Matrix) -> tuple[Matrix, Any]:
    """Make the rows on which a plan has to answer as the pipeline does.

    Returns
    -------
    rows : ndarray, shape (n_probes, n_features)
        Held-out rows, and such rows with one value replaced: missing, an unseen category, far
        outside of the range, on both sides of a threshold of the model.
    kinds : ndarray of str, shape (n_probes,)
        Which of these each row is.
    """
    held_out = matrix[_spaced(len(matrix), HELD_OUT_ROWS)]
    bases = matrix[_spaced(len(matrix), BASES)]
    rows, kinds = [held_out], ["held out"] * len(held_out)

    def replace(position: int, values: Any, kind: str, times: int) -> None:
        values = np.repeat(np.asarray(values, dtype=np.float64), times)
        changed = bases[np.arange(len(values)) % len(bases)].copy()
        changed[:, position] = values
        rows.append(changed)
        kinds.extend([kind] * len(changed))

    for position, column in enumerate(contract.features):
        if column.nullable:
            replace(position, [np.nan], "missing", len(bases))
        if column.kind == "categorical":
            replace(position, [UNSEEN], "unseen", len(bases))
            replace(position, range(len(column.categories)), "every category", 3)
        elif column.kind == "boolean":
            replace(position, [0.0, 1.0], "every category", 3)
        else:
            replace(position, _extremes(column, matrix[:, position]), "extreme", 5)
    nullable = [position for position, c in enumerate(contract.features) if c.nullable]
    empty = bases.copy()
    empty[:, nullable] = np.nan
    rows.append(empty)
    kinds.extend(["missing"] * len(empty))
    for position, thresholds in _raw_thresholds(pipeline).items():
        replace(position, _neighbours(thresholds), "at thresholds", 1)
    together = np.concatenate(rows)
    # Forests of scikit-learn answer nothing beyond single precision, so there is nothing to equal.
    kept = ~(np.abs(_encoded(pipeline, together)) > SINGLE_MAX).any(axis=1)
    return together[kept], np.array(kinds)[kept]


def _spaced(size: int, most: int) -> Any:
    return np.unique(np.linspace(0, size - 1, min(size, most)).astype(int))


def _encoded(pipeline: Pipeline, matrix: Matrix) -> Matrix:
    before = pipeline[:-1]
    return np.asarray(before.transform(matrix)) if len(before.steps) else matrix


def _extremes(column: Column, values: Matrix) -> list[float]:
    given = values[~np.isnan(values)]
    low, high = (float(given.min()), float(given.max())) if len(given) else (0.0, 0.0)
    width = high - low or 1.0
    if column.kind == "datetime":
        return [low, high, low - width, high + width, 0.0, -1.0, YEAR_1, YEAR_9999]
    ends = [low - 1e6 * width, low - width, low, 0.0, high, high + width, high + 1e6 * width]
    if column.kind == "integer":
        ends = [float(np.rint(end)) for end in ends]
    return [-1e30, *ends, 1e30]


def _thresholds(pipeline: Pipeline) -> dict[int, Matrix]:
    """Return, for each feature of the estimator, some of the thresholds that its trees have."""
    try:
        members = graphs.trees(pipeline[-1])
    except graphs.InexpressibleError:
        return {}
    if not members:
        return {}
    inner = [~tree.leaf for tree in members]
    features = np.concatenate([tree.feature[at] for tree, at in zip(members, inner, strict=True)])
    values = np.concatenate([tree.threshold[at] for tree, at in zip(members, inner, strict=True)])
    known = np.unique(np.column_stack([features, values])[np.abs(values) < SINGLE_MAX], axis=0)
    known = known[_spaced(len(known), THRESHOLDS)]
    return {int(feature): known[known[:, 0] == feature, 1] for feature in np.unique(known[:, 0])}


def _at_thresholds(pipeline: Pipeline, matrix: Matrix) -> Matrix:
    """Return encoded rows, shape (n_probes, n_features), with one value beside a threshold."""
    bases = _encoded(pipeline, matrix[_spaced(len(matrix), BASES)])
    found = [bases[:0]]
    for feature, thresholds in _thresholds(pipeline).items():
        values = _neighbours(thresholds)
        rows = bases[np.arange(len(values)) % len(bases)].copy()
        rows[:, feature] = values
        found.append(rows)
    return np.concatenate(found)


def _raw_thresholds(pipeline: Pipeline) -> dict[int, Matrix]:
    """Return thresholds in the units of the contract's columns, where these have any."""
    try:
        encoder = encoder_of(pipeline)
    except RefusedError:
        return {}
    if encoder.reductions:
        return {}
    sources: list[int | None] = []
    for part in encoder.parts:
        width = len(part["columns"]) // (2 if part["make"] == "ratios" else 1)
        taken = part["make"] == "take"
        sources += part["columns"] if taken else [None] * (width * len(part.get("parts", "1")))
    found: dict[int, list[Matrix]] = {}
    for feature, thresholds in _thresholds(pipeline).items():
        column = feature if encoder.owner is None else int(encoder.owner[feature])
        hot = encoder.level is not None and not np.isnan(encoder.level[feature])
        source = sources[column]
        if source is None or hot:
            continue
        values = thresholds
        for name, undo in (
            ("add", np.subtract),
            ("multiply", np.divide),
            ("divide", np.multiply),
            ("subtract", np.add),
        ):
            if name in encoder.arrays:
                values = undo(values, encoder.arrays[name][column])
        found.setdefault(source, []).append(values)
    return {source: np.concatenate(values) for source, values in found.items()}


def _neighbours(values: Matrix) -> Matrix:
    single = values.astype(np.float32)
    infinity = np.float32(np.inf)
    return np.concatenate(
        [
            values,
            np.nextafter(values, np.inf),
            np.nextafter(values, -np.inf),
            single.astype(np.float64),
            np.nextafter(single, infinity).astype(np.float64),
            np.nextafter(single, -infinity).astype(np.float64),
        ]
    )
