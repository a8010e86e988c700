"""MAT-files of version 5, as far as a table of numbers and texts needs it.

scipy reads all of them, but believes what they claim: 12 KB make it fill gigabytes. Here a variable
is unpacked up to a limit, and nothing is made for elements whose bytes are not there.
Source: MathWorks, "MAT-File Format", version 5.
"""

import itertools
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

MAX_BYTES = 1 << 24
"""Most bytes of an unpacked variable. ImageNet's table of synsets has less than 2 MB."""

_HEADER_BYTES = 128
_ALIGNMENT = 8
"""Elements begin at multiples of as many bytes."""

# Types of elements.
_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = dict(enumerate(["i1", "u1", "i2", "u2", "i4", "u4", "f4"], 1))
_NUMBERS |= {9: "f8", 12: "i8", 13: "u8"}
"""Types of numbers, as numpy names them."""
_ENCODINGS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}

# Classes of matrices.
_STRUCT, _CHAR, _NUMERIC = 2, 4, range(6, 16)


class MatError(ValueError):
    """The content is no such file, or the table is not in it."""


@dataclass(frozen=True)
class _Element:
    kind: int
    body: bytes


@dataclass(frozen=True)
class _Matrix:
    """An array of whatever class."""

    matrix_class: int
    size: int
    """Number of its elements, as it claims."""
    name: str
    parts: Iterator[_Element]
    """What follows the name."""


def read_table(
    content: bytes, variable: str, fields: tuple[str, ...]
) -> Iterator[tuple[float | str, ...]]:
    """Yield the rows of a struct array.

    Args:
        content: The file.
        variable: Name of the array.
        fields: Names of the fields to read, each of which holds a number or a text in every row.

    Raises:
        MatError: The content is no MAT-file of version 5, or has no such array.
    """
    mark = content[_HEADER_BYTES - 2 : _HEADER_BYTES]
    if mark not in (b"IM", b"MI"):
        raise MatError("it is no MAT-file of version 5")
    reader = _Reader("little" if mark == b"IM" else "big")
    for element in reader.elements(content[_HEADER_BYTES:]):
        if element.kind == _COMPRESSED:
            element = _first(reader.elements(_inflated(element.body)))
        matrix = reader.matrix(element)
        if matrix.name == variable:
            return reader.rows(matrix, fields)
    raise MatError(f"it has no variable {variable!r}")


class _Reader:
    def __init__(self, byte_order: Literal["little", "big"]) -> None:
        self._byte_order = byte_order
        self._order = "<" if byte_order == "little" else ">"

    def elements(self, content: bytes) -> Iterator[_Element]:
        position = 0
        while position < len(content):
            if position + 8 > len(content):
                raise MatError("it is cut off")
            kind, size = struct.unpack_from(f"{self._order}II", content, position)
            start = position + 8
            if kind >> 16:  # a small element: two bytes each for size and type, then the content
                kind, size, start = kind & 0xFFFF, kind >> 16, position + 4
            end = start + size
            if end > len(content):
                raise MatError("it is cut off")
            yield _Element(kind, content[start:end])
            position = end if kind == _COMPRESSED else end + -end % _ALIGNMENT

    def matrix(self, element: _Element) -> _Matrix:
        if element.kind != _MATRIX:
            raise MatError(f"it has an element of type {element.kind} where a matrix is expected")
        parts = self.elements(element.body)
        flags, dimensions, name = (_first(parts).body for _ in range(3))
        return _Matrix(
            int.from_bytes(flags[:4], self._byte_order) & 0xFF,
            math.prod(self._integers(dimensions)),
            name.decode("latin-1"),
            parts,
        )

    def rows(self, matrix: _Matrix, fields: tuple[str, ...]) -> Iterator[tuple[float | str, ...]]:
        if matrix.matrix_class != _STRUCT:
            raise MatError(f"variable {matrix.name!r} is no struct array")
        (width,) = self._integers(_first(matrix.parts).body) or [0]
        packed = _first(matrix.parts).body
        if width <= 0 or len(packed) % width:
            raise MatError(f"variable {matrix.name!r} has damaged names of fields")
        starts = range(0, len(packed), width)
        names = [packed[at : at + width].split(b"\0")[0].decode("latin-1") for at in starts]
        if missing := set(fields) - set(names):
            raise MatError(f"variable {matrix.name!r} has no field {min(missing)!r}")
        positions = [names.index(field) for field in fields]
        for _ in itertools.repeat(None, matrix.size):
            row = [_first(matrix.parts) for _ in names]
            yield tuple(self._value(row[position]) for position in positions)

    def _value(self, element: _Element) -> float | str:
        matrix = self.matrix(element)
        data = _first(matrix.parts)
        if matrix.matrix_class == _CHAR and data.kind in _ENCODINGS:
            encoding = _ENCODINGS[data.kind]
            if encoding in ("utf-16", "utf-32"):
                encoding += "-le" if self._order == "<" else "-be"
            return data.body.decode(encoding, "replace")
        if matrix.matrix_class in _NUMERIC and data.kind in _NUMBERS:
            kind = np.dtype(self._order + _NUMBERS[data.kind])
            if len(data.body) == kind.itemsize:
                return float(np.frombuffer(data.body, kind)[0])
        raise MatError("a field holds neither a number nor a text")

    def _integers(self, body: bytes) -> list[int]:
        """Return non-negative int32 values."""
        values = np.frombuffer(body[: len(body) // 4 * 4], f"{self._order}i4").tolist()
        return [max(0, value) for value in values]


def _first(elements: Iterator[_Element]) -> _Element:
    element = next(elements, None)
    if element is None:
        raise MatError("it is cut off")
    return element


def _inflated(packed: bytes) -> bytes:
    try:
        content = zlib.decompressobj().decompress(packed, MAX_BYTES + 1)
    except zlib.error as error:
        raise MatError(str(error)) from None
    if len(content) > MAX_BYTES:
        raise MatError(f"a variable has more than {MAX_BYTES} bytes")
    return content
