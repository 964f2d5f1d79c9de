"""Delimited text: find out how a file is written, and read it."""

import codecs
import csv
import gzip
import re
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import pandas as pd
from charset_normalizer import from_bytes

from .errors import DataError
from .settings import Data

DELIMITERS = ",;\t|"
RARE_DELIMITERS = "^: "
PROBE_BYTES = 1_000_000
PROBE_LINES = 50
DECIMAL_LINES = 2000
GUESS_LINES = 500
ALIKE = 0.9
BYTE_ORDERS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8"}
LATIN = re.compile(r"cp125[0247]|latin|iso8859|mac_|cp437|cp85|cp77|hp_roman|cp500|cp1140|cp03")
FOREIGN_WORD = re.compile(rb"[\x80-\xff]{3}")
# Western letters stand where an Eastern European text, read as cp1252, has signs.
SIGN_IN_WORD = re.compile(r"(?<!\w)[£¯¥]\w*[^\W\d_]|[^\W\d_][³¿¹¶][^\W\d_]")

GROUPS = {
    ".": re.compile(r"[+-]?(?!0\d)(\d{1,3}([,'\u2019\u00a0\u202f ]\d{3})+|\d+)(\.\d+)?"),
    ",": re.compile(r"[+-]?(?!0\d)(\d{1,3}([.'\u2019\u00a0\u202f ]\d{3})+|\d+)(,\d+)?"),
}
FRACTIONS = {
    ".": re.compile(r"[+-]?(\d+|\d{1,3}(,\d{3})+)\.\d+"),
    ",": re.compile(r"[+-]?(\d+|\d{1,3}(\.\d{3})+),\d+"),
}
EITHER = re.compile(r"[+-]?\d{1,3}([.,])\d{3}")


def dialect(source: Path, data: Data) -> tuple[str, str]:
    """Return delimiter and encoding of a file, detected where the settings do not say."""
    encoding = data.encoding or _encoding(source)
    return data.delimiter or _delimiter(_lines(source, encoding)[:PROBE_LINES]), encoding


def decimal_mark(source: Path, data: Data, delimiter: str, encoding: str) -> str:
    """Return the decimal mark: a comma where more of the first fields can only be read with it."""
    if data.decimal or delimiter == ",":
        return data.decimal or "."
    marks = {".": 0, ",": 0}
    unsure = {".": 0, ",": 0}
    for row in csv.reader(_lines(source, encoding)[1:DECIMAL_LINES], delimiter=delimiter):
        for field in map(str.strip, row):
            if either := EITHER.fullmatch(field):
                unsure[either[1]] += 1
            elif "." in field or "," in field:
                for mark, fraction in FRACTIONS.items():
                    marks[mark] += fraction.fullmatch(field) is not None
    if marks["."] == marks[","]:
        marks = unsure
    return "," if marks[","] > marks["."] else "."


def read(source: Path, data: Data) -> pd.DataFrame:
    """Read a file.

    Raises
    ------
    DataError
        Where rows have more fields than the header names.
    """
    delimiter, encoding = dialect(source, data)
    decimal = decimal_mark(source, data, delimiter, encoding)
    frame = pd.read_csv(
        source,
        sep=delimiter,
        encoding=encoding,
        decimal=decimal,
        skipinitialspace=True,
        low_memory=False,
    )
    # pandas takes surplus fields for row names, which would shift every column.
    if not frame.index.equals(pd.RangeIndex(len(frame))):
        raise DataError(
            f"{source}: rows hold more fields than the {len(frame.columns)} columns of "
            "the header; name every column, and end rows without a delimiter"
        )
    return _without_groups(frame, decimal)


def _open(source: Path) -> IO[bytes]:
    compressed = source.suffix.lower() == ".gz"
    return cast("IO[bytes]", gzip.open(source) if compressed else source.open("rb"))


def _lines(source: Path, encoding: str) -> list[str]:
    with _open(source) as file:
        head = file.read(PROBE_BYTES)
    lines = head.decode(encoding, errors="replace").removeprefix("\ufeff").splitlines()
    return lines[:-1] if len(head) == PROBE_BYTES else lines


def _encoding(source: Path) -> str:
    """Return UTF-8 if the whole file is, else what its first other piece looks like."""
    with _open(source) as file:
        piece = file.read(PROBE_BYTES)
        for mark, encoding in BYTE_ORDERS.items():
            if piece.startswith(mark):
                return encoding
        if piece.count(0) > len(piece) / 4:
            return "utf-16-le" if piece[1:2] == b"\0" else "utf-16-be"
        decoder = codecs.getincrementaldecoder("utf-8")()
        while piece:
            try:
                decoder.decode(piece)
            except UnicodeDecodeError:
                return _guess(piece)
            piece = file.read(PROBE_BYTES)
    return "utf-8"


def _guess(piece: bytes) -> str:
    """Return the encoding of a text that is no UTF-8.

    Statistics mistake a few accents for another script, whose words would be foreign throughout;
    nor do they tell the Western and the Eastern European code page apart in a short table, as most
    letters stand at the same place: the Western one is taken, unless signs such as a pound sign
    would stand inside of words.
    """
    foreign = b"\n".join([line for line in piece.splitlines() if not line.isascii()][:GUESS_LINES])
    best = from_bytes(foreign).best() if FOREIGN_WORD.search(foreign) else None
    if best and not LATIN.match(best.encoding):
        return str(best.encoding)
    try:
        return "cp1250" if SIGN_IN_WORD.search(foreign.decode("cp1252")) else "cp1252"
    except UnicodeDecodeError:
        return "latin-1"


def _delimiter(lines: list[str]) -> str:
    """Return the delimiter that cuts the header into most fields, and the other lines alike."""
    # Where no delimiter cuts all alike, the most likely one lets the error name the first bad row.
    for candidates, least in ((DELIMITERS, ALIKE), (RARE_DELIMITERS, 1.0), (DELIMITERS, 0.0)):
        widths = {delimiter: _width(lines, delimiter, least) for delimiter in candidates}
        best = max(widths, key=widths.__getitem__)
        if widths[best] > 1:
            return best
    return ","


def _width(lines: list[str], delimiter: str, least: float) -> int:
    rows = [row for row in csv.reader(lines, delimiter=delimiter, skipinitialspace=True) if row]
    if not rows:
        return 0
    alike = sum(len(row) == len(rows[0]) for row in rows) / len(rows)
    return len(rows[0]) if alike >= least else 0


def _without_groups(frame: pd.DataFrame, decimal: str) -> pd.DataFrame:
    """Read the columns in which every value is a number with its thousands grouped."""
    for name, dtype in zip(frame.columns, frame.dtypes, strict=True):
        if dtype.kind in "biufcmM":
            continue
        different = frame[name].dropna().unique()
        if len(different) and _grouped(different, decimal):
            frame[name] = frame[name].map({text: _number(text, decimal) for text in different})
    return frame


def _grouped(different: Any, decimal: str) -> bool:
    pattern = GROUPS[decimal]
    return all(pattern.fullmatch(text.strip()) for text in different) and any(
        not text.isalnum() for text in np.asarray(different)
    )


def _number(text: str, decimal: str) -> float:
    whole, _, fraction = text.strip().partition(decimal)
    return float(re.sub(r"[^\d+-]", "", whole) + "." + fraction)
