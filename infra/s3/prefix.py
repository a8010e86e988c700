"""The objects under `s3://bucket/prefix` as a directory: listed, and read despite lost connections.

Endpoint, region, credentials and certificates come from the standard AWS settings.
"""

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    FlexibleChecksumError,
    HTTPClientError,
    SSLError,
)

from infra.s3.client import Location, new_client
from infra.s3.errors import (
    NOT_IMPLEMENTED,
    DamagedObjectError,
    Retry,
    S3Error,
    error_number,
    reason,
    retry_of,
)

# The default of 3 survives two faults, but no restart of a server.
ATTEMPTS = 10
BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class S3Object:
    """An object without its content."""

    path: str
    """Key without the prefix."""
    size: int
    etag: str


class Prefix:
    """A bucket's objects under one prefix, read like a directory.

    Args:
        uri: `s3://bucket/prefix`.

    Raises:
        S3Error: The URI has another form, or the bucket can't be listed.
    """

    def __init__(self, uri: str) -> None:
        location = Location.parse(uri)
        self._bucket = location.bucket
        self._prefix = location.prefix
        self._client = _new_client()
        self._without_sums: Any = None
        self.children("")

    def children(self, folder: str) -> tuple[list[str], list[str]]:
        """Return the sorted names of the folders and of the objects directly in a folder."""
        start = self._key(folder, is_folder=True)
        folders: list[str] = []
        files: list[str] = []
        for page in self._pages(start, Delimiter="/"):
            folders += [item["Prefix"][len(start) : -1] for item in page.get("CommonPrefixes", [])]
            files += [item["Key"][len(start) :] for item in page.get("Contents", [])]
        return sorted(filter(None, folders)), sorted(filter(None, files))

    def objects(self, folder: str) -> Iterator[S3Object]:
        """Yield every object below a folder, sorted by key, without the markers of folders."""
        for page in self._pages(self._key(folder, is_folder=True)):
            for item in page.get("Contents", []):
                if not item["Key"].endswith("/"):
                    path = item["Key"].removeprefix(self._prefix)
                    yield S3Object(path, item["Size"], item["ETag"].strip('"'))

    def object(self, path: str) -> S3Object | None:
        """Return an object; None if there is no such object."""
        try:
            head = self._client.head_object(Bucket=self._bucket, Key=self._key(path))
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return None
            raise _error(error) from None
        except BotoCoreError as error:
            raise _error(error) from None
        return S3Object(path, head["ContentLength"], head["ETag"].strip('"'))

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        """Return an object's content, or at most `size` bytes of it from `offset` on.

        Raises:
            S3Error: S3 refused or can't be reached.
            DamagedObjectError: Twice, the bytes don't have the checksum that S3 has stored.
        """
        with contextlib.suppress(DamagedObjectError), self.open(path, offset, size) as file:
            return file.read()
        with self.open(path, offset, size) as file:
            return file.read()

    def open(self, path: str, offset: int = 0, size: int | None = None) -> BinaryIO:
        """Open an object, or at most `size` bytes of it from `offset` on, for reading in order."""
        raw = _ObjectReader(self._get, self._bucket, self._key(path), offset, size)
        return io.BufferedReader(raw, BUFFER_BYTES)

    def _get(self, **request: str) -> dict[str, Any]:
        """Request an object with its checksum, unless the server refuses to be asked for it."""
        client = self._client
        try:
            answer: dict[str, Any] = client.get_object(**request)
            return answer
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if client is self._without_sums or status not in (400, NOT_IMPLEMENTED):
                raise
        if self._without_sums is None:
            self._without_sums = _new_client(response_checksum_validation="when_required")
        self._client = self._without_sums
        return self._get(**request)

    def _key(self, path: str, *, is_folder: bool = False) -> str:
        return self._prefix + path + ("/" if is_folder and path else "")

    def _pages(self, prefix: str, **options: str) -> Iterator[dict[str, Any]]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=prefix, **options
        )
        try:
            yield from pages
        except (ClientError, BotoCoreError) as error:
            raise _error(error) from None


class _ObjectReader(io.RawIOBase):
    """Reads one version of an object, and continues on a new connection when one breaks.

    Requests only the bytes that are needed, because an answer that isn't read to its end costs the
    connection.
    """

    def __init__(
        self,
        get: Callable[..., dict[str, Any]],
        bucket: str,
        key: str,
        offset: int,
        size: int | None,
    ) -> None:
        self._get = get
        self._address = {"Bucket": bucket, "Key": key}
        self._position = offset
        self._last = "" if size is None else str(offset + size - 1)
        self._end: int | None = None
        self._body: Any = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer.

        Raises:
            S3Error: S3 refused or can't be reached, or the object was replaced meanwhile.
            DamagedObjectError: The bytes don't have the checksum that S3 has stored.
        """
        for attempt in range(ATTEMPTS):
            try:
                if self._body is None and not self._connect():
                    return 0
                content: bytes = self._body.read(len(buffer))
                self._position += len(content)
                if not content and self._end is not None and self._position < self._end:
                    raise EOFError("the connection ended early")
                buffer[: len(content)] = content
                return len(content)
            except ClientError as error:
                raise _error(error) from None
            except FlexibleChecksumError as error:
                raise DamagedObjectError(0, reason(error)) from None
            except (BotoCoreError, HTTPClientError, EOFError, OSError) as error:
                self._drop()
                if attempt + 1 == ATTEMPTS:
                    raise _error(error) from None
        raise AssertionError("unreachable")

    def close(self) -> None:
        self._drop()
        super().close()

    def _drop(self) -> None:
        if self._body is not None:
            self._body.close()
        self._body = None

    def _connect(self) -> bool:
        """Request the rest of the object; return whether there is any."""
        if self._end is not None and self._position >= self._end:
            return False
        request = {**self._address}
        if self._position or self._last:
            request["Range"] = f"bytes={self._position}-{self._last}"
        try:
            answer = self._get(**request)
        except ClientError as error:
            if error.response["Error"]["Code"] == "InvalidRange":
                return False
            raise
        # From now on, read only this version.
        self._address["IfMatch"] = answer["ETag"]
        self._end = self._position + answer["ContentLength"]
        self._body = answer["Body"]
        return True


def _new_client(**options: str) -> Any:
    retries = {"mode": "standard", "total_max_attempts": ATTEMPTS}
    client = new_client(retries=retries, **options)
    client.meta.events.register_first("needs-retry.s3", _end_hopeless_retries)
    return client


def _end_hopeless_retries(caught_exception: Exception | None, **_: Any) -> None:
    """Raise the error of a request that botocore would repeat although it can't succeed."""
    if (
        isinstance(caught_exception, SSLError)
        and retry_of(caught_exception) is not Retry.UNTIL_BUDGET_ENDS
    ):
        raise caught_exception


def _error(error: Exception) -> S3Error:
    return S3Error(error_number(error), reason(error))
