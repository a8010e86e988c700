"""Tables in MAT-files: the values that scipy writes, and no memory for what a file only claims."""

import contextlib
import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from sknet.data.sources.mat import MAX_BYTES, MatError, read_table

FIELDS = ("number", "text")


def written(rows: list[tuple[float, str]], **options: bool) -> bytes:
    table = np.empty(len(rows), [("text", object), ("other", object), ("number", object)])
    for position, (number, text) in enumerate(rows):
        table[position] = (text, np.arange(3), number)
    buffer = io.BytesIO()
    savemat(buffer, {"first": np.arange(4), "table": table}, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("packed", [True, False])
@given(
    st.lists(
        st.tuples(
            st.integers(-(2**40), 2**40) | st.floats(allow_nan=False),
            st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1),
        ),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=30)
def test_rows_are_those_that_scipy_wrote(packed: bool, rows: list[tuple[float, str]]) -> None:
    content = written(rows, do_compression=packed)
    assert list(read_table(content, "table", FIELDS)) == rows


def element(kind: int, body: bytes) -> bytes:
    return struct.pack("<II", kind, len(body)) + body + bytes(-len(body) % 8)


def matrix(matrix_class: int, rows: int, columns: int, name: bytes, body: bytes) -> bytes:
    flags = element(6, struct.pack("<II", matrix_class, 0))
    return element(
        14, flags + element(5, struct.pack("<ii", rows, columns)) + element(1, name) + body
    )


def fields(*names: str) -> bytes:
    packed = b"".join(name.encode().ljust(8, b"\0") for name in names)
    return element(5, struct.pack("<i", 8)) + element(1, packed)


HEADER = bytes(124) + b"\0\1IM"
CELL, STRUCT, CHAR, DOUBLE = 1, 2, 4, 6
HUGE = (1 << 30, 1 << 30)
NUMBER = matrix(DOUBLE, 1, 1, b"", element(9, bytes(8)))


def row(text: bytes) -> bytes:
    """Return a table of one row, whose number is 0."""
    return matrix(STRUCT, 1, 1, b"table", fields(*FIELDS) + NUMBER + text)


BOMBS = {
    "rows": matrix(STRUCT, *HUGE, b"table", fields(*FIELDS)),
    "fields": matrix(STRUCT, 99_999, 1, b"table", fields(*FIELDS, *map(str, range(5000)))),
    "a text": row(matrix(CHAR, *HUGE, b"", b"")),
    "structs": row(matrix(STRUCT, *HUGE, b"", fields("a"))),
    "cells": row(matrix(CELL, *HUGE, b"", b"")),
    "bytes": struct.pack("<II", 14, 0xFFFF_FFF0),
    "zeros": matrix(DOUBLE, MAX_BYTES // 8, 1, b"table", element(9, bytes(6 * MAX_BYTES))),
    "zeros of another variable": matrix(DOUBLE, 1, 1, b"x", element(9, bytes(6 * MAX_BYTES))),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_what_a_file_claims_takes_no_memory(bomb: str) -> None:
    packed = zlib.compress(BOMBS[bomb])
    content = HEADER + struct.pack("<II", 15, len(packed)) + packed
    assert len(content) < 120_000
    tracemalloc.start()
    with pytest.raises(MatError):
        list(read_table(content, "table", FIELDS))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 3 * MAX_BYTES


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is no MAT-file of version 5"),
        (HEADER, "it has no variable 'table'"),
        (HEADER + b"123", "it is cut off"),
        (HEADER + element(9, bytes(8)), "it has an element of type 9 where a matrix is expected"),
        (HEADER + matrix(DOUBLE, 1, 1, b"table", b""), "variable 'table' is no struct array"),
        (HEADER + matrix(STRUCT, 1, 1, b"table", fields("a")), "has no field 'number'"),
        (HEADER + matrix(STRUCT, 1, 1, b"table", b""), "it is cut off"),
    ],
)
def test_other_files_are_refused_with_the_reason(content: bytes, message: str) -> None:
    with pytest.raises(MatError, match=message):
        list(read_table(content, "table", FIELDS))


@settings(max_examples=200)
@given(st.data())
def test_damaged_file_is_read_or_refused(data: st.DataObject) -> None:
    content = bytearray(written([(1, "one"), (2, "two")], do_compression=False))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(124, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError):
        list(read_table(bytes(content), "table", FIELDS))
