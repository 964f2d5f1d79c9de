"""The model as MLflow loads it: `mlflow.pyfunc` imports this module and hands it the bundle."""

from typing import Any

import pandas as pd

from . import violations
from .contract import Contract
from .encoding import encode_frame
from .errors import ContractError
from .inference import Output, Predictor

# What serving warns about, but answers.
TOLERATED = ("category", "range")


class Model:
    """A bundle that takes and gives tables.

    Parameters
    ----------
    predictor : Predictor
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def predict(self, frame: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Predict every row of a table.

        Parameters
        ----------
        frame : DataFrame
            The columns of the contract; one whose values may be missing can be left out.
        params : dict or None
            MLflow gives them to every model; there are none.

        Returns
        -------
        DataFrame
            ``prediction``, and ``probability_<class>`` or ``score``.

        Raises
        ------
        ContractError
            With a table of all violations.
        """
        del params
        contract = self.predictor.contract
        optional = [column.name for column in contract.features if column.nullable]
        frame = frame.assign(**{name: None for name in optional if name not in frame})
        found = violations.check(frame, contract, with_target=False)
        if broken := [violation for violation in found if violation.rule not in TOLERATED]:
            raise ContractError(f"the rows break the contract:\n{violations.explain(broken)}")
        answers = answer_table(contract, self.predictor.output(encode_frame(contract, frame)))
        return answers.set_index(frame.index)


def answer_table(contract: Contract, output: Output) -> pd.DataFrame:
    """Lay out what the model says about some rows."""
    columns: dict[str, Any] = {"prediction": output.labels.tolist()}
    if output.probabilities is not None:
        for name, share in zip(contract.class_names, output.probabilities.T, strict=True):
            columns[f"probability_{name}"] = share
    if output.scores is not None:
        columns["score"] = output.scores
    return pd.DataFrame(columns)


def _load_pyfunc(path: str) -> Model:
    """Load the bundle that MLflow stored; MLflow calls this by its name."""
    return Model(Predictor.load(path))
