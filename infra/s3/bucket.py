"""The objects under `s3://bucket/prefix`, written and read so that no fault loses or damages one.

Endpoint, region, credentials and certificates come from the standard AWS settings.
"""

import contextlib
import errno
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from botocore.exceptions import ClientError

from infra.base.progress import Count, uncounted
from infra.s3.attempts import (
    BUDGET_SECONDS,
    DEFAULT_LIMITS,
    SLOWEST_TRANSFER,
    Attempt,
    Limits,
    Operation,
    Request,
)
from infra.s3.client import Clients, Location, new_client
from infra.s3.errors import (
    Absent,
    ConditionFailed,
    DamagedObjectError,
    PreconditionError,
    S3Error,
    TooLarge,
    UploadGone,
)
from infra.s3.multipart import abort, copy, map_in_order
from infra.s3.objects import (
    ANY,
    SHA256_NAME,
    Expect,
    ListedObject,
    StaleUpload,
    StoredObject,
    check_content,
    etag_of,
    head,
    length_of,
    list_pages,
    sha256_of,
)
from infra.s3.probe import measure
from infra.s3.profile import Profile
from infra.s3.transfers import LocalFile, ObjectReader, upload
from infra.s3.writing import Writing, put_sum

MAX_DELETED = 1000
"""Number of keys that one request may delete."""
DELETIONS = 16
"""Requests under way at a time where each deletes one object."""

T = TypeVar("T")


class Bucket:
    """Objects under one prefix of a bucket; keys are relative to it. Safe for several threads.

    Every method raises S3Error if S3 refuses or can't be reached within the budget. A request whose
    answer was lost is sent again, and a conditional write recognises what it wrote itself.
    Unconditional writes and deletions may still take effect some time after an error.

    Args:
        location: `s3://bucket/prefix`. No request is made yet.
        budget: Seconds for one call; a transfer gets more, depending on its size.
        limits: Limits of each request.
        writing: What writes do on this server; by default, what AWS documents.

    Raises:
        S3Error: The location has another form.
    """

    def __init__(
        self,
        location: str,
        *,
        budget: float = BUDGET_SECONDS,
        limits: Limits = DEFAULT_LIMITS,
        writing: Writing | None = None,
    ) -> None:
        parsed = Location.parse(location)
        self.location = str(parsed)
        self._bucket = parsed.bucket
        self._prefix = parsed.prefix
        self._budget = budget
        self._limits = limits
        self._writing = writing or Writing()
        self._clients = Clients()

    def __repr__(self) -> str:
        return f"Bucket({self.location!r})"

    def within(self, budget: float) -> "Bucket":
        """Return the same bucket with another budget, in seconds, for one call."""
        return self._like(budget, self._writing)

    def using(self, writing: Writing) -> "Bucket":
        """Return the same bucket with other rules for its writes."""
        return self._like(self._budget, writing)

    def _like(self, budget: float, writing: Writing) -> "Bucket":
        other = Bucket(self.location, budget=budget, limits=self._limits, writing=writing)
        other._clients = self._clients
        return other

    @property
    def endpoint(self) -> str:
        """The URL of the service.

        Raises:
            S3Error: The settings are missing or wrong.
        """
        return str(self._clients.current().meta.endpoint_url)

    def check(self) -> None:
        """Check that the bucket can be listed.

        Raises:
            S3Error: It can't.
        """
        with self._operation("can't be listed") as operation:
            parameters = {"Bucket": self._bucket, "Prefix": self._prefix}
            operation.run(lambda client, _: client.list_objects_v2(**parameters, MaxKeys=1))

    def probe(self) -> Profile:
        """Measure what the server does, with scratch objects that are removed afterwards.

        Raises:
            S3Error: It refuses what a user of the store has to be allowed, or can't be reached.
        """
        return measure(lambda: self._operation("can't be probed"), self._bucket, self._prefix)

    def get(self, key: str, *, max_bytes: int) -> StoredObject | None:
        """Read a small object; None if there is no such object.

        Raises:
            DamagedObjectError: It is larger than `max_bytes`, or its bytes are damaged.
        """
        with self._operation("can't be read", key) as operation:
            try:
                return self._get(operation, key, max_bytes)
            except TooLarge as error:
                finding = f"{error.size:,} bytes, expected at most {max_bytes:,}"
                raise DamagedObjectError(errno.EFBIG, f"{operation.problem}: {finding}") from None

    def put(self, key: str, content: bytes, *, expected: Expect | str) -> str:
        """Write a small object and return its ETag.

        Raises:
            PreconditionError: Something else is there than expected, and not this content.
            DamagedObjectError: The server compares no checksum, and has stored other bytes.
        """
        sha256 = hashlib.sha256(content).hexdigest()
        options = {
            "Metadata": {SHA256_NAME: sha256},
            **put_sum(
                self._writing.profile.put_sum,
                sha256,
                lambda: hashlib.md5(content, usedforsecurity=False).digest(),
            ),
        }
        address = self._address(key)

        def request(client: Any, _: Attempt) -> str:
            return etag_of(client.put_object(**address, Body=content, **options, **condition))

        with (
            self._writing.lock(self._name(key), expected, in_parts=False),
            self._operation("can't be written", key, len(content)) as operation,
        ):
            try:
                condition = self._writing.condition(operation, address, expected, in_parts=False)
                etag = operation.run(request, len(content))
                if self._writing.profile.put_sum != "none":
                    return etag
                is_written = True
            except (ConditionFailed, Absent):
                is_written = False
            found = self._content_or_etag(operation, key, len(content))
        etag_found = found.etag if isinstance(found, StoredObject) else found
        is_ours = isinstance(found, StoredObject) and found.content == content
        is_later = is_written and expected is ANY  # another writer may overwrite it at once
        if etag_found is not None and (is_ours or is_later):
            return etag_found
        raise PreconditionError.found(operation.problem, etag_found)

    def link(self, key: str, *, seconds: int, content_type: str) -> str:
        """Return an address at which anybody can read an object for some time.

        Args:
            key: The object, which need not exist.
            seconds: For how long, at most a week; less if the credentials expire before.
            content_type: Media type of the answer, so that a browser shows the object.
        """
        parameters = {**self._address(key), "ResponseContentType": content_type}
        client = new_client(signature_version="s3v4")  # older signatures allow longer, but not all
        return str(client.generate_presigned_url("get_object", parameters, ExpiresIn=seconds))

    def head(self, key: str) -> ListedObject | None:
        """Look up an object without its content; None if there is no such object."""
        with self._operation("can't be looked up", key) as operation:
            found = head(operation, self._address(key))
        if found is None:
            return None
        return ListedObject(key, length_of(found), etag_of(found), found["LastModified"])

    def holds(self, key: str, *, size: int, sha256: str) -> bool:
        """Tell whether an object was written with bytes of this size and SHA-256; nothing is read.

        Of an object that others wrote, the SHA-256 isn't known.
        """
        with self._operation("can't be looked up", key) as operation:
            found = head(operation, self._address(key))
        return found is not None and (length_of(found), sha256_of(found)) == (size, sha256)

    def folders(self, prefix: str) -> list[str]:
        """Return the sorted names of the folders directly under a prefix.

        Some servers still list a folder whose last object is gone.
        """
        start = len(self._prefix + prefix)

        def names(page: dict[str, Any]) -> Iterable[str]:
            return [item["Prefix"][start:-1] for item in page.get("CommonPrefixes", [])]

        return sorted(self._listing("list_objects_v2", prefix, names, Delimiter="/"))

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; it is no error if one doesn't exist."""
        names = [{"Key": self._prefix + key} for key in keys]
        if names and not self._writing.profile.bulk_delete:
            for _ in map_in_order(self._delete_one, names, DELETIONS):
                pass
            return
        for start in range(0, len(names), MAX_DELETED):
            request = self._deletion(names[start : start + MAX_DELETED])
            with self._operation("can't be deleted from") as operation:
                operation.run(request)

    def copy(self, source: str, target: str) -> None:
        """Copy an object of any size to another key, within the server.

        Raises:
            S3Error: The source doesn't exist, or changed meanwhile.
        """
        with self._operation("can't be copied", source) as operation:
            found = head(operation, self._address(source))
        if found is None:
            raise S3Error(errno.ENOENT, f"{operation.problem}: no such object")
        with self._operation(f"can't be copied to {target}", source, length_of(found)) as operation:
            try:
                copy(operation, self._address(source), found, self._address(target), self._limits)
            except (Absent, ConditionFailed):
                raise S3Error(0, f"{operation.problem}: it changed meanwhile") from None

    def upload(
        self,
        path: Path,
        key: str,
        *,
        size: int,
        sha256: str,
        expected: Expect | str,
        count: Count = uncounted,
    ) -> None:
        """Write a file of any size into an object, which appears whole or not at all.

        `count` counts the bytes that are sent.

        Raises:
            PreconditionError: Something else is there than expected, and not these bytes.
            S3Error: The file doesn't have this size and SHA-256.
            OSError: The file can't be read.
        """
        part_bytes = self._writing.part_bytes(
            size, self._limits.part_bytes, expected, f"{self._name(key)} can't be written"
        )
        limits = replace(self._limits, part_bytes=part_bytes)
        with (
            self._writing.lock(self._name(key), expected, in_parts=size > part_bytes),
            self._operation("can't be written", key, size) as operation,
        ):
            file = LocalFile(path, size, sha256, count)
            upload(operation, self._address(key), file, expected, limits, self._writing)

    def download(
        self, key: str, path: Path, *, size: int, sha256: str, count: Count = uncounted
    ) -> None:
        """Write an object into a new file; after an error, the file doesn't exist.

        `count` counts the bytes that are written.

        Raises:
            DamagedObjectError: The object doesn't have this size and SHA-256.
            OSError: The file exists, or can't be written.
        """
        with path.open("x+b") as file:
            try:
                with self._operation("can't be fetched", key, size) as operation:
                    self._reader(operation, key, size, count).into_file(file.fileno(), sha256)
            except BaseException:
                path.unlink(missing_ok=True)
                raise

    def sha256(self, key: str, *, size: int, count: Count = uncounted) -> str:
        """Return the SHA-256 of an object's bytes; `count` counts those that are read.

        Raises:
            DamagedObjectError: It has another size.
        """
        with self._operation("can't be verified", key, size) as operation:
            return self._reader(operation, key, size, count).sha256()

    def stale_uploads(self, older_than: timedelta) -> list[StaleUpload]:
        """Return unfinished multipart uploads of at least this age; they occupy storage."""
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
        """Abort a multipart upload; it is no error if it doesn't exist any more."""
        with contextlib.suppress(UploadGone):
            abort(
                self._operation("can't be aborted", upload.key),
                self._address(upload.key),
                upload.upload_id,
            )

    def list(self, prefix: str) -> Iterator[ListedObject]:
        """List every object whose key begins with `prefix`, sorted by key."""
        start = len(self._prefix)

        def entries(page: dict[str, Any]) -> Iterable[ListedObject]:
            return [
                ListedObject(
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
        parameters = {"Bucket": self._bucket, "Prefix": self._prefix + prefix, **options}
        return list_pages(lambda: self._operation("can't be listed"), method, parameters, parse)

    def _delete_one(self, name: dict[str, str]) -> None:
        with self._operation("can't be deleted from") as operation:
            operation.run(lambda client, _: client.delete_object(Bucket=self._bucket, **name))

    def _deletion(self, names: Sequence[dict[str, str]]) -> Request[None]:
        def request(client: Any, _: Attempt) -> None:
            answer = client.delete_objects(
                Bucket=self._bucket, Delete={"Objects": names, "Quiet": True}
            )
            for failed in answer.get("Errors", []):
                message = f"{failed.get('Key')}: {failed.get('Message')}"
                error = {"Code": failed.get("Code", ""), "Message": message}
                metadata = answer["ResponseMetadata"]
                raise ClientError({"Error": error, "ResponseMetadata": metadata}, "DeleteObjects")

        return request

    def _get(self, operation: Operation, key: str, max_bytes: int) -> StoredObject | None:
        """Read an object; None if there is no such object.

        Raises:
            TooLarge: It is larger than `max_bytes`.
        """

        def request(client: Any, _: Attempt) -> StoredObject:
            answer = client.get_object(**self._address(key))
            with contextlib.closing(answer["Body"]) as body:
                etag, size = etag_of(answer), length_of(answer)
                if size > max_bytes:
                    raise TooLarge(size, etag)
                content = body.read()
            check_content(answer, content)
            return StoredObject(content, etag)

        try:
            return operation.run(request, max_bytes)
        except Absent:
            return None

    def _content_or_etag(
        self, operation: Operation, key: str, size: int
    ) -> StoredObject | str | None:
        """Read an object of at most `size` bytes; of a larger one, return the ETag."""
        try:
            return self._get(operation, key, size)
        except TooLarge as larger:
            return larger.etag

    def _reader(self, operation: Operation, key: str, size: int, count: Count) -> ObjectReader:
        return ObjectReader(
            operation, self._address(key), size=size, limits=self._limits, count=count
        )

    def _operation(self, problem: str, key: str = "", size: int = 0) -> Operation:
        seconds = self._budget + size / SLOWEST_TRANSFER
        return Operation(self._clients, f"{self._name(key)} {problem}", seconds, self._limits)

    def _name(self, key: str) -> str:
        return f"s3://{self._bucket}/{self._prefix}{key}"

    def _address(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + key}
