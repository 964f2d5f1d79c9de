"""Arrow tables as the model's input: the numbers that a frame gives, column by column and faster.

Numbers, booleans and times are read where they lie; of anything else only the different values are
encoded, and the rows take their codes from there.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from .contract import Column, Contract
from .encoding import Matrix, bounds, encode_series, expected

Mask = npt.NDArray[np.bool_]

SHOWN = 60


@dataclass(frozen=True)
class Encoded:
    """A table as numbers.

    Attributes
    ----------
    matrix : ndarray of float64, shape (n_rows, n_features)
        As `encoding.encode_frame` makes it: NaN for what is missing or cannot be read.
    missing, unreadable : ndarray of bool, shape (n_rows, n_features)
        Which of the two; ``missing`` only where the contract does not allow it.
    broken : ndarray of bool, shape (n_rows,)
        The rows that break the contract.
    """

    matrix: Matrix
    missing: Mask
    unreadable: Mask
    broken: Mask


def encode_table(contract: Contract, table: pa.Table) -> Encoded:
    """Encode a table.

    Parameters
    ----------
    contract : Contract
    table : pyarrow.Table
        With all features by name; further columns are not looked at. Blanks around text do not
        count, and text of nothing else is missing.

    Returns
    -------
    Encoded
    """
    shape = (table.num_rows, len(contract.features))
    matrix = np.empty(shape)
    missing, unreadable = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    broken = np.zeros(shape[0], dtype=bool)
    for j, column in enumerate(contract.features):
        codes, absent = encode_array(column, _whole(table.column(column.name)))
        matrix[:, j] = codes
        nothing = np.isnan(codes)
        if nothing.any():
            unreadable[:, j] = nothing & ~absent
            broken |= unreadable[:, j]
            if not column.nullable:
                missing[:, j] = absent
                broken |= absent
    return Encoded(matrix, missing, unreadable, broken)


def encode_array(column: Column, array: pa.Array) -> tuple[Matrix, Mask]:
    """Encode one column.

    Returns
    -------
    codes : ndarray of float64, shape (n_rows,)
        NaN for what is missing or cannot be read.
    missing : ndarray of bool, shape (n_rows,)
    """
    if pa.types.is_null(array.type):
        return np.full(len(array), np.nan), np.ones(len(array), dtype=bool)
    if column.kind in ("numeric", "integer"):
        numbers = _numbers(array)
        if numbers is not None:
            return _readable(column, numbers), _absent(array, numbers)
    elif column.kind == "datetime":
        if pa.types.is_date(array.type):
            array = array.cast(pa.timestamp("s"))
        if pa.types.is_timestamp(array.type):
            return _seconds(array)
    elif column.kind == "boolean" and pa.types.is_boolean(array.type):
        numbers = _floats(array.cast(pa.uint8()))
        return numbers, np.isnan(numbers)
    if pa.types.is_nested(array.type):
        return np.full(len(array), np.nan), _flags(array.is_null())
    return _by_value(column, array)


def unfamiliar(contract: Contract, matrix: Matrix) -> int:
    """Count the values of a matrix that lie outside of what the model was trained on."""
    low, high = bounds(contract)
    return int(np.count_nonzero((matrix < low) | (matrix > high)))


def reasons(contract: Contract, table: pa.Table, encoded: Encoded) -> list[str]:
    """Say of each broken row, in order, which columns break the contract and how."""
    said = []
    for i in np.flatnonzero(encoded.broken):
        found = []
        for j, column in enumerate(contract.features):
            if encoded.missing[i, j]:
                found.append(f"{column.name}: missing, expected {expected(column)}")
            elif encoded.unreadable[i, j]:
                value = table.column(column.name)[int(i)].as_py()
                found.append(f"{column.name}: expected {expected(column)}, not {shown(value)}")
        said.append("; ".join(found))
    return said


def shown(value: Any) -> str:
    """Show a value, or its beginning."""
    text = repr(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def _numbers(array: pa.Array) -> Matrix | None:
    """Return numbers as they are, text as far as all of it is numbers; None for anything else."""
    kind = array.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _floats(array)
    if pa.types.is_boolean(kind):
        return _floats(array.cast(pa.uint8()))
    if pa.types.is_decimal(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        try:
            return _floats(array.cast(pa.float64()))
        except pa.ArrowInvalid:
            return None
    return None


def _readable(column: Column, numbers: Matrix) -> Matrix:
    usable = np.isfinite(numbers)
    if column.kind == "integer":
        usable &= numbers == np.floor(numbers)
    return numbers if usable.all() else np.where(usable, numbers, np.nan)


def _absent(array: pa.Array, numbers: Matrix) -> Mask:
    # In a column of floats NaN is what is missing; in text it is a word that is no number.
    if pa.types.is_floating(array.type):
        return np.isnan(numbers)
    return _flags(array.is_null()) if array.null_count else np.zeros(len(array), dtype=bool)


def _seconds(array: pa.Array) -> tuple[Matrix, Mask]:
    moments = array.to_numpy(zero_copy_only=False).astype("datetime64[us]")
    missing = np.isnat(moments)
    return np.where(missing, np.nan, moments.astype(np.int64) / 1e6), missing


def _by_value(column: Column, array: pa.Array) -> tuple[Matrix, Mask]:
    if pa.types.is_dictionary(array.type) and array.dictionary.null_count:
        array = array.dictionary_decode()
    if not pa.types.is_dictionary(array.type):
        array = array.dictionary_encode()
    different = array.dictionary.to_pandas()
    if pa.types.is_string(array.type.value_type) or pa.types.is_large_string(array.type.value_type):
        different = different.str.strip()
        different = different.mask(different == "")
    codes = np.append(encode_series(column, different), np.nan)
    missing = np.append(different.isna().to_numpy(dtype=bool), True)
    places = array.indices.cast(pa.int64()).fill_null(len(different)).to_numpy()
    return codes[places], missing[places]


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _floats(array: pa.Array) -> Matrix:
    numbers: Matrix = array.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)
    return numbers


def _flags(array: pa.Array) -> Mask:
    flags: Mask = pc.fill_null(array, False).to_numpy(zero_copy_only=False)
    return flags
