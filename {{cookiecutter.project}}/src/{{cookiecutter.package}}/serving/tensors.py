"""Tensors of the Open Inference Protocol: one for each column, in JSON or as bytes behind it."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import numpy as np

from ..contract import Column, Contract
from ..encoding import shortened
from .answers import encode
from .bodies import loads, native
from .errors import malformed, refused

# As they lie in memory; BYTES have their length before each.
LAYOUT = {
    **{f"INT{8 * size}": f"<i{size}" for size in (1, 2, 4, 8)},
    **{f"UINT{8 * size}": f"<u{size}" for size in (1, 2, 4, 8)},
    **{f"FP{8 * size}": f"<f{size}" for size in (2, 4, 8)},
    "BOOL": "?",
}
NUMBERS = tuple(name for name in LAYOUT if name != "BOOL")
DATATYPES = (*LAYOUT, "BYTES")
# What the values of a column are sent as.
TAKEN: dict[str, tuple[str, ...]] = {
    "numeric": NUMBERS,
    "integer": NUMBERS,
    "boolean": ("BOOL", "BYTES"),
    "categorical": ("BYTES",),
    "datetime": ("BYTES",),
}
# What the metadata say of it.
STATED = {
    "numeric": "FP64",
    "integer": "INT64",
    "boolean": "BOOL",
    "categorical": "BYTES",
    "datetime": "BYTES",
}
JSON_TYPES = {
    **{name: {int, float, type(None)} for name in NUMBERS},
    "BOOL": {bool, type(None)},
    "BYTES": {str, type(None)},
}
SIZE = "binary_data_size"
LENGTH = struct.Struct("<I")


class Tensor(msgspec.Struct):
    """The values of one column."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | None = None
    parameters: dict[str, Any] = {}


class Requested(msgspec.Struct):
    """An output that is asked for."""

    name: str
    parameters: dict[str, Any] = {}


class Inference(msgspec.Struct):
    """A request."""

    inputs: list[Tensor]
    id: str = ""
    outputs: list[Requested] = []
    parameters: dict[str, Any] = {}


_decode = msgspec.json.Decoder(Inference).decode


def parse(contract: Contract, body: bytes, header: int) -> tuple[Inference, bytes]:
    """Read a request, and write its rows as /predict takes them.

    Parameters
    ----------
    contract : Contract
    body : bytes
    header : int
        Length of the JSON at its beginning; the tensors that are sent as bytes come behind.

    Returns
    -------
    request : Inference
    rows : bytes

    Raises
    ------
    RequestError
        Naming the tensor, and what was expected of it.
    """
    request = _request(body[:header])
    known = {column.name: column for column in contract.columns}
    if contract.target:
        known[contract.target.name] = Column(contract.target.name, "excluded")
    columns: dict[str, list[Any]] = {}
    position = header
    for tensor in request.inputs:
        name = tensor.name
        if name in columns:
            raise refused(name, "more than one tensor of this name")
        if name not in known:
            names = shortened([column.name for column in contract.features], 50)
            raise refused(name, f"unknown tensor, expected {names}")
        values, position = _values(known[name], tensor, body, position)
        if columns and len(values) != len(next(iter(columns.values()))):
            first = f"{next(iter(columns))} has {len(next(iter(columns.values())))}"
            raise refused(name, f"{len(values)} values, but {first}")
        columns[name] = values
    if position != len(body):
        raise refused("inputs", f"{len(body) - position} bytes belong to no tensor")
    for column in contract.features:
        if column.name not in columns and not column.nullable:
            raise refused(column.name, f"missing, expected a tensor of {STATED[column.kind]}")
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if not rows:
        raise refused("inputs", "expected a tensor for each column, of at least one row")
    return request, native(rows)


def pack(datatype: str, values: list[Any]) -> bytes:
    """Write values as bytes, text with its length before it."""
    if datatype != "BYTES":
        return np.array(values, dtype=LAYOUT[datatype]).tobytes()
    texts = [value.encode() for value in values]
    return b"".join(part for text in texts for part in (LENGTH.pack(len(text)), text))


def answer(
    content: dict[str, Any], outputs: list[tuple[str, str, list[int], list[Any], bool]]
) -> tuple[bytes, int | None]:
    """Write an answer.

    Parameters
    ----------
    content : dict
        All but its outputs.
    outputs : list of tuple
        Name, datatype, shape, values in row-major order, and whether they are sent as bytes.

    Returns
    -------
    body : bytes
    header : int or None
        Length of the JSON at its beginning, where bytes come behind.
    """
    tensors, behind = [], []
    for name, datatype, shape, values, binary in outputs:
        tensor: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
        if binary:
            behind.append(pack(datatype, values))
            tensor["parameters"] = {SIZE: len(behind[-1])}
        else:
            tensor["data"] = values
        tensors.append(tensor)
    head = encode({**content, "outputs": tensors})
    return b"".join([head, *behind]), len(head) if behind else None


def _request(head: bytes) -> Inference:
    try:
        return _decode(head)
    except (msgspec.DecodeError, RecursionError):
        pass
    try:
        return msgspec.convert(loads(head), Inference)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at ")
        raise refused(place.strip("`").removeprefix("$").lstrip("."), message) from error


def _values(column: Column, tensor: Tensor, body: bytes, position: int) -> tuple[list[Any], int]:
    """Return the values of a tensor, and where the bytes of the next one begin."""
    name, datatype = tensor.name, tensor.datatype
    taken = TAKEN.get(column.kind, DATATYPES)
    if datatype not in taken:
        raise refused(name, f"expected datatype {' or '.join(taken)}, not {datatype!r}")
    shape = tensor.shape
    if len(shape) not in (1, 2) or shape[1:] not in ([], [1]):
        raise refused(name, f"expected shape [n] or [n, 1], not {shape}")
    values: list[Any]
    if SIZE not in tensor.parameters:
        values = _listed(tensor)
    else:
        size = tensor.parameters[SIZE]
        if not isinstance(size, int) or not 0 <= size <= len(body) - position:
            raise refused(name, f"{SIZE} {size!r} is not within the body")
        if tensor.data is not None:
            raise refused(name, f"expected either data or {SIZE}")
        chunk = body[position : position + size]
        position += size
        values = _texts(name, chunk) if datatype == "BYTES" else _unpacked(tensor, chunk)
    if len(values) != shape[0]:
        raise refused(name, f"{len(values)} values, but shape {shape}")
    if datatype == "BYTES":
        # The protocol has no other way to say that a text is missing.
        values = [None if value == "" else value for value in values]
    return values, position


def _listed(tensor: Tensor) -> list[Any]:
    values = tensor.data
    if values is None:
        raise refused(tensor.name, f"expected data, or {SIZE} among the parameters")
    if len(tensor.shape) == 2 and all(isinstance(row, list) and len(row) == 1 for row in values):
        values = [row[0] for row in values]
    if not JSON_TYPES[tensor.datatype].issuperset(map(type, values)):
        raise refused(tensor.name, f"expected values of {tensor.datatype} only, or null")
    return values


def _unpacked(tensor: Tensor, chunk: bytes) -> list[Any]:
    layout = np.dtype(LAYOUT[tensor.datatype])
    if len(chunk) % layout.itemsize:
        wanted = f"a multiple of {layout.itemsize} bytes of {tensor.datatype}"
        raise refused(tensor.name, f"expected {wanted}, not {len(chunk)}")
    numbers = np.frombuffer(chunk, layout)
    if layout.kind == "f" and np.isinf(numbers).any():
        raise refused(tensor.name, "expected numbers, not inf")
    values: list[Any] = numbers.tolist()
    return values


def _texts(name: str, chunk: bytes) -> list[Any]:
    texts: list[Any] = []
    position = 0
    try:
        while position < len(chunk):
            (length,) = LENGTH.unpack_from(chunk, position)
            position += LENGTH.size
            if position + length > len(chunk):
                raise refused(name, f"value {len(texts)} is longer than {SIZE}")
            texts.append(chunk[position : position + length].decode())
            position += length
    except (struct.error, UnicodeDecodeError) as error:
        wanted = "expected UTF-8 with its length before it"
        raise malformed(f"{name}: value {len(texts)}: {wanted} ({error})") from error
    return texts
