import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from {{ cookiecutter.package }} import batch, tables
from {{ cookiecutter.package }}.errors import ContractError, DataError, StoppedError

PROGRAM = """
import resource, signal, sys, time
from pathlib import Path
from {{ cookiecutter.package }} import batch, tables
from {{ cookiecutter.package }}.errors import ProjectError
from {{ cookiecutter.package }}.inference import Predictor
from {{ cookiecutter.package }}.settings import Data

# Tests that run in the background are started with Ctrl-C ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
bundle, source, destination, rows, wait, limit, *more = sys.argv[1:]
tables.PIECE_ROWS, tables.BLOCK_BYTES = int(rows), 1000
if int(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
render = batch._render

def slowly(*arguments):
    time.sleep(float(wait))
    return render(*arguments)

batch._render = slowly
predictor = Predictor.load(bundle)
for path in (source, *more):
    try:
        batch.score(predictor, Path(path), Path(destination), Data(source=""))
    except ProjectError as error:
        sys.exit(str(error))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.fixture
def in_small_pieces(monkeypatch):
    """Read seven rows, or a kilobyte of text, at once."""
    monkeypatch.setattr(tables, "PIECE_ROWS", 7)
    monkeypatch.setattr(tables, "BLOCK_BYTES", 1000)


@pytest.fixture
def score(road):
    """Score with the classifier."""

    def call(source, destination):
        return batch.score(road.predictor, source, destination, road.settings.data)

    return call


@pytest.fixture
def program(road):
    """Start scoring in a process of its own, a little slower."""

    def start(source, destination, *more, rows=7, wait=0.0, limit=0):
        words = [road.settings.serving.bundle, source, destination, rows, wait, limit, *more]
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def read(path):
    """Read an answer file."""
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)


def save(frame, path):
    """Write a table in the way that the name says."""
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False)
    return path


def broken(frame):
    """Break rows 3, 10 and 11 in three ways; row 20 only holds what was never seen."""
    frame = frame.astype({"leaves": object})
    frame.loc[2, "leaves"] = None
    frame.loc[9, ["leaves", "planted"]] = ["many", "soon"]
    frame.loc[10, "treated"] = "perhaps"
    frame.loc[19, "bed"] = "Mars"
    return frame.astype({"leaves": "str"})


def predicted(predictor, frame):
    """What the predictor answers to the rows of a frame, as columns."""
    given = frame[[column.name for column in predictor.contract.features]]
    rows = given.astype(object).where(given.notna(), None).to_dict("records")
    answers = predictor.predict(rows)
    columns = {"prediction": [answer.prediction for answer in answers]}
    for name in predictor.contract.class_names:
        columns[f"probability_{name}"] = [answer.probabilities[name] for answer in answers]
    if answers[0].score is not None:
        columns["score"] = [answer.score for answer in answers]
    return columns


def names_in(folder):
    """The names in a folder, hidden ones too."""
    return sorted(path.name for path in folder.iterdir())


def wait_for(found, process):
    """Wait until something is there, while a process runs."""
    deadline = time.monotonic() + 240
    while not found() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)


@pytest.mark.parametrize("source", ["rows.csv", "rows.parquet"])
@pytest.mark.parametrize("destination", ["answers.csv", "answers.parquet"])
@pytest.mark.usefixtures("in_small_pieces")
def test_every_row_is_answered(each_road, tmp_path, source, destination):
    """The columns of the source are followed by the answers that the predictor gives."""
    test, predictor = each_road.test, each_road.predictor
    path = save(test, tmp_path / source)
    data = each_road.settings.data
    scored = batch.score(predictor, path, tmp_path / destination, data)
    assert (len(test), 0, 1) == (scored.rows, scored.rejected, scored.files)
    answers = read(tmp_path / destination)
    assert list(test.columns) == list(answers.columns[: len(test.columns)])
    expected = predicted(predictor, test)
    if predictor.contract.task == "regression":
        assert pytest.approx(expected["prediction"], rel=1e-12) == answers["prediction"].tolist()
    else:
        assert expected["prediction"] == answers["prediction"].tolist()
    for name in expected.keys() - {"prediction"}:
        assert pytest.approx(expected[name], rel=1e-12) == answers[name].tolist()
    assert set(answers.columns) == set(test.columns) | set(expected)
    assert {source, destination} == set(names_in(tmp_path))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.usefixtures("in_small_pieces")
def test_rejected_rows_are_set_aside(road, score, tmp_path, suffix):
    """Rows that break the contract stand in a file of their own, with number and reasons."""
    source = save(broken(road.test), tmp_path / f"rows{suffix}")
    scored = score(source, tmp_path / f"answers{suffix}")
    assert (57, 3, 1) == (scored.rows, scored.rejected, scored.unfamiliar)
    refused = read(tmp_path / f"answers.rejected{suffix}")
    assert [3, 10, 11] == refused["row_number"].tolist()
    assert [
        "leaves: missing, expected a whole number",
        "leaves: expected a whole number, not 'many'; "
        "planted: expected an ISO 8601 date or time, not 'soon'",
        "treated: expected true, false, 'yes' or 'no', not 'perhaps'",
    ] == refused["reasons"].tolist()
    assert "many" == refused["leaves"][1]
    answers = read(tmp_path / f"answers{suffix}")
    kept = road.test["planted"].drop([2, 9, 10])
    assert kept.tolist() == answers["planted"].tolist()
    # A better source leaves no rejected rows of the earlier one.
    score(save(road.test, source), tmp_path / f"answers{suffix}")
    assert [f"answers{suffix}", f"rows{suffix}"] == names_in(tmp_path)


def test_lines_that_are_no_rows_are_rejected(road, score, tmp_path):
    """Too few or too many fields break one line, not the file; numbers count all lines."""
    lines = road.test.to_csv(index=False).splitlines()
    lines[5], lines[8] = "1,2", lines[8] + ",surplus"
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\nend", encoding="utf-8")
    scored = score(tmp_path / "rows.csv", tmp_path / "answers.parquet")
    assert (58, 3) == (scored.rows, scored.rejected)
    refused = read(tmp_path / "answers.rejected.parquet")
    assert [5, 8, 61] == refused["row_number"].tolist()
    assert "2 fields, expected 6: '1,2'" == refused["reasons"][0]


def test_a_file_without_a_right_row(road, score, tmp_path):
    """Where no row can be answered, the command fails, and an earlier answer stays."""
    (tmp_path / "answers.csv").write_text("earlier", encoding="utf-8")
    source = save(road.test.assign(leaves="many"), tmp_path / "rows.csv")
    with pytest.raises(ContractError, match=r"none of the 60 rows of .*leaves: expected a whole"):
        score(source, tmp_path / "answers.csv")
    assert "earlier" == (tmp_path / "answers.csv").read_text(encoding="utf-8")
    assert 60 == len(read(tmp_path / "answers.rejected.csv"))


def test_text_as_others_write_it(road, score, tmp_path):
    """Delimiter, encoding, decimal comma, blanks and compression change no answer."""
    frame = road.test.rename(columns=str)
    plain = save(frame, tmp_path / "plain.csv")
    other = tmp_path / "other.csv.gz"
    padded = frame.assign(bed=" " + frame["bed"] + " ")
    padded.to_csv(other, sep=";", decimal=",", encoding="cp1252", index=False)
    score(plain, tmp_path / "a.parquet")
    score(other, tmp_path / "b.parquet")
    columns = [c for c in read(tmp_path / "a.parquet") if c.startswith("pro") or c == "prediction"]
    left, right = (read(tmp_path / name)[columns] for name in ("a.parquet", "b.parquet"))
    pd.testing.assert_frame_equal(left, right)


@pytest.mark.usefixtures("in_small_pieces")
def test_a_folder_makes_a_folder(road, score, tmp_path):
    """Each file has its answer under the same name; hidden files are left out."""
    source = tmp_path / "in"
    (source / "deep").mkdir(parents=True)
    (source / "_SUCCESS.csv").touch()
    save(road.test.head(20), source / "a.csv")
    save(broken(road.test).head(30), source / "deep" / "b.parquet")
    scored = score(source, tmp_path / "out")
    assert (47, 3, 2) == (scored.rows, scored.rejected, scored.files)
    assert 20 == len(read(tmp_path / "out" / "a.csv"))
    assert 27 == len(read(tmp_path / "out" / "deep" / "b.parquet"))
    assert 3 == len(read(tmp_path / "out.rejected" / "deep" / "b.parquet"))
    assert ["in", "out", "out.rejected"] == names_in(tmp_path)


@pytest.mark.usefixtures("in_small_pieces")
def test_killed_and_continued(road, score, program, tmp_path, monkeypatch):
    """After kill -9 the kept answers are not made again, and the files are the same to the byte."""
    source = save(pd.concat([broken(road.test)] * 5), tmp_path / "rows.parquet")
    for name in ("straight", "killed"):
        (tmp_path / name).mkdir()
    score(source, tmp_path / "straight" / "a.parquet")
    state = tmp_path / "killed" / ".a.parquet.partial" / "a.parquet"
    process = program(source, tmp_path / "killed" / "a.parquet", wait=0.3)
    wait_for(lambda: len(list(state.glob("*.arrow"))) >= 5, process)
    process.kill()
    process.communicate()
    assert [".a.parquet.partial"] == names_in(tmp_path / "killed")
    kept, answered, answer = len(list(state.glob("*.arrow"))), [], batch.answer_piece
    monkeypatch.setattr(batch, "answer_piece", lambda *given: answered.append(1) or answer(*given))
    score(source, tmp_path / "killed" / "a.parquet")
    assert 43 == kept + len(answered)
    assert ["a.parquet", "a.rejected.parquet"] == names_in(tmp_path / "killed")
    for name in names_in(tmp_path / "straight"):
        left, right = ((tmp_path / way / name).read_bytes() for way in ("straight", "killed"))
        assert left == right


@pytest.mark.usefixtures("in_small_pieces")
def test_interrupted(road, score, program, tmp_path):
    """Ctrl-C ends with a line that says how to go on; the next run does."""
    source = save(road.test, tmp_path / "rows.csv")
    process = program(source, tmp_path / "a.csv", wait=1)
    state = tmp_path / ".a.csv.partial" / "a.csv"
    wait_for(lambda: list(state.glob("*.arrow")), process)
    process.send_signal(signal.SIGINT)
    assert (
        f"stopped; the answers so far are kept in {tmp_path}/.a.csv.partial: "
        "the same command continues"
    ) == process.communicate()[1].strip()
    assert [".a.csv.partial", "rows.csv"] == names_in(tmp_path)
    assert 60 == score(source, tmp_path / "a.csv").rows
    assert ["a.csv", "rows.csv"] == names_in(tmp_path)


@pytest.mark.usefixtures("in_small_pieces")
def test_kept_answers_belong_to_one_source_and_version(road, score, tmp_path, monkeypatch):
    """Answers to other rows, or of another model, are never mixed in."""
    source = save(road.test, tmp_path / "rows.parquet")
    asked, answered, answer = [], [], batch.answer_piece
    monkeypatch.setattr(batch, "answer_piece", lambda *given: answered.append(1) or answer(*given))

    def stopped(*arguments):
        asked.append(arguments)
        if len(asked) > 3:
            raise KeyboardInterrupt
        return kept(*arguments)

    kept = batch.show_progress
    for change in ("source", "version"):
        asked.clear()
        with monkeypatch.context() as patch:
            patch.setattr(batch, "show_progress", stopped)
            with pytest.raises(StoppedError):
                score(source, tmp_path / "a.parquet")
        assert list((tmp_path / ".a.parquet.partial").rglob("*.arrow"))
        if change == "source":
            save(road.test.iloc[::-1], source)
        else:
            monkeypatch.setitem(road.predictor.card, "version", "other")
        answered.clear()
        score(source, tmp_path / "a.parquet")
        assert 9 == len(answered)
        assert read(source)["planted"].tolist() == read(tmp_path / "a.parquet")["planted"].tolist()


def test_a_source_that_changes_meanwhile(road, score, tmp_path, monkeypatch):
    """Rows of two contents are no answer."""
    source = save(road.test, tmp_path / "rows.csv")
    monkeypatch.setattr(batch, "show_progress", lambda *_: os.utime(source, (1, 1)))
    with pytest.raises(DataError, match=r"rows\.csv changed while it was scored; run the same"):
        score(source, tmp_path / "a.csv")
    assert ["rows.csv"] == names_in(tmp_path)


def test_a_full_disk(road, program, tmp_path):
    """Where no more can be written, one line says so, and nothing half-written stands there."""
    source = save(pd.concat([road.test] * 50), tmp_path / "rows.parquet")
    process = program(source, tmp_path / "a.csv", rows=100, limit=20_000)
    said = process.communicate()[1].strip()
    assert 1 == len(said.splitlines())
    assert f"{tmp_path}/a.csv cannot be written: File too large; free space or name" in said
    assert [".a.csv.partial", "rows.parquet"] == names_in(tmp_path)
    assert not list(tmp_path.rglob("answers*"))


def test_memory_does_not_grow(road, program, tmp_path):
    """Twenty times the rows take the same memory, in one row group too."""
    frame = pd.concat([road.test] * 500, ignore_index=True)
    sources = [tmp_path / "few.parquet", tmp_path / "many.parquet"]
    for source, times in zip(sources, (1, 20), strict=True):
        pd.concat([frame] * times).to_parquet(source, row_group_size=10**6)
    process = program(sources[0], tmp_path / "a.parquet", sources[1], rows=10_000)
    said, wrong = process.communicate()
    assert "" == wrong
    few, many = (int(peak) / 1024 for peak in said.split())
    assert 600_000 == pq.read_metadata(tmp_path / "a.parquet").num_rows
    assert 60 > many - few


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
@pytest.mark.usefixtures("in_small_pieces")
def test_progress(road, score, tmp_path, monkeypatch, name):
    """A terminal sees rows, all rows, rows/s and how many were rejected."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    score(save(broken(road.test), tmp_path / name), tmp_path / "a.csv")
    last = terminal.getvalue().split("\r")[-1]
    assert "100%" in last
    assert "60.0/60.0" in last
    assert "rows/s, 3 rejected]" in last


@pytest.mark.parametrize(
    ("source", "destination", "error", "message"),
    [
        ("rows.csv", "out.xlsx", DataError, r"expected a name ending in \.csv or \.parquet"),
        ("absent.csv", "a.csv", DataError, r"absent\.csv not found; expected a CSV or Parquet"),
        ("empty.csv", "a.csv", DataError, r"empty\.csv is empty; expected a header and rows"),
        ("header.csv", "a.csv", DataError, r"header\.csv has a header but no rows"),
        ("rows.csv", "rows.csv", DataError, r"rows\.csv is the source; expected another name"),
        ("rows.csv", "folder.csv", DataError, r"folder\.csv is a folder; expected the name of a"),
        ("folder.csv", "a", DataError, r"folder\.csv holds no table; expected names ending in"),
        ("folder.csv", "a.csv", DataError, r"a\.csv: expected a folder, as .*folder\.csv is one"),
        ("folder.csv", "folder.csv/a", DataError, r"lies in .*; expected a folder outside of it"),
        ("short.csv", "a.csv", ContractError, r"has no column 'leaves'; its columns are "),
        ("torn.parquet", "a.csv", DataError, r"torn\.parquet cannot be read: "),
        ("rows.csv", "file/a.csv", DataError, r"a\.csv cannot be written: "),
    ],
)
def test_what_cannot_be_scored(road, score, tmp_path, source, destination, error, message):
    """Each mistake has a line of its own, and leaves nothing behind."""
    save(road.test, tmp_path / "rows.csv")
    save(road.test.head(0), tmp_path / "header.csv")
    save(road.test.drop(columns="leaves"), tmp_path / "short.csv")
    (tmp_path / "empty.csv").touch()
    (tmp_path / "file").touch()
    (tmp_path / "folder.csv").mkdir()
    whole = save(road.test, tmp_path / "torn.parquet").read_bytes()
    (tmp_path / "torn.parquet").write_bytes(whole[: len(whole) // 2])
    before = names_in(tmp_path)
    with pytest.raises(error, match=message):
        score(tmp_path / source, tmp_path / destination)
    assert before == names_in(tmp_path)


def test_types_stay(road, score, tmp_path):
    """What the model does not look at comes back as it was, whatever its type."""
    frame = road.test.assign(
        when=pd.Timestamp("2024-05-01", tz="Europe/Paris"), prediction="of last year"
    )
    frame["labels"] = [["a", "b"]] * len(frame)
    source = save(frame, tmp_path / "rows.parquet")
    score(source, tmp_path / "a.parquet")
    answers = read(tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(
        frame.drop(columns=["prediction", "labels"]),
        answers[[name for name in frame if name not in ("prediction", "labels")]],
    )
    assert "of last year" not in set(answers["prediction"])
    assert ["a", "b"] == list(answers["labels"][0])
    with pytest.raises(DataError, match=r"'labels' holds list<.*, which CSV cannot; expected a"):
        score(source, tmp_path / "a.csv")


def test_summary():
    """One line says how many rows, of which version, how fast, and what was set aside."""
    scored = batch.Scored(1200, 3, 7, 2.0, 1, "x")
    assert (
        "1,200 predictions of version abc in a.csv, 602 rows/s, "
        "3 rows rejected, see a.rejected.csv, 7 values unlike the training data"
    ) == batch.summary(scored, "abc", Path("a.csv"))


@pytest.mark.parametrize(("suffix", "sizes"), [(".parquet", [100, 100, 40]), (".csv", None)])
def test_pieces_are_the_whole(tmp_path, garden, road, monkeypatch, suffix, sizes):
    """Pieces hold at most so many rows and together the whole table, each row by its number."""
    monkeypatch.setattr(tables, "PIECE_ROWS", 100)
    monkeypatch.setattr(tables, "BLOCK_BYTES", 4000)
    path = save(garden, tmp_path / f"garden{suffix}")
    contract, data = road.predictor.contract, road.settings.data
    source = tables.open_source(path, data, contract, as_text=True)
    pieces = list(source.pieces())
    assert len(pieces) > 1
    assert sizes in (None, [piece.table.num_rows for piece in pieces])
    assert [*range(1, 241)] == [n for piece in pieces for n in piece.row_numbers.tolist()]
    notes = [note for piece in pieces for note in piece.table["note"].to_pylist()]
    assert garden.note.tolist() == notes
