"""Records: equal content gives equal bytes, and a file that holds no such record is refused."""

import hashlib
import json
import math
from pathlib import Path

import pytest
from pydantic import ValidationError

from infra.base import records
from infra.base.outcomes import UserError
from infra.base.records import Record


class Point(Record):
    x: float
    name: str = "é"


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        Point.read(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    Point(x=1).write(tmp_path / "point.json")
    assert Point.read(tmp_path / "point.json") == Point(x=1)


def test_a_document_is_sorted_indented_json_in_ascii() -> None:
    assert Point(x=0.5).encode() == b'{\n "name": "\\u00e9",\n "x": 0.5\n}\n'


def test_the_content_digest_is_sha256_of_sorted_json() -> None:
    content = json.dumps({"x": 0.5, "name": "é"}, sort_keys=True)
    assert Point(x=0.5).content_digest == hashlib.sha256(content.encode()).hexdigest()


def test_a_record_is_frozen_and_takes_neither_unknown_fields_nor_nan() -> None:
    for fields in ({"x": 1, "y": 2}, {"x": math.nan}, {"x": math.inf}, {}):
        with pytest.raises(ValidationError):
            Point(**fields)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="frozen"):
        Point(x=1).x = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is no valid Point: : Invalid JSON"),
        (b"[]", "is no valid Point: : Input should be an object"),
        (b'{"x": "a"}', "is no valid Point: x: Input should be a valid number"),
        (b'{"x": 1, "y": 2}', "is no valid Point: y: Extra inputs are not permitted"),
    ],
)
def test_a_file_that_holds_no_such_record_is_refused_in_one_line(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "point.json"
    path.write_bytes(content)
    assert refusal(path).startswith(f"{path} {reason}")


def test_a_file_that_cannot_be_read_is_refused_with_the_reason(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none").endswith("none can't be read: No such file or directory")
    assert refusal(tmp_path).endswith("can't be read: Is a directory")


def test_no_more_is_read_of_a_file_than_a_record_may_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "MAX_RECORD_BYTES", 100)
    assert refusal(Path("/dev/zero")) == "/dev/zero is larger than 100 bytes"
    Point(x=1).write(tmp_path / "point.json")
    assert Point.read(tmp_path / "point.json") == Point(x=1)
