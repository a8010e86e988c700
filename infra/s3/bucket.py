"""The objects below `s3://bucket/prefix`, written and read so that no fault loses or fakes one.

Endpoint, region, credentials and certificates come from the standard AWS settings.
"""

import contextlib
import errno
import hashlib
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from botocore.exceptions import ClientError

from infra.s3.attempts import (
    BUDGET_SECONDS,
    DEFAULT_LIMITS,
    SLOWEST_TRANSFER,
    Attempt,
    Limits,
    Operation,
    Request,
)
from infra.s3.client import Clients, Location
from infra.s3.errors import (
    Absent,
    ConditionFailed,
    DamagedObjectError,
    PreconditionError,
    S3Error,
    TooLarge,
    UploadGone,
)
from infra.s3.multipart import abort, copy
from infra.s3.objects import (
    ABSENT,
    SHA256_NAME,
    Expect,
    Listed,
    StaleUpload,
    Stored,
    check_content,
    checksum,
    condition,
    etag_of,
    head,
    length_of,
    pages,
)
from infra.s3.transfers import LocalFile, Reading, upload

MOST_DELETED = 1000
"""Keys that one request may name."""
_NO_ETAG = "0" * 32

T = TypeVar("T")


class Bucket:
    """Objects under one prefix of a bucket; keys are relative to it. Safe for several threads.

    Every method raises S3Error when S3 refuses or isn't reached within the budget. A request whose
    answer got lost is sent again, and a conditional write recognises what it wrote itself. What is
    written unconditionally or deleted may still happen some time after an error.
    """

    def __init__(
        self,
        location: str,
        *,
        budget: float = BUDGET_SECONDS,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """No request yet. `budget`: seconds for one call; a transfer gets more for its size.

        Raises S3Error if the location is none.
        """
        place = Location.parse(location)
        self.location = str(place)
        self._bucket = place.bucket
        self._prefix = place.prefix
        self._budget = budget
        self._limits = limits
        self._clients = Clients()

    def __repr__(self) -> str:
        return f"Bucket({self.location!r})"

    def within(self, budget: float) -> "Bucket":
        """The same objects, with other seconds for one call."""
        other = Bucket(self.location, budget=budget, limits=self._limits)
        other._clients = self._clients
        return other

    @property
    def endpoint(self) -> str:
        """The address of the service. Raises S3Error if the settings give none."""
        return str(self._clients.current().meta.endpoint_url)

    def check(self, *, write: bool) -> None:
        """That the bucket exists and may be listed; `write`: that conditional writes work."""
        with self._operation("can't be listed") as operation:
            where = {"Bucket": self._bucket, "Prefix": self._prefix}
            operation.run(lambda client, _: client.list_objects_v2(**where, MaxKeys=1))
        if not write:
            return
        key = f".probe-{uuid.uuid4().hex}"
        self.put(key, b"1", expected=ABSENT)
        try:
            for expected in (ABSENT, _NO_ETAG):
                with contextlib.suppress(PreconditionError):
                    self.put(key, b"2", expected=expected)
                    raise S3Error(
                        errno.ENOTSUP,
                        f"{self.location}: the server ignores the conditions of writes "
                        "(If-Match, If-None-Match), without which two writers can't be told apart",
                    )
        finally:
            self.delete([key])

    def get(self, key: str, *, max_bytes: int) -> Stored | None:
        """A small object, or None if there is none. Raises DamagedObjectError if it is larger."""
        with self._operation("can't be read", key) as operation:
            try:
                return self._get(operation, key, max_bytes)
            except TooLarge as error:
                finding = f"{error.size:,} bytes, expected at most {max_bytes:,}"
                raise DamagedObjectError(errno.EFBIG, f"{operation.what}: {finding}") from None

    def put(self, key: str, content: bytes, *, expected: Expect | str) -> str:
        """Write a small object, return its ETag.

        Raises PreconditionError if something else is there than expected, and not this content.
        """
        options = {
            "Metadata": {SHA256_NAME: hashlib.sha256(content).hexdigest()},
            "ChecksumSHA256": checksum(hashlib.sha256(content).hexdigest()),
            **condition(expected),
        }

        def request(client: Any, _: Attempt) -> str:
            return etag_of(client.put_object(**self._at(key), Body=content, **options))

        with self._operation("can't be written", key, len(content)) as operation:
            try:
                return operation.run(request, len(content))
            except (ConditionFailed, Absent):
                found = self._content_or_etag(operation, key, len(content))
        if isinstance(found, Stored) and found.content == content:
            return found.etag
        etag = found.etag if isinstance(found, Stored) else found
        raise PreconditionError.found(operation.what, etag)

    def head(self, key: str) -> Listed | None:
        """An object without its content, or None if there is none."""
        with self._operation("can't be looked up", key) as operation:
            found = head(operation, self._at(key))
        if found is None:
            return None
        return Listed(key, length_of(found), etag_of(found), found["LastModified"])

    def folders(self, prefix: str) -> list[str]:
        """Names of the direct children of a prefix that have children themselves, sorted.

        Some servers still name one whose last object is gone.
        """
        start = len(self._prefix + prefix)

        def names(page: dict[str, Any]) -> Iterable[str]:
            return [item["Prefix"][start:-1] for item in page.get("CommonPrefixes", [])]

        return sorted(self._listing("list_objects_v2", prefix, names, Delimiter="/"))

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; those that aren't there are no error."""
        names = [{"Key": self._prefix + key} for key in keys]
        for start in range(0, len(names), MOST_DELETED):
            request = self._deletion(names[start : start + MOST_DELETED])
            with self._operation("can't be deleted from") as operation:
                operation.run(request)

    def copy(self, source: str, target: str) -> None:
        """An object of any size to another key, by the server alone."""
        with self._operation("can't be copied", source) as operation:
            found = head(operation, self._at(source))
        if found is None:
            raise S3Error(errno.ENOENT, f"{operation.what}: no such object")
        with self._operation(f"can't be copied to {target}", source, length_of(found)) as operation:
            try:
                copy(operation, self._at(source), found, self._at(target), self._limits)
            except (Absent, ConditionFailed):
                raise S3Error(0, f"{operation.what}: it changed meanwhile") from None

    def upload(
        self, path: Path, key: str, *, size: int, sha256: str, expected: Expect | str
    ) -> None:
        """Write a file of any size; an object appears whole or not at all.

        Raises PreconditionError if something else is there than expected, and not these bytes;
        S3Error too if the file hasn't this size and SHA-256; the file's own OSError.
        """
        with self._operation("can't be written", key, size) as operation:
            file = LocalFile(path, size, sha256)
            upload(operation, self._at(key), file, expected, self._limits)

    def download(self, key: str, path: Path, *, size: int, sha256: str) -> None:
        """Write a new file. After an error there is none.

        Raises DamagedObjectError if the object isn't these bytes; the file's own OSError.
        """
        with path.open("x+b") as file:
            try:
                with self._operation("can't be fetched", key, size) as operation:
                    self._reading(operation, key, size).into_file(file.fileno(), sha256)
            except BaseException:
                path.unlink(missing_ok=True)
                raise

    def sha256(self, key: str, *, size: int) -> str:
        """The digest of an object's bytes. Raises DamagedObjectError if it has another size."""
        with self._operation("can't be verified", key, size) as operation:
            return self._reading(operation, key, size).sha256()

    def stale_uploads(self, older_than: timedelta) -> list[StaleUpload]:
        """Multipart uploads that were begun so long ago and never ended: they cost storage."""
        latest = datetime.now(UTC) - older_than
        start = len(self._prefix)

        def uploads(page: dict[str, Any]) -> Iterable[StaleUpload]:
            return [
                StaleUpload(item["Key"][start:], item["UploadId"], item["Initiated"])
                for item in page.get("Uploads", [])
            ]

        found = self._listing("list_multipart_uploads", "", uploads)
        return [upload for upload in found if upload.initiated <= latest]

    def abort(self, upload: StaleUpload) -> None:
        """Give up a multipart upload; that it is over already is no error."""
        with contextlib.suppress(UploadGone):
            abort(
                self._operation("can't be aborted", upload.key),
                self._at(upload.key),
                upload.upload_id,
            )

    def list(self, prefix: str) -> Iterator[Listed]:
        """Every object whose key begins with `prefix`, sorted by key."""
        start = len(self._prefix)

        def entries(page: dict[str, Any]) -> Iterable[Listed]:
            return [
                Listed(
                    item["Key"][start:], item["Size"], item["ETag"].strip('"'), item["LastModified"]
                )
                for item in page.get("Contents", [])
            ]

        # Not every server sorts by bytes, as S3 does.
        found = self._listing("list_objects_v2", prefix, entries)
        return iter(sorted(found, key=lambda entry: entry.key.encode()))

    def _listing(
        self,
        method: str,
        prefix: str,
        parse: Callable[[dict[str, Any]], Iterable[T]],
        **options: str,
    ) -> Iterator[T]:
        where = {"Bucket": self._bucket, "Prefix": self._prefix + prefix, **options}
        return pages(lambda: self._operation("can't be listed"), method, where, parse)

    def _deletion(self, names: Sequence[dict[str, str]]) -> Request[None]:
        def request(client: Any, _: Attempt) -> None:
            answer = client.delete_objects(
                Bucket=self._bucket, Delete={"Objects": names, "Quiet": True}
            )
            for failed in answer.get("Errors", []):
                said = f"{failed.get('Key')}: {failed.get('Message')}"
                error = {"Code": failed.get("Code", ""), "Message": said}
                metadata = answer["ResponseMetadata"]
                raise ClientError({"Error": error, "ResponseMetadata": metadata}, "DeleteObjects")

        return request

    def _get(self, operation: Operation, key: str, max_bytes: int) -> Stored | None:
        """Raises TooLarge."""

        def request(client: Any, _: Attempt) -> Stored:
            # botocore compares with the checksum that S3 stored, where it can.
            answer = client.get_object(**self._at(key), ChecksumMode="ENABLED")
            with contextlib.closing(answer["Body"]) as body:
                etag, size = etag_of(answer), length_of(answer)
                if size > max_bytes:
                    raise TooLarge(size, etag)
                content = body.read()
            check_content(answer, content)
            return Stored(content, etag)

        try:
            return operation.run(request, max_bytes)
        except Absent:
            return None

    def _content_or_etag(self, operation: Operation, key: str, size: int) -> Stored | str | None:
        """What is there now; of a larger object the ETag only."""
        try:
            return self._get(operation, key, size)
        except TooLarge as larger:
            return larger.etag

    def _reading(self, operation: Operation, key: str, size: int) -> Reading:
        return Reading(operation, self._at(key), size=size, limits=self._limits)

    def _operation(self, what: str, key: str = "", size: int = 0) -> Operation:
        seconds = self._budget + size / SLOWEST_TRANSFER
        name = f"s3://{self._bucket}/{self._prefix}{key}"
        return Operation(self._clients, f"{name} {what}", seconds, self._limits)

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + key}
