"""Descriptions of objects, conditions of writes, and the answers and listings of S3."""

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, TypeVar

from infra.s3.attempts import Attempt, Operation, Request
from infra.s3.errors import Absent, AnswerError
from infra.s3.profile import Etags

SHA256_NAME = "sha256"
"""User-defined metadata of every object that is written here: x-amz-meta-sha256."""

T = TypeVar("T")


class Expect(Enum):
    """What a write expects to find under its key; an ETag instead means that very object."""

    ABSENT = "absent"
    ANY = "any"


ABSENT = Expect.ABSENT
ANY = Expect.ANY


@dataclass(frozen=True, slots=True)
class ListedObject:
    """An object without its content."""

    key: str
    """Key without the bucket's prefix."""
    size: int
    etag: str
    modified: datetime


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object's content."""

    content: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class StaleUpload:
    """A multipart upload that was neither completed nor aborted."""

    key: str
    """Key without the bucket's prefix."""
    upload_id: str
    initiated: datetime


def condition(expected: Expect | str, etags: Etags) -> dict[str, str]:
    """Return the parameters of a conditional write, for a server that takes ETags so."""
    match expected:
        case Expect.ABSENT:
            return {"IfNoneMatch": "*"}
        case Expect.ANY:
            return {}
        case etag:
            return {"IfMatch": f'"{etag}"' if etags == "quoted" else etag}


def head(operation: Operation, address: dict[str, str]) -> dict[str, Any] | None:
    """Return S3's answer about an object; None if there is no such object.

    Raises:
        S3Error: S3 refused, or can't be reached in time.
    """

    def request(client: Any, _: Attempt) -> dict[str, Any]:
        answer: dict[str, Any] = client.head_object(**address)
        etag_of(answer)
        length_of(answer)
        return answer

    try:
        return operation.run(request)
    except Absent:
        return None


def etag_of(answer: dict[str, Any]) -> str:
    """Return the ETag without its quotation marks.

    Raises:
        AnswerError: There is none.
    """
    try:
        return str(answer["ETag"]).strip('"')
    except KeyError:
        raise AnswerError("an answer without an ETag") from None


def length_of(answer: dict[str, Any]) -> int:
    """Return the number of bytes.

    Raises:
        AnswerError: There is none.
    """
    try:
        return int(answer["ContentLength"])
    except KeyError:
        raise AnswerError("an answer without a length") from None


def sha256_of(answer: dict[str, Any]) -> str | None:
    """Return the SHA-256 with which the object was written; None if others wrote it without."""
    value = answer.get("Metadata", {}).get(SHA256_NAME)
    return None if value is None else str(value)


def as_header(digest: bytes) -> str:
    """Return a digest in the form of S3's headers, base64."""
    return base64.b64encode(digest).decode()


def check_content(answer: dict[str, Any], content: bytes) -> None:
    """Compare the content with the object's checksum.

    Objects that others wrote have no SHA-256, but mostly an ETag that is the MD5. Without either,
    nothing is compared.

    Raises:
        AnswerError: They differ.
    """
    sha256, etag = sha256_of(answer), etag_of(answer)
    if sha256 is not None:
        agrees = hashlib.sha256(content).hexdigest() == sha256
    elif re.fullmatch(r"[0-9a-f]{32}", etag):
        agrees = hashlib.md5(content, usedforsecurity=False).hexdigest() == etag
    else:
        agrees = True
    if not agrees:
        raise AnswerError(f"{len(content):,} bytes that don't have the checksum of the object")


def list_pages(
    begin: Callable[[], Operation],
    method: str,
    parameters: dict[str, str],
    parse: Callable[[dict[str, Any]], Iterable[T]],
) -> Iterator[T]:
    """Yield what `parse` returns for each page of a listing.

    Args:
        begin: Returns the operation for a page, so that each page has its own time.
        method: The client's method that lists.
        parameters: Its parameters.
        parse: Returns the entries of a page.

    Raises:
        S3Error: S3 refused, or can't be reached in time.
    """
    marker: dict[str, str] = {}
    while True:
        with begin() as operation:
            entries, following = operation.run(_page(method, parameters | marker, parse))
        yield from entries
        if following is None:
            return
        marker = following


def _page(
    method: str, parameters: dict[str, str], parse: Callable[[dict[str, Any]], Iterable[T]]
) -> Request[tuple[list[T], dict[str, str] | None]]:
    def request(client: Any, _: Attempt) -> tuple[list[T], dict[str, str] | None]:
        page = getattr(client, method)(**parameters)
        try:
            return list(parse(page)), _next_marker(page)
        except KeyError as missing:
            raise AnswerError(f"a listing without {missing}") from None

    return request


def _next_marker(page: dict[str, Any]) -> dict[str, str] | None:
    """Return the parameters that ask for the next page; None after the last.

    Raises:
        KeyError: The page has no marker although it is not the last.
    """
    if not page["IsTruncated"]:
        return None
    if "NextContinuationToken" in page:
        return {"ContinuationToken": page["NextContinuationToken"]}
    return {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}
