"""A bundle: the directory that holds one model version, all that serving needs and nothing else.

``model.skops`` is the fitted pipeline, ``contract.json`` what it takes, ``card.json`` what is known
of it, ``reference.json`` what its training data looked like, ``examples.json`` a few held-out rows
with their answers.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import sklearn
import skops.io
from skops.io.exceptions import UntrustedTypesFoundException

from . import contract as contracts
from .artifacts import sha256, write_json
from .contract import Contract
from .errors import BundleError, ContractError

MODEL, CONTRACT, CARD = "model.skops", "contract.json", "card.json"
REFERENCE, EXAMPLES = "reference.json", "examples.json"
SEALED = (MODEL, CONTRACT, REFERENCE, EXAMPLES)

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
    """Store a fitted pipeline; raise BundleError where serving would refuse to load it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    skops.io.dump(pipeline, path)
    if unknown := sorted(set(skops.io.get_untrusted_types(file=path)) - TRUSTED):
        path.unlink()
        raise BundleError(f"the model holds types that are not in bundle.TRUSTED: {unknown}")


def load_model(path: Path) -> Any:
    """Load a pipeline, building only types that are trusted."""
    try:
        return skops.io.load(path, trusted=sorted(TRUSTED))
    except FileNotFoundError as error:
        raise BundleError(f"{path} not found: run the train step first") from error
    except UntrustedTypesFoundException as error:
        raise BundleError(f"{path} is refused: {error}") from error


def write(
    path: Path,
    model: Path,
    contract: Contract,
    card: dict[str, Any],
    reference: dict[str, Any],
    examples: list[dict[str, Any]],
) -> dict[str, Any]:
    """Write a bundle beside `path` and swap it in when it is complete.

    Parameters
    ----------
    path : Path
        The bundle directory; an older one is replaced.
    model : Path
        The stored pipeline.
    contract, card, reference, examples
        Its other parts.

    Returns
    -------
    dict
        The card, completed by version and file hashes.
    """
    fresh, old = path.with_name(f"{path.name}.new"), path.with_name(f"{path.name}.old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir(parents=True)
    shutil.copyfile(model, fresh / MODEL)
    contracts.write(contract, fresh / CONTRACT)
    write_json(reference, fresh / REFERENCE)
    write_json(examples, fresh / EXAMPLES)
    hashes = {name: sha256(fresh / name) for name in SEALED}
    version = hashlib.sha256((hashes[MODEL] + hashes[CONTRACT]).encode()).hexdigest()[:12]
    card = {"name": card["name"], "version": version, **card, "files": hashes}
    write_json(card, fresh / CARD)
    if path.exists():
        os.rename(path, old)
    os.rename(fresh, path)
    shutil.rmtree(old, ignore_errors=True)
    return card


def read(path: Path) -> tuple[Contract, Any, dict[str, Any], list[dict[str, Any]]]:
    """Read a bundle.

    Returns
    -------
    contract, pipeline, card, examples

    Raises
    ------
    BundleError
        Where it is missing, incomplete, altered, or made with another scikit-learn.
    """
    if not (path / CARD).is_file():
        raise BundleError(f"no bundle in {path}: run `make pipeline`, or set serving.bundle")
    try:
        card = json.loads((path / CARD).read_text(encoding="utf-8"))
        for name, sealed in card["files"].items():
            if sha256(path / name) != sealed:
                raise BundleError(f"{path / name} was altered after the bundle was written")
        examples = json.loads((path / EXAMPLES).read_text(encoding="utf-8"))
        contract = contracts.read(path / CONTRACT)
        made, here = card["libraries"]["scikit-learn"], sklearn.__version__
    except FileNotFoundError as error:
        raise BundleError(f"bundle {path} is incomplete: {error.filename} is missing") from error
    except (ValueError, KeyError, TypeError, AttributeError, ContractError) as error:
        raise BundleError(f"bundle {path} is damaged: {error}") from error
    if made.split(".")[:2] != here.split(".")[:2]:
        raise BundleError(
            f"bundle {path} was made with scikit-learn {made}, here is {here}: retrain"
        )
    return contract, load_model(path / MODEL), card, examples
