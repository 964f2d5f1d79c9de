"""Batch inference: a file of rows in, a file of predictions out, in constant memory."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from .contract import Contract
from .data import PARQUET, read_chunks
from .encoding import encode_frame
from .errors import ContractError, DataError
from .inference import Output, Predictor
from .settings import Data
from .violations import check, explain

CHUNK_ROWS = 50_000
TOLERATED = ("category", "range")


def score(predictor: Predictor, source: Path, destination: Path, data: Data) -> tuple[int, int]:
    """Predict every row of a file.

    Parameters
    ----------
    predictor : Predictor
    source : Path
        CSV or Parquet with the columns of the contract.
    destination : Path
        ``.parquet`` or ``.csv``; the columns of the source, followed by ``prediction`` and
        ``probability_<class>`` or ``score``. Written beside and moved in when complete.
    data : Data
        ``delimiter`` and ``encoding`` of the settings.

    Returns
    -------
    rows : int
    unfamiliar : int
        Values that were not seen in training, or lie far outside of its range.

    Raises
    ------
    DataError
        Where the source cannot be read, or the destination is neither CSV nor Parquet.
    ContractError
        Where values are missing or of another type, with a table of all violations of the chunk.
    """
    if destination.suffix.lower() not in (".csv", *PARQUET):
        raise DataError(f"{destination}: expected a name ending in .csv or .parquet")
    partial = destination.with_name(f".{destination.name}.partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    rows = unfamiliar = 0
    try:
        with (
            _writer(partial, destination.suffix.lower()) as writer,
            tqdm(unit=" rows", disable=None) as progress,
        ):
            for frame in read_chunks(source, data, CHUNK_ROWS):
                found = check(frame, predictor.contract, with_target=False)
                if broken := [violation for violation in found if violation.rule not in TOLERATED]:
                    raise ContractError(
                        f"{source}, rows {rows + 1} to {rows + len(frame)}, break the contract:\n"
                        f"{explain(broken)}"
                    )
                matrix = encode_frame(predictor.contract, frame)
                answers = predictor.output(matrix)
                writer.write(_with_answers(frame, predictor.contract, answers))
                rows += len(frame)
                unfamiliar += sum(violation.count for violation in found)
                progress.update(len(frame))
        partial.replace(destination)
    finally:
        partial.unlink(missing_ok=True)
    return rows, unfamiliar


def _with_answers(frame: pd.DataFrame, contract: Contract, answers: Output) -> pd.DataFrame:
    labels = answers.labels
    added = {"prediction": labels if contract.task == "regression" else labels.tolist()}
    if answers.probabilities is not None:
        for name, share in zip(contract.class_names, answers.probabilities.T, strict=True):
            added[f"probability_{name}"] = share
    if answers.scores is not None:
        added["score"] = np.asarray(answers.scores)
    return frame.assign(**added)


class _CsvWriter:
    def __init__(self, path: Path) -> None:
        self.file = path.open("w", encoding="utf-8", newline="")
        self.header = True

    def write(self, frame: pd.DataFrame) -> None:
        frame.to_csv(self.file, index=False, header=self.header)
        self.header = False

    def __enter__(self) -> "_CsvWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


class _ParquetWriter:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.writer: pq.ParquetWriter | None = None

    def write(self, frame: pd.DataFrame) -> None:
        schema = self.writer.schema if self.writer else None
        table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
        if self.writer is None:
            self.writer = pq.ParquetWriter(self.path, table.schema)
        self.writer.write_table(table)

    def __enter__(self) -> "_ParquetWriter":
        return self

    def __exit__(self, *_: object) -> None:
        if self.writer:
            self.writer.close()


def _writer(path: Path, suffix: str) -> _CsvWriter | _ParquetWriter:
    return _CsvWriter(path) if suffix == ".csv" else _ParquetWriter(path)
