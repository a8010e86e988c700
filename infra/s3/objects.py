"""What a bucket tells of its objects, and what a write may expect to find."""

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, TypeVar

from infra.s3.attempts import Attempt, Operation
from infra.s3.errors import Absent, AnswerError

SHA256_NAME = "sha256"
"""The user-defined metadata of every object that is written here: x-amz-meta-sha256."""


class Expect(Enum):
    """What a write expects at its key; an ETag instead expects that very object."""

    ABSENT = "absent"
    ANY = "any"


ABSENT = Expect.ABSENT

ANY = Expect.ANY


@dataclass(frozen=True, slots=True)
class Listed:
    """An object without its content."""

    key: str
    """Without the bucket's prefix."""
    size: int
    etag: str
    modified: datetime


@dataclass(frozen=True, slots=True)
class Stored:
    """An object with its content."""

    content: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class StaleUpload:
    """A multipart upload that was neither completed nor aborted."""

    key: str
    """Without the bucket's prefix."""
    upload_id: str
    initiated: datetime


def condition(expected: Expect | str) -> dict[str, str]:
    """The parameters of a conditional write."""
    match expected:
        case Expect.ABSENT:
            return {"IfNoneMatch": "*"}
        case Expect.ANY:
            return {}
        case etag:
            return {"IfMatch": f'"{etag}"'}


def etag_of(answer: dict[str, Any]) -> str:
    """Raises AnswerError."""
    try:
        return str(answer["ETag"]).strip('"')
    except KeyError:
        raise AnswerError("an answer without an ETag") from None


def length_of(answer: dict[str, Any]) -> int:
    """Raises AnswerError."""
    try:
        return int(answer["ContentLength"])
    except KeyError:
        raise AnswerError("an answer without a length") from None


def head(operation: Operation, where: dict[str, str]) -> dict[str, Any] | None:
    """S3's word on an object, None if there is no such object. Raises S3Error."""

    def request(client: Any, _: Attempt) -> dict[str, Any]:
        answer: dict[str, Any] = client.head_object(**where)
        etag_of(answer)
        length_of(answer)
        return answer

    try:
        return operation.run(request)
    except Absent:
        return None


def recorded_sha256(answer: dict[str, Any]) -> str | None:
    """The SHA-256 that the object was written with."""
    value = answer.get("Metadata", {}).get(SHA256_NAME)
    return None if value is None else str(value)


def checksum(sha256: str) -> str:
    """A SHA-256 as S3's headers have it."""
    return base64.b64encode(bytes.fromhex(sha256)).decode()


def check_content(answer: dict[str, Any], content: bytes) -> None:
    """Compare with what was recorded at writing. Raises AnswerError.

    What others wrote has no SHA-256, but mostly an ETag that is an MD5; without either it is
    as good as its connection.
    """
    recorded, etag = recorded_sha256(answer), etag_of(answer)
    if recorded is not None:
        agrees = hashlib.sha256(content).hexdigest() == recorded
    elif re.fullmatch(r"[0-9a-f]{32}", etag):
        agrees = hashlib.md5(content, usedforsecurity=False).hexdigest() == etag
    else:
        agrees = True
    if not agrees:
        raise AnswerError(f"{len(content):,} bytes that don't have the checksum of the object")


T = TypeVar("T")


def pages(
    begin: Callable[[], Operation],
    method: str,
    where: dict[str, str],
    parse: Callable[[dict[str, Any]], Iterable[T]],
) -> Iterator[T]:
    """What `parse` finds in each answer; each page is an operation with a budget of its own.

    Raises S3Error.
    """
    marks: dict[str, str] = {}
    while True:
        with begin() as operation:
            found, following = operation.run(_page(method, where | marks, parse))
        yield from found
        if following is None:
            return
        marks = following


def _page(
    method: str, request: dict[str, str], parse: Callable[[dict[str, Any]], Iterable[T]]
) -> Callable[[Any, Attempt], tuple[list[T], dict[str, str] | None]]:
    def ask(client: Any, _: Attempt) -> tuple[list[T], dict[str, str] | None]:
        page = getattr(client, method)(**request)
        try:
            return list(parse(page)), _following(page)
        except KeyError as missing:
            raise AnswerError(f"a listing without {missing}") from None

    return ask


def _following(page: dict[str, Any]) -> dict[str, str] | None:
    """The parameters that ask for the next page, None after the last. Raises KeyError."""
    if not page["IsTruncated"]:
        return None
    if "NextContinuationToken" in page:
        return {"ContinuationToken": page["NextContinuationToken"]}
    return {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}
