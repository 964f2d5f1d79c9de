"""Batch inference: files of rows in, files of predictions out, in constant memory.

One thread reads and writes, in order; others encode and predict, which numpy, scikit-learn and
ONNX Runtime do without holding the interpreter back, so that one loaded model serves all of them.
The answers to each piece are kept beside the destination until it is complete: what is interrupted
reads again but does not predict again, and writes the same bytes as if nothing had happened.
"""

import json
import os
import shutil
import time
from collections import deque
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pyarrow as pa
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from . import tables
from .artifacts import replacing, write_json
from .columns import encode_table, reasons, unfamiliar
from .contract import Contract
from .data import PARQUET
from .encoding import Matrix
from .errors import ContractError, DataError, ProjectError, StoppedError
from .inference import Predictor
from .settings import Data
from .tables import Piece, Sink, Source

SUFFIXES = (".csv", *PARQUET)
# So many rows are predicted at once: what is made of them stays in the processor's cache.
ROWS_AT_ONCE = 16_384
WORKERS = min(os.cpu_count() or 1, 8)
AHEAD = 2
ORIGIN, DONE, FACTS = "origin.json", "done.json", b"facts"


@dataclass(frozen=True)
class Scored:
    """What became of the rows.

    Attributes
    ----------
    rows : int
        That were answered.
    rejected : int
        That break the contract.
    unfamiliar : int
        Values of the answered rows that were not seen in training, or lie far outside its range.
    seconds : float
        From the first row to the last.
    files : int
    first_reason : str or None
        Why the first rejected row was rejected.
    """

    rows: int = 0
    rejected: int = 0
    unfamiliar: int = 0
    seconds: float = 0.0
    files: int = 0
    first_reason: str | None = None

    @property
    def rows_per_second(self) -> float:
        """How fast the rows were read, answered and written."""
        return (self.rows + self.rejected) / max(self.seconds, 1e-9)

    def __add__(self, other: "Scored") -> "Scored":
        """Add what became of another file."""
        return Scored(
            self.rows + other.rows,
            self.rejected + other.rejected,
            self.unfamiliar + other.unfamiliar,
            self.seconds + other.seconds,
            self.files + other.files,
            self.first_reason or other.first_reason,
        )


def score(predictor: Predictor, source: Path, destination: Path, data: Data) -> Scored:
    """Predict every row of a file, or of all files of a folder.

    Parameters
    ----------
    predictor : Predictor
    source : Path
        CSV or Parquet with the columns of the contract, or a folder of such files.
    destination : Path
        ``.parquet`` or ``.csv``; for a folder a folder, in which the files have the same names.
        The columns of the source, followed by ``prediction`` and ``probability_<class>`` or
        ``score``. Written beside and moved in when complete. Rows that break the contract stand in
        ``<name>.rejected.<suffix>``, those of a folder in the folder ``<name>.rejected``, with
        ``row_number``, counted from 1 below the header, and ``reasons``.
    data : Data
        ``delimiter``, ``encoding`` and ``decimal`` of the settings.

    Returns
    -------
    Scored

    Raises
    ------
    DataError
        Where the source cannot be read, or the destination cannot be written.
    ContractError
        Where columns are missing, or no row keeps the contract.
    StoppedError
        On Ctrl-C; the same call continues.
    """
    jobs = _jobs(predictor, source, destination, data)
    state = _state(destination)
    total = Scored()
    try:
        for job in jobs:
            done = _done(job) or _score_file(job)
            total += done
    except KeyboardInterrupt as error:
        raise StoppedError(
            f"stopped; the answers so far are kept in {state}: the same command continues"
        ) from error
    except OSError as error:
        said = error.strerror or " ".join(str(error).split())
        raise DataError(
            f"{destination} cannot be written: {said}; free space or name another place, "
            "and run the same command again"
        ) from error
    finally:
        with suppress(OSError):
            state.rmdir()
    shutil.rmtree(state, ignore_errors=True)
    if total.rejected and not total.rows:
        raise ContractError(
            f"none of the {total.rejected:,} rows of {source} keeps the contract; all are in "
            f"{rejected_path(destination)}, the first says: {total.first_reason}"
        )
    return total


def summary(scored: Scored, version: str, destination: Path) -> str:
    """Say in a line what became of the rows."""
    files = f" ({scored.files} files)" if scored.files > 1 else ""
    said = [
        f"{scored.rows:,} predictions of version {version} in {destination}{files}",
        f"{scored.rows_per_second:,.0f} rows/s",
    ]
    if scored.rejected:
        said.append(f"{scored.rejected:,} rows rejected, see {rejected_path(destination)}")
    if scored.unfamiliar:
        said.append(f"{scored.unfamiliar:,} values unlike the training data")
    return ", ".join(said)


def rejected_path(destination: Path) -> Path:
    """Return where rejected rows go: ``a.rejected.csv`` beside ``a.csv``."""
    return destination.with_name(f"{destination.stem}.rejected{destination.suffix}")


@dataclass(frozen=True)
class Job:
    """One file to score.

    Attributes
    ----------
    predictor : Predictor
    source : ParquetSource or CsvSource
    destination, rejected : Path
        Where answers and rejected rows go.
    state : Path
        The folder for what is not complete.
    identity : dict
        What the answers depend on.
    alone : bool
        Whether it is not one of a folder's files.
    """

    predictor: Predictor
    source: Source
    destination: Path
    rejected: Path
    state: Path
    identity: dict[str, Any]
    alone: bool

    @property
    def contract(self) -> Contract:
        """The model's contract."""
        return self.predictor.contract

    @cached_property
    def answers_schema(self) -> pa.Schema:
        """The columns that are added."""
        fields = [("prediction", _label_type(self.predictor))]
        fields += [(f"probability_{name}", pa.float64()) for name in self.contract.class_names]
        if self.contract.task == "clustering":
            fields.append(("score", pa.float64()))
        return pa.schema(fields)

    @cached_property
    def kept(self) -> list[int]:
        """The positions of the source's columns that no answer takes the place of."""
        added = set(self.answers_schema.names)
        return [i for i, name in enumerate(self.source.schema.names) if name not in added]

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns of the destination."""
        schema = self.source.schema
        fields = [schema.field(i) for i in self.kept] + list(self.answers_schema)
        return pa.schema(fields, metadata=schema.metadata)

    @cached_property
    def rejected_schema(self) -> pa.Schema:
        """The columns of the rejected rows."""
        schema = self.source.raw_schema
        fields = []
        for name, kind in (("row_number", pa.int64()), ("reasons", pa.string())):
            while name in schema.names:
                name += "_"  # noqa: PLW2901
            fields.append(pa.field(name, kind))
        return pa.schema([*fields, *schema])


def _state(destination: Path) -> Path:
    return destination.with_name(f".{destination.name}.partial")


def _jobs(predictor: Predictor, source: Path, destination: Path, data: Data) -> list[Job]:
    """Pair sources with destinations, and look at all of them before any work."""
    if source.is_dir():
        pairs = _folder_pairs(source, destination)
    elif destination.suffix.lower() not in SUFFIXES:
        raise DataError(f"{destination}: expected a name ending in .csv or .parquet")
    elif destination.is_dir():
        raise DataError(f"{destination} is a folder; expected the name of a file")
    elif destination.resolve() == source.resolve():
        raise DataError(f"{destination} is the source; expected another name")
    else:
        pairs = [(source, Path(destination.name))]
    state, jobs = _state(destination), []
    for path, name in pairs:
        place, refused = destination, rejected_path(destination)
        if path != source:
            place, refused = destination / name, refused / name
        as_text = place.suffix.lower() not in PARQUET
        opened = tables.open_source(path, data, predictor.contract, as_text)
        identity = _identity(predictor, path, data)
        jobs.append(Job(predictor, opened, place, refused, state / name, identity, path == source))
    return jobs


def _folder_pairs(source: Path, destination: Path) -> list[tuple[Path, Path]]:
    if destination.is_file() or destination.suffix.lower() in SUFFIXES:
        raise DataError(f"{destination}: expected a folder, as {source} is one")
    if destination.resolve().is_relative_to(source.resolve()):
        raise DataError(f"{destination} lies in {source}; expected a folder outside of it")
    pairs = []
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source)
        hidden = any(part.startswith((".", "_")) for part in name.parts)
        plain = name.with_suffix("") if name.suffix.lower() == ".gz" else name
        if path.is_file() and not hidden and plain.suffix.lower() in SUFFIXES:
            pairs.append((path, plain))
    if not pairs:
        raise DataError(f"{source} holds no table; expected names ending in .csv or .parquet")
    return pairs


def _identity(predictor: Predictor, path: Path, data: Data) -> dict[str, Any]:
    return {
        "source": tables.identity(path),
        "version": predictor.card["version"],
        "settings": [data.delimiter, data.encoding, data.decimal],
        "pieces": [
            *(tables.PIECE_ROWS, tables.PIECE_VALUES, tables.BLOCK_BYTES),
            *(ROWS_AT_ONCE, pa.__version__),
        ],
    }


def _done(job: Job) -> Scored | None:
    """Return what became of a file that an interrupted run completed."""
    try:
        known = json.loads((job.state / DONE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None
    if known["identity"] != job.identity or not job.destination.is_file():
        return None
    return Scored(**known["scored"])


def _score_file(job: Job) -> Scored:
    """Score one file; what is not complete is removed, unless it can be continued."""
    _prepare(job)
    try:
        scored = _stream(job)
        _check(job, scored)
    except ProjectError:
        shutil.rmtree(job.state, ignore_errors=True)
        raise
    except BaseException:
        for path in (_partial(job), _partial_rejected(job)):
            path.unlink(missing_ok=True)
        raise
    if scored.rejected:
        job.rejected.parent.mkdir(parents=True, exist_ok=True)
        _partial_rejected(job).replace(job.rejected)
    else:
        job.rejected.unlink(missing_ok=True)
    if scored.rows or not job.alone:
        job.destination.parent.mkdir(parents=True, exist_ok=True)
        _partial(job).replace(job.destination)
    shutil.rmtree(job.state)
    if not job.alone:
        job.state.mkdir()
        write_json({"identity": job.identity, "scored": asdict(scored)}, job.state / DONE)
    return scored


def _prepare(job: Job) -> None:
    """Keep the answers of an interrupted run on the same rows and model; begin anew otherwise."""
    origin = job.state / ORIGIN
    try:
        same = json.loads(origin.read_text(encoding="utf-8")) == job.identity
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        same = False
    if not same:
        shutil.rmtree(job.state, ignore_errors=True)
        job.state.mkdir(parents=True)
        write_json(job.identity, origin)


def _partial(job: Job) -> Path:
    return job.state / f"answers{job.destination.suffix}"


def _partial_rejected(job: Job) -> Path:
    return job.state / f"rejected{job.destination.suffix}"


@dataclass(frozen=True)
class Rendered:
    """A piece that only has to be written."""

    piece: Piece
    answered: Any
    rejected: Any
    rejected_rows: int
    unfamiliar: int
    first_reason: str | None


def _stream(job: Job) -> Scored:
    started = time.perf_counter()
    stop = Event()
    writer = tables.sink_class(job.destination)
    waiting: deque[Future[Rendered]] = deque()
    scored = Scored(files=1)
    with ExitStack() as stack:
        answered = writer(_partial(job), job.schema)
        stack.callback(answered.discard)
        rejected: Sink | None = None
        progress = stack.enter_context(
            tqdm(total=job.source.rows, unit=" rows", unit_scale=True, disable=None)
        )
        # Each thread predicts rows of its own; more threads in the libraries would only wait.
        stack.enter_context(threadpool_limits(1))
        pool = ThreadPoolExecutor(WORKERS, initializer=threadpool_limits, initargs=(1,))
        stack.callback(pool.shutdown, cancel_futures=True)
        stack.callback(stop.set)

        pieces = job.source.pieces()
        stack.callback(pieces.close)
        while True:
            piece = next(pieces, None)
            if piece:
                waiting.append(pool.submit(_render, job, piece, stop))
            if piece and len(waiting) < WORKERS + AHEAD:
                continue
            if not waiting:
                break
            done = waiting.popleft().result()
            answered.write(done.answered)
            if done.rejected_rows:
                if rejected is None:
                    rejected = writer(_partial_rejected(job), job.rejected_schema)
                    stack.callback(rejected.discard)
                rejected.write(done.rejected)
            scored = _with(scored, done)
            show_progress(progress, job.source, scored, done.piece)
        answered.close()
        if rejected:
            rejected.close()
    return replace(scored, seconds=time.perf_counter() - started)


def _with(scored: Scored, done: Rendered) -> Scored:
    return replace(
        scored,
        rows=scored.rows + done.piece.lines - done.rejected_rows,
        rejected=scored.rejected + done.rejected_rows,
        unfamiliar=scored.unfamiliar + done.unfamiliar,
        first_reason=scored.first_reason or done.first_reason,
    )


def show_progress(progress: Any, source: Source, scored: Scored, piece: Piece) -> None:
    """Move the bar; how many rows delimited text has is estimated from the bytes read."""
    progress.update(piece.lines)
    if source.rows is None:
        progress.total = round((scored.rows + scored.rejected) / max(piece.read, 1e-9))
    if scored.rejected:
        progress.set_postfix_str(f"{scored.rejected:,} rejected", refresh=False)


def _check(job: Job, scored: Scored) -> None:
    """See that the source stayed as it was, and each of its rows went to one place."""
    path = job.source.path
    if tables.identity(path) != job.identity["source"]:
        raise DataError(f"{path} changed while it was scored; run the same command again")
    if job.alone and not scored.rows + scored.rejected:
        raise DataError(f"{path} has a header but no rows")
    given = scored.rows + scored.rejected if job.source.rows is None else job.source.rows
    answered = tables.count(_partial(job), scored.rows)
    refused = tables.count(_partial_rejected(job), scored.rejected) if scored.rejected else 0
    if (given, scored.rows, scored.rejected) != (answered + refused, answered, refused):
        raise DataError(
            f"{path}: of {given:,} rows {answered:,} were answered and {refused:,} rejected; "
            "expected each of them once: check the disk, and run the same command again"
        )


def _render(job: Job, piece: Piece, stop: Event) -> Rendered:
    """Answer a piece, or take the answers that are kept, and lay its rows out for writing."""
    answers = _kept(job, piece)
    if answers is None:
        answers = answer_piece(job, piece, stop)
        _keep(job, piece, answers)
    facts = json.loads(answers.schema.metadata[FACTS])
    broken = dict(facts["rejected"])
    table = piece.table
    if broken:
        mask = np.ones(table.num_rows, dtype=bool)
        mask[list(broken)] = False
        table = table.filter(pa.array(mask))
    table = job.source.typed(table).select(job.kept)
    for field, column in zip(answers.schema, answers.columns, strict=True):
        table = table.append_column(field, column)
    writer = tables.sink_class(job.destination)
    refused = _rejected(job, piece, broken) if broken or piece.malformed else None
    said = [*broken.values(), *(reason for _, reason in piece.malformed)]
    return Rendered(
        piece,
        writer.render(table.replace_schema_metadata()),
        None if refused is None else writer.render(refused),
        len(said),
        facts["unfamiliar"],
        said[0] if said else None,
    )


def _rejected(job: Job, piece: Piece, broken: dict[int, str]) -> pa.Table:
    """Return the rejected rows of a piece, in order."""
    places = pa.array(list(broken), pa.int64())
    raw = piece.table.take(places)
    lines = [number for number, _ in piece.malformed]
    numbers = [*piece.row_numbers[list(broken)].tolist(), *lines]
    said = [*broken.values(), *(reason for _, reason in piece.malformed)]
    columns = [pa.array(numbers, pa.int64()), pa.array(said, pa.string())]
    for column, field in zip(raw.columns, job.source.raw_schema, strict=True):
        given = column.cast(field.type)
        columns.append(pa.chunked_array([*given.chunks, pa.nulls(len(lines), field.type)]))
    table = pa.table(columns, schema=job.rejected_schema)
    return table.take(pa.array(np.argsort(numbers, kind="stable")))


def answer_piece(job: Job, piece: Piece, stop: Event) -> pa.Table:
    """Encode and predict a piece.

    Returns
    -------
    pyarrow.Table
        The answers to the rows that keep the contract; how many unfamiliar values they hold, and
        position and reasons of the other rows, as metadata.
    """
    readable = job.source.readable(piece.table)
    encoded = encode_table(job.contract, readable)
    broken = encoded.broken
    matrix, refused = encoded.matrix, []
    if broken.any():
        matrix = matrix[~broken]
        said = reasons(job.contract, readable, encoded)
        refused = list(zip(np.flatnonzero(broken).tolist(), said, strict=True))
    facts = {"unfamiliar": unfamiliar(job.contract, matrix), "rejected": refused}
    answers = _predict(job, matrix, stop)
    return answers.replace_schema_metadata({FACTS: json.dumps(facts).encode()})


def _predict(job: Job, matrix: Matrix, stop: Event) -> pa.Table:
    parts = []
    schema = job.answers_schema
    for start in range(0, len(matrix), ROWS_AT_ONCE):
        if stop.is_set():
            raise CancelledError
        result = job.predictor.output(matrix[start : start + ROWS_AT_ONCE])
        columns = [pa.array(result.labels, schema.field(0).type)]
        if result.probabilities is not None:
            columns += [pa.array(np.ascontiguousarray(p)) for p in result.probabilities.T]
        if result.scores is not None:
            columns.append(pa.array(result.scores))
        parts.append(pa.RecordBatch.from_arrays(columns, schema=schema))
    return pa.Table.from_batches(parts, schema=schema).combine_chunks()


def _label_type(predictor: Predictor) -> pa.DataType:
    match predictor.contract.task:
        case "regression":
            return pa.float64()
        case "clustering":
            # Groups have numbers, or names: an answer that is known tells which.
            return pa.scalar(predictor.examples[0]["prediction"]["prediction"]).type
        case _:
            return pa.array(list(predictor.contract.classes)).type


def _kept(job: Job, piece: Piece) -> pa.Table | None:
    try:
        with pa.memory_map(str(_answers_path(job, piece))) as file:
            return pa.ipc.open_file(file).read_all()
    except (FileNotFoundError, pa.ArrowInvalid):
        return None


def _keep(job: Job, piece: Piece, answers: pa.Table) -> None:
    with (
        replacing(_answers_path(job, piece)) as partial,
        pa.OSFile(str(partial), "wb") as file,
        pa.ipc.new_file(file, answers.schema) as writer,
    ):
        writer.write_table(answers)


def _answers_path(job: Job, piece: Piece) -> Path:
    return job.state / f"{piece.number:06d}.arrow"
