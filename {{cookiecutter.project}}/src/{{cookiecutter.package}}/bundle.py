"""A bundle: the directory that holds one model version, all that serving needs and nothing else.

``model.onnx`` is the model, or ``model.skops`` where no ONNX was proven equal, ``plan.json`` how it
is run, ``contract.json`` what it takes, ``card.json`` what is known of it, ``reference.json`` what
its training data looked like, ``examples.json`` a few held-out rows with their answers. Monitoring
compares with ``reference.npz``, a sample of every column, which the service does not load.
"""

import hashlib
import io
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np

from . import contract as contracts
from .artifacts import replacing, sha256, write_json
from .contract import Contract
from .encoding import Matrix
from .errors import BundleError, ContractError
from .plan import IN_ONNX, Plan, Session, ask

SKOPS, ONNX, PLAN = "model.skops", "model.onnx", "plan.json"
CONTRACT, CARD = "contract.json", "card.json"
REFERENCE, EXAMPLES, SAMPLE = "reference.json", "examples.json", "reference.npz"
# Another machine may round the last digits its own way.
TOLERANCE = 1e-6

# skops loads nothing that it does not know to be harmless: these are ours, and the parts of our
# estimators that it has no verdict on.
TRUSTED = frozenset(
    [
        *(f"{__package__}.preprocessing.{name}" for name in ("Clip", "DateParts", "Ratios")),
        "numpy.dtype",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.tree._tree.Tree",
    ]
)


def dump_model(pipeline: Any, path: Path) -> None:
    """Store a fitted pipeline; raise BundleError where serving would refuse to load it.

    The same pipeline always gives the same bytes.
    """
    import skops.io

    stored = canonical(skops.io.dumps(pipeline))
    if unknown := sorted(set(skops.io.get_untrusted_types(data=stored)) - TRUSTED):
        raise BundleError(f"the model holds types that are not in bundle.TRUSTED: {unknown}")
    with replacing(path) as unfinished:
        unfinished.write_bytes(stored)


def canonical(stored: bytes) -> bytes:
    """Free a skops file of what changes from process to process.

    skops names arrays and objects by their addresses in memory, ZIP stores the time of writing,
    and the gaps between the fields of a structured array hold whatever was there before.
    """
    names: dict[str, str] = {}
    numbers: dict[int, int] = {}
    fresh = count()

    def renamed(node: Any) -> Any:
        if isinstance(node, list):
            return [renamed(item) for item in node]
        if not isinstance(node, dict):
            return node
        node = {key: renamed(value) for key, value in node.items()}
        if "__loader__" in node:
            if "__id__" in node:
                node["__id__"] = numbers.setdefault(node["__id__"], next(fresh))
            if isinstance(node.get("file"), str):
                suffix = Path(node["file"]).suffix
                node["file"] = names.setdefault(node["file"], f"{len(names)}{suffix}")
        return node

    result = io.BytesIO()
    with ZipFile(io.BytesIO(stored)) as source, ZipFile(result, "w", ZIP_STORED) as target:
        schema = renamed(json.loads(source.read("schema.json")))
        for old, new in names.items():
            content = source.read(old)
            if new.endswith(".npy"):
                content = _without_gaps(content)
            target.writestr(ZipInfo(new), content)
        target.writestr(ZipInfo("schema.json"), json.dumps(schema))
    return result.getvalue()


def _without_gaps(content: bytes) -> bytes:
    array = np.load(io.BytesIO(content), allow_pickle=False)
    if not array.dtype.names:
        return content
    clean = np.zeros(array.shape, array.dtype)
    for name in array.dtype.names:
        clean[name] = array[name]
    result = io.BytesIO()
    np.save(result, clean, allow_pickle=False)
    return result.getvalue()


def load_model(path: Path, made: str | None = None) -> Any:
    """Load a pipeline, building only types that are trusted.

    Parameters
    ----------
    path : Path
    made : str or None
        The scikit-learn that it was made with, if it may be another one than is installed.

    Raises
    ------
    BundleError
        Where there is none, it is refused, or scikit-learn is not installed or another release.
    """
    try:
        import skops.io
        from sklearn import __version__ as here
        from skops.io.exceptions import UntrustedTypesFoundException
    except ImportError as error:
        raise BundleError(
            f"{path} needs {error.name}, which is not installed: "
            "install the dependency group sklearn as well"
        ) from error
    if made and made.split(".")[:2] != here.split(".")[:2]:
        raise BundleError(f"{path} was made with scikit-learn {made}, here is {here}: retrain")
    try:
        return skops.io.load(path, trusted=sorted(TRUSTED))
    except FileNotFoundError as error:
        raise BundleError(f"{path} not found: run the train step first") from error
    except UntrustedTypesFoundException as error:
        raise BundleError(f"{path} is refused: {error}") from error


def write(
    path: Path,
    plan: Plan,
    model: bytes,
    contract: Contract,
    card: dict[str, Any],
    parts: Mapping[str, Any],
) -> dict[str, Any]:
    """Write a bundle beside `path` and swap it in when it is complete.

    Parameters
    ----------
    path : Path
        The bundle directory; an older one is replaced.
    plan : Plan
        How the model is run.
    model : bytes
        The ONNX graph of the plan, or the stored pipeline where it has none.
    contract : Contract
    card : dict
    parts : mapping
        Its other files by name: bytes as they are, anything else as JSON.

    Returns
    -------
    dict
        The card, completed by version and file hashes.
    """
    fresh = _beside(path)
    fresh.mkdir(parents=True)
    name = model_file(plan.tier)
    (fresh / name).write_bytes(model)
    write_json(plan.content(), fresh / PLAN)
    contracts.write(contract, fresh / CONTRACT)
    for each, content in parts.items():
        if isinstance(content, bytes):
            (fresh / each).write_bytes(content)
        else:
            write_json(content, fresh / each)
    hashes = {each: sha256(fresh / each) for each in (name, PLAN, CONTRACT, *parts)}
    decisive = "".join(hashes[each] for each in (name, PLAN, CONTRACT))
    version = hashlib.sha256(decisive.encode()).hexdigest()[:12]
    card = {"name": card["name"], "version": version, **card, "files": hashes}
    write_json(card, fresh / CARD)
    _swap(fresh, path)
    return card


def copy(source: Path, path: Path) -> dict[str, Any]:
    """Copy a bundle beside `path` and swap it in when it is complete; return its card.

    Raises
    ------
    BundleError
        Where the copy is not what the card was written for; an older bundle stays.
    """
    fresh = _beside(path)
    shutil.copytree(source, fresh, copy_function=shutil.copyfile)
    card = verify(fresh)
    _swap(fresh, path)
    return card


def _beside(path: Path) -> Path:
    """Return the place of a new bundle, free of what a killed process left."""
    fresh = path.with_name(f"{path.name}.new")
    for leftover in (fresh, path.with_name(f"{path.name}.old")):
        shutil.rmtree(leftover, ignore_errors=True)
    return fresh


def _swap(fresh: Path, path: Path) -> None:
    old = path.with_name(f"{path.name}.old")
    if path.exists():
        os.rename(path, old)
    os.rename(fresh, path)
    shutil.rmtree(old, ignore_errors=True)


def model_file(tier: str) -> str:
    """Return the name of the file that holds the model of a tier."""
    return ONNX if tier in IN_ONNX else SKOPS


def missing(path: Path) -> BundleError:
    """Say that there is no bundle, and the way to one."""
    return BundleError(f"no bundle in {path}: run `make pipeline`, or set serving.bundle")


def files(path: Path) -> list[str]:
    """Return the names of the files beside the card, as the card has them."""
    with _explained(path):
        names = list(json.loads((path / CARD).read_text(encoding="utf-8"))["files"])
        if elsewhere := [name for name in names if name in (".", "..") or Path(name).name != name]:
            raise ValueError(f"{elsewhere[0]!r} is no name of a file")
    return names


def verify(path: Path) -> dict[str, Any]:
    """Return the card of a bundle.

    Raises
    ------
    BundleError
        Where a file is missing, or not what the card was written for.
    """
    if not (path / CARD).is_file():
        raise missing(path)
    with _explained(path):
        card: dict[str, Any] = json.loads((path / CARD).read_text(encoding="utf-8"))
        for name, sealed in card["files"].items():
            if sha256(path / name) != sealed:
                raise BundleError(f"{path / name} was altered after the bundle was written")
    return card


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise BundleError(f"bundle {path} is incomplete: {error.filename} is missing") from error
    except (ValueError, KeyError, TypeError, AttributeError, ContractError) as error:
        raise BundleError(f"bundle {path} is damaged: {error}") from error


def read(path: Path) -> tuple[Contract, Plan, dict[str, Any], list[dict[str, Any]]]:
    """Read a bundle; scikit-learn is needed only where its plan is not in ONNX.

    Returns
    -------
    contract, plan, card, examples

    Raises
    ------
    BundleError
        Where it is missing, incomplete, altered, or made with other libraries.
    """
    card = verify(path)
    with _explained(path):
        examples = json.loads((path / EXAMPLES).read_text(encoding="utf-8"))
        contract = contracts.read(path / CONTRACT)
        content = json.loads((path / PLAN).read_text(encoding="utf-8"))
        tier, libraries = content["tier"], card["libraries"]
        in_onnx = tier in IN_ONNX
        made = libraries["onnxruntime" if in_onnx else "scikit-learn"]
    estimate = _session(path, made) if in_onnx else _fitted(path, tier, made)
    return contract, Plan.from_content(content, estimate), card, examples


def same(stored: Any, given: Any) -> bool:
    """Say whether a part of an answer is the stored one, but for the last digits of its numbers."""
    if isinstance(stored, dict) and isinstance(given, dict):
        return stored.keys() == given.keys() and all(
            same(value, given[name]) for name, value in stored.items()
        )
    if isinstance(stored, float) or isinstance(given, float):
        if stored is None or given is None:
            return False
        return math.isclose(stored, given, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return bool(stored == given)


def _session(path: Path, made: str) -> Session:
    import onnxruntime

    here = onnxruntime.__version__
    if _release(here) < _release(made) or _release(here)[0] != _release(made)[0]:
        raise BundleError(
            f"bundle {path} was made with onnxruntime {made}, here is {here}: "
            f"install onnxruntime {made}, or retrain"
        )
    return Session(path / ONNX)


def _fitted(path: Path, tier: str, made: str) -> Callable[[Matrix], Matrix]:
    model = load_model(path / SKOPS, made)
    return partial(ask, model if tier == "pipeline" else model[-1])


def _release(version: str) -> list[int]:
    return [int(number) for number in version.split(".")[:2]]
