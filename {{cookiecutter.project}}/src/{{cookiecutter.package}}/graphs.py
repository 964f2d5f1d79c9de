"""Graphs: fitted estimators as ONNX with one dense input, in double precision throughout."""

# What scikit-learn has learned stands in part under private names alone.
# pylint: disable=protected-access

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.cluster import KMeans
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge

from .encoding import Matrix

OPSETS = {"": 18, "ai.onnx.ml": 5}
# The last that has the older operators for trees.
ML_OF_OLD_TREES = 3
IR_VERSION = 10
ML = "ai.onnx.ml"
INPUT, ANSWER = "features", "answer"
LEQ, SUM = 0, 1
# A graph of more is refused: protobuf holds 2 GB, and drawing takes a kilobyte a node.
MOST_NODES = 4_000_000
# Trees that stay in the processor's cache while all rows walk through them: three times as fast as
# every row walking through all trees of a large forest.
NODES_AT_ONCE = 32_768


class InexpressibleError(Exception):
    """There is no graph for a fitted estimator."""


class Graph:
    """An ONNX graph while it is drawn.

    Parameters
    ----------
    width : int
        Columns of its input.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.opsets = dict(OPSETS)

    def constant(self, value: Any) -> str:
        """Keep an array and return its name."""
        from onnx import numpy_helper

        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Apply an operator and return the name of what comes out."""
        from onnx import helper

        name = f"{operator}_{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(operator, inputs, [name], name, domain=domain, **attributes)
        )
        return name

    def finish(self, result: str, columns: int) -> bytes:
        """Return the model whose answer is `result`."""
        from onnx import TensorProto, helper

        self.nodes.append(helper.make_node("Identity", [result], [ANSWER], ANSWER))
        graph = helper.make_graph(
            self.nodes,
            "estimator",
            [helper.make_tensor_value_info(INPUT, TensorProto.DOUBLE, [None, self.width])],
            [helper.make_tensor_value_info(ANSWER, TensorProto.DOUBLE, [None, columns])],
            self.constants,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid(domain, at) for domain, at in self.opsets.items()],
            ir_version=IR_VERSION,
            producer_name="",
        )
        serialized: bytes = model.SerializeToString(deterministic=True)
        return serialized


@dataclass(frozen=True)
class Tree:
    """A fitted tree; rows whose value is at most the threshold go left.

    Attributes
    ----------
    feature, left, right : ndarray of int, shape (n_nodes,)
    threshold : ndarray of float, shape (n_nodes,)
        For the values as they come, in double precision.
    missing_left, leaf : ndarray of bool, shape (n_nodes,)
    values : ndarray of float, shape (n_nodes, n_targets)
        What a leaf adds to the answer.
    """

    feature: Any
    threshold: Matrix
    left: Any
    right: Any
    missing_left: Any
    leaf: Any
    values: Matrix


def draw(estimator: Any) -> bytes:
    """Return the ONNX model of a fitted estimator; raise InexpressibleError where there is none.

    Its one input is ``features``, double (n_rows, n_features); its one output ``answer`` what
    `plan.Plan` calls values.
    """
    drawer = DRAWERS.get(type(estimator))
    if drawer is None:
        raise InexpressibleError(f"{type(estimator).__name__} has no graph of its own")
    require_size(estimator)
    graph = Graph(estimator.n_features_in_)
    return graph.finish(*drawer(graph, estimator))


def require_size(estimator: Any) -> None:
    """Raise InexpressibleError for a forest that is too large for a graph."""
    members = getattr(estimator, "estimators_", ())
    nodes = sum(each.tree_.node_count for each in members if hasattr(each, "tree_"))
    if nodes > MOST_NODES:
        raise InexpressibleError(f"{nodes:,} nodes of trees; a graph holds at most {MOST_NODES:,}")


def trees(estimator: Any) -> list[Tree]:
    """Return the trees of a fitted estimator; none for what is made of something else."""
    reader = READERS.get(type(estimator))
    return reader(estimator) if reader else []


def at_most(threshold: Matrix) -> Matrix:
    """Return the largest doubles that, rounded to single precision, are at most a threshold.

    Scikit-learn's forests round their input to single precision and compare it with thresholds in
    double precision. Comparing the unrounded input with these instead gives the same side.
    """
    single = threshold.astype(np.float32)
    single = np.where(single > threshold, np.nextafter(single, np.float32(-np.inf)), single)
    above = np.nextafter(single, np.float32(np.inf)).astype(np.float64)
    middle = (single.astype(np.float64) + above) / 2
    # What lies in the middle is rounded to the neighbour whose last bit is zero.
    even = single.view(np.int32) % 2 == 0
    return np.where(even, middle, np.nextafter(middle, -np.inf))


def _forest(estimator: Any) -> list[Tree]:
    count = len(estimator.estimators_)
    first = 1 if getattr(estimator, "n_classes_", None) == 2 else 0
    return [
        _tree(each.tree_, each.tree_.value[:, 0, first:] / count) for each in estimator.estimators_
    ]


def _isolation(estimator: Any) -> list[Tree]:
    paths = zip(
        estimator.estimators_,
        estimator.estimators_features_,
        estimator._decision_path_lengths,
        estimator._average_path_length_per_tree,
        strict=True,
    )
    return [
        _tree(each.tree_, (depths + rest - 1.0)[:, None], np.asarray(features))
        for each, features, depths, rest in paths
    ]


def _tree(tree: Any, values: Matrix, features: Any = None) -> Tree:
    leaf = tree.children_left < 0
    feature = np.where(leaf, 0, tree.feature)
    return Tree(
        feature if features is None else features[feature],
        at_most(np.where(leaf, 0.0, tree.threshold)),
        tree.children_left,
        tree.children_right,
        tree.missing_go_to_left.astype(bool),
        leaf,
        values,
    )


def _boosted(estimator: Any) -> list[Tree]:
    found = []
    for stage in estimator._predictors:
        for target, predictor in enumerate(stage):
            nodes = predictor.nodes
            if nodes["is_categorical"].any():
                raise InexpressibleError("splits on native categories have no graph")
            leaf = nodes["is_leaf"].astype(bool)
            values = np.zeros((len(nodes), len(stage)))
            values[:, target] = np.where(leaf, nodes["value"], 0.0)
            found.append(
                Tree(
                    nodes["feature_idx"],
                    nodes["num_threshold"],
                    nodes["left"],
                    nodes["right"],
                    nodes["missing_go_to_left"].astype(bool),
                    leaf,
                    values,
                )
            )
    return found


READERS: dict[type, Callable[[Any], list[Tree]]] = {
    ExtraTreesClassifier: _forest,
    ExtraTreesRegressor: _forest,
    HistGradientBoostingClassifier: _boosted,
    HistGradientBoostingRegressor: _boosted,
    IsolationForest: _isolation,
    RandomForestClassifier: _forest,
    RandomForestRegressor: _forest,
}


def _sum_of_trees(graph: Graph, members: Sequence[Tree]) -> str:
    """Sum what the leaves say, shape (n_rows, n_targets), by one operator for some trees each."""
    before = np.cumsum([0, *(len(tree.feature) for tree in members[:-1])])
    starts = np.unique(before // NODES_AT_ONCE, return_index=True)[1].tolist()
    sums = [
        _leaves(graph, members[start:end])
        for start, end in zip(starts, [*starts[1:], len(members)], strict=True)
    ]
    return graph.add("Sum", *sums) if len(sums) > 1 else sums[0]


def _leaves(graph: Graph, members: Sequence[Tree]) -> str:
    """Add an operator that sums the leaves of trees."""
    if all((tree.values[tree.leaf] != 0).sum(axis=1).max() <= 1 for tree in members):
        return _one_target_a_leaf(graph, members)
    return _many_targets_a_leaf(graph, members)


def _one_target_a_leaf(graph: Graph, members: Sequence[Tree]) -> str:
    """Use the operator of ai.onnx.ml 5, which is in double precision from input to output."""
    from onnx import numpy_helper

    columns: dict[str, list[Any]] = {
        name: []
        for name in ("feature", "threshold", "missing", "true", "true_leaf", "false", "false_leaf")
    }
    roots, targets, weights, nodes, leaves = [], [], [], 0, 0
    for tree in members:
        inner = np.flatnonzero(~tree.leaf)
        # The number of each node among its kind.
        number = np.where(
            tree.leaf, leaves + np.cumsum(tree.leaf) - 1, nodes + np.cumsum(~tree.leaf) - 1
        )
        left, right = tree.left[inner], tree.right[inner]
        if inner.size == 0:
            # A tree that is one leaf: both sides lead to it.
            inner = left = right = np.array([0])
        columns["feature"].append(tree.feature[inner])
        columns["threshold"].append(np.where(tree.leaf[inner], 0.0, tree.threshold[inner]))
        columns["missing"].append(tree.missing_left[inner])
        for side, child in (("true", left), ("false", right)):
            columns[side].append(number[child])
            columns[f"{side}_leaf"].append(tree.leaf[child])
        values = tree.values[tree.leaf]
        target = (values != 0).argmax(axis=1)
        targets.append(target)
        weights.append(values[np.arange(len(values)), target])
        roots.append(nodes)
        nodes, leaves = nodes + len(inner), leaves + len(values)
    joined = {name: np.concatenate(arrays) for name, arrays in columns.items()}
    return graph.add(
        "TreeEnsemble",
        INPUT,
        domain=ML,
        aggregate_function=SUM,
        n_targets=members[0].values.shape[1],
        tree_roots=roots,
        nodes_modes=numpy_helper.from_array(np.full(nodes, LEQ, dtype=np.uint8)),
        nodes_featureids=_integers(joined["feature"]),
        nodes_splits=numpy_helper.from_array(joined["threshold"].astype(np.float64)),
        nodes_missing_value_tracks_true=_integers(joined["missing"]),
        nodes_truenodeids=_integers(joined["true"]),
        nodes_trueleafs=_integers(joined["true_leaf"]),
        nodes_falsenodeids=_integers(joined["false"]),
        nodes_falseleafs=_integers(joined["false_leaf"]),
        leaf_targetids=_integers(np.concatenate(targets)),
        leaf_weights=numpy_helper.from_array(np.concatenate(weights).astype(np.float64)),
    )


def _many_targets_a_leaf(graph: Graph, members: Sequence[Tree]) -> str:
    """Use the older operator: thresholds and weights are double, its output is single."""
    from onnx import TensorProto, numpy_helper

    sizes = [len(tree.leaf) for tree in members]
    leaf = np.concatenate([tree.leaf for tree in members])
    values = np.concatenate([tree.values for tree in members])
    tree_ids = np.repeat(np.arange(len(members)), sizes)
    node_ids = np.concatenate([np.arange(size) for size in sizes])

    def inner(name: str) -> Any:
        return np.where(leaf, 0, np.concatenate([getattr(tree, name) for tree in members]))

    graph.opsets[ML] = ML_OF_OLD_TREES
    at, target = np.nonzero(np.where(leaf[:, None], values, 0.0))
    result = graph.add(
        "TreeEnsembleRegressor",
        INPUT,
        domain=ML,
        aggregate_function="SUM",
        n_targets=values.shape[1],
        nodes_treeids=_integers(tree_ids),
        nodes_nodeids=_integers(node_ids),
        nodes_modes=["LEAF" if each else "BRANCH_LEQ" for each in leaf.tolist()],
        nodes_featureids=_integers(inner("feature")),
        nodes_values_as_tensor=numpy_helper.from_array(inner("threshold").astype(np.float64)),
        nodes_missing_value_tracks_true=_integers(inner("missing_left")),
        nodes_truenodeids=_integers(inner("left")),
        nodes_falsenodeids=_integers(inner("right")),
        target_treeids=_integers(tree_ids[at]),
        target_nodeids=_integers(node_ids[at]),
        target_ids=_integers(target),
        target_weights_as_tensor=numpy_helper.from_array(values[at, target]),
    )
    return graph.add("Cast", result, to=TensorProto.DOUBLE)


def _integers(array: Any) -> list[int]:
    numbers: list[int] = array.astype(np.int64).tolist()
    return numbers


def _with_complement(graph: Graph, positive: str) -> tuple[str, int]:
    negative = graph.add("Sub", graph.constant(np.array([[1.0]])), positive)
    return graph.add("Concat", negative, positive, axis=1), 2


def _draw_forest(graph: Graph, estimator: Any) -> tuple[str, int]:
    members = _forest(estimator)
    answer, targets = _sum_of_trees(graph, members), members[0].values.shape[1]
    if getattr(estimator, "n_classes_", None) == 2:
        return _with_complement(graph, answer)
    return answer, targets


def _draw_isolation(graph: Graph, estimator: Any) -> tuple[str, int]:
    """Liu, Ting and Zhou (2008), Isolation Forest, ICDM, equation 2."""
    from sklearn.ensemble._iforest import _average_path_length

    depth = _sum_of_trees(graph, _isolation(estimator))
    usual = len(estimator.estimators_) * _average_path_length([estimator._max_samples])
    exponent = graph.add("Div", depth, graph.constant(-usual[None]))
    return graph.add("Pow", graph.constant(np.array([[2.0]])), exponent), 1


def _draw_boosted(graph: Graph, estimator: Any) -> tuple[str, int]:
    baseline = graph.constant(np.asarray(estimator._baseline_prediction, dtype=np.float64))
    raw = graph.add("Add", _sum_of_trees(graph, _boosted(estimator)), baseline)
    link = type(estimator._loss.link).__name__
    match link:
        case "IdentityLink":
            return raw, 1
        case "LogLink":
            return graph.add("Exp", raw), 1
        case "LogitLink":
            return _with_complement(graph, graph.add("Sigmoid", raw))
        case "MultinomialLogit":
            return graph.add("Softmax", raw, axis=1), estimator.n_trees_per_iteration_
    raise InexpressibleError(f"the link {link} has no graph")


def _draw_linear(graph: Graph, estimator: Any) -> tuple[str, int]:
    weights = np.atleast_2d(estimator.coef_).astype(np.float64)
    product = graph.add("MatMul", INPUT, graph.constant(weights.T))
    intercept = np.atleast_1d(np.asarray(estimator.intercept_, dtype=np.float64))
    return graph.add("Add", product, graph.constant(intercept)), len(weights)


def _draw_logistic(graph: Graph, estimator: Any) -> tuple[str, int]:
    decision, count = _draw_linear(graph, estimator)
    if count == 1:
        return _with_complement(graph, graph.add("Sigmoid", decision))
    return graph.add("Softmax", decision, axis=1), count


def _draw_centres(graph: Graph, estimator: Any) -> tuple[str, int]:
    """Distances from the centres, in the way that scikit-learn's `euclidean_distances` rounds."""
    centres = estimator.cluster_centers_.astype(np.float64)
    squares = graph.add("ReduceSumSquare", INPUT, graph.constant(np.array([1])), keepdims=1)
    products = graph.add("MatMul", INPUT, graph.constant(-2 * centres.T))
    sums = graph.add("Add", products, squares)
    sums = graph.add("Add", sums, graph.constant((centres**2).sum(axis=1)[None]))
    sums = graph.add("Max", sums, graph.constant(np.array([[0.0]])))
    return graph.add("Sqrt", sums), len(centres)


DRAWERS: dict[type, Callable[[Graph, Any], tuple[str, int]]] = {
    ExtraTreesClassifier: _draw_forest,
    ExtraTreesRegressor: _draw_forest,
    HistGradientBoostingClassifier: _draw_boosted,
    HistGradientBoostingRegressor: _draw_boosted,
    IsolationForest: _draw_isolation,
    KMeans: _draw_centres,
    LinearRegression: _draw_linear,
    LogisticRegression: _draw_logistic,
    RandomForestClassifier: _draw_forest,
    RandomForestRegressor: _draw_forest,
    Ridge: _draw_linear,
}
