"""Measures what a server does with each kind of request that a store needs.

After each write, the object is read: what counts is what the server has done, not what it answered.
So a server that accepts a condition and ignores it is told from one that honours it.
"""

import contextlib
import hashlib
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

from botocore.exceptions import ClientError

from infra.s3.attempts import Attempt, Operation
from infra.s3.errors import Absent, AnswerError, S3Error, UploadGone, is_of_request
from infra.s3.objects import ABSENT, SHA256_NAME, Expect, condition, etag_of, head, sha256_of
from infra.s3.profile import STANDARD, Etags, PartSum, Profile, PutSum, Support
from infra.s3.writing import of_parts, part_sum, put_sum

SCRATCH = ".probe-"
"""Begins the keys of scratch objects, which only a probe that was killed leaves."""
TRIES = 3
"""Measurements of what a server seems to lack: the reason may have been the network."""
WRITERS = 8
"""Writers that race for one key: a server that decides on one after the other has one winner."""
_NO_ETAG = "0" * 32  # the ETag of no object


def measure(begin: Callable[[], Operation], bucket: str, prefix: str) -> Profile:
    """Return what a server does.

    Args:
        begin: Returns an operation for some requests; each has its own time.
        bucket: The bucket.
        prefix: Where scratch objects may be, which are removed before this returns.

    Raises:
        S3Error: The server refuses what a user of a store must be allowed to do, or can't be
            reached.
    """
    scratch = _Scratch(begin, bucket, f"{prefix}{SCRATCH}{uuid.uuid4().hex}/")

    def find(name: str) -> Any:
        for number in range(TRIES):
            found = _MEASUREMENTS[name](scratch.below(f"{name}-{number}/"))
            # No fault of the network lets a write through whose condition does not hold, or hides
            # an object from a listing.
            is_certain = found in ("ignored", "not atomic", "written") or name == "listings"
            if is_certain or found == getattr(STANDARD, name):
                break
        return found

    try:
        # First, as all that follows builds on it.
        scratch.put_plainly("plain", b"plain")
        scratch.etags = etags = find("etags")
        # At the same time, because most of it waits for answers.
        with ThreadPoolExecutor(len(_MEASUREMENTS)) as pool:
            others = [name for name in _MEASUREMENTS if name != "etags"]
            measured = dict(zip(others, pool.map(find, others), strict=True))
        return Profile.model_validate({"etags": etags, **measured})
    finally:
        scratch.clear()


def _put_sum(scratch: "_Scratch") -> PutSum:
    def put(kind: PutSum, key: str, summed: bytes) -> bool:
        md5 = hashlib.md5(summed, usedforsecurity=False)
        total = put_sum(kind, hashlib.sha256(summed).hexdigest(), md5.digest)
        return scratch.put(key, b"right", total)

    kinds: tuple[PutSum, ...] = ("sha256", "md5")
    for kind in kinds:
        if put(kind, kind, b"right") and not put(kind, f"{kind}-damaged", b"wrong"):
            return kind
    return "none"


def _part_sum(scratch: "_Scratch") -> PartSum:
    def put(kind: PartSum, key: str, summed: bytes) -> bool:
        total = part_sum(kind, [summed])
        return scratch.put_in_parts(key, b"right", creation=of_parts(kind), total=total)

    kinds: tuple[PartSum, ...] = ("crc32", "md5")
    for kind in kinds:
        if put(kind, kind, b"right") and not put(kind, f"{kind}-damaged", b"wrong"):
            return kind
    if not scratch.put_in_parts("plain", b"right"):
        raise S3Error(0, f"{scratch.problem}: it does not write multipart uploads")
    return "none"


def _create(scratch: "_Scratch") -> Support:
    if not scratch.put("create", b"first", scratch.condition(ABSENT)):
        return "refused"
    if scratch.put("create", b"second", scratch.condition(ABSENT)):
        return "ignored"
    return "honoured" if scratch.num_winners("create-race", ABSENT) <= 1 else "not atomic"


def _etags(scratch: "_Scratch") -> Etags:
    """Find out how to name an ETag: Ceph 16 takes the quotation marks for a part of it."""
    scratch.etags = "quoted"
    etag = scratch.etag_of_new("etags", b"first")
    if scratch.put("etags", b"second", scratch.condition(etag)):
        return "quoted"
    scratch.etags = "bare"
    is_bare = scratch.put("etags", b"second", scratch.condition(etag))
    return "bare" if is_bare else "quoted"


def _replace(scratch: "_Scratch") -> Support:
    etag = scratch.etag_of_new("replace", b"first")
    if not scratch.put("replace", b"second", scratch.condition(etag)):
        return "refused"
    # The ETag of what has been replaced, and one that no object has.
    if any(
        scratch.put("replace", b"third", scratch.condition(wrong)) for wrong in (etag, _NO_ETAG)
    ):
        return "ignored"
    etag = scratch.etag_of_new("replace-race", b"first")
    return "honoured" if scratch.num_winners("replace-race", etag) <= 1 else "not atomic"


def _replace_absent(scratch: "_Scratch") -> Literal["refused", "written", "unclear"]:
    address, content = scratch.address("replace-absent"), b"content"
    options = scratch.condition(_NO_ETAG)
    status = scratch.answer(lambda client: client.put_object(**address, Body=content, **options))
    if scratch.read("replace-absent") == content:
        return "written"
    return "refused" if status in (404, 412) else "unclear"


def _complete(scratch: "_Scratch") -> Support:
    if not scratch.put_in_parts("complete", b"first", condition=scratch.condition(ABSENT)):
        return "refused"
    if scratch.put_in_parts("complete", b"second", condition=scratch.condition(ABSENT)):
        return "ignored"
    etag = scratch.etag("complete")
    if not scratch.put_in_parts("complete", b"third", condition=scratch.condition(etag)):
        return "refused"
    if scratch.put_in_parts("complete", b"fourth", condition=scratch.condition(etag)):
        return "ignored"
    return "honoured"


def _listings(scratch: "_Scratch") -> bool:
    for number in range(3):
        key = f"listed/{number}"
        scratch.put_plainly(key, b"content")
        if not scratch.is_listed(key):
            return False
        scratch.delete(key)
        # A write whose answer was late may have come after the deletion.
        if scratch.is_listed(key) and not scratch.head(key):
            return False
    return True


def _ranges(scratch: "_Scratch") -> bool:
    scratch.put_plainly("range", b"0123456789")
    return scratch.read("range", Range="bytes=2-4") == b"234"


def _metadata(scratch: "_Scratch") -> bool:
    metadata = {"Metadata": {SHA256_NAME: "0" * 64}}
    scratch.put("metadata", b"content", metadata)
    scratch.put_in_parts("metadata-parts", b"content", creation=metadata)
    return all(
        sha256_of(scratch.head(key) or {}) == "0" * 64 for key in ("metadata", "metadata-parts")
    )


def _copies(scratch: "_Scratch") -> bool:
    scratch.put_plainly("source", b"content")
    source = {"CopySource": scratch.address("source"), "CopySourceIfMatch": scratch.etag("source")}
    scratch.answer(lambda client: client.copy_object(**scratch.address("copy"), **source))
    return scratch.read("copy") == b"content"


def _bulk_delete(scratch: "_Scratch") -> bool:
    keys = ["bulk/0", "bulk/1"]
    for key in keys:
        scratch.put_plainly(key, b"content")
    objects = [{"Key": scratch.address(key)["Key"]} for key in keys]
    delete = {"Objects": objects, "Quiet": True}
    scratch.answer(lambda client: client.delete_objects(Bucket=scratch.bucket, Delete=delete))
    return all(scratch.read(key) is None for key in keys)


_MEASUREMENTS: dict[str, Callable[["_Scratch"], Any]] = {
    "create": _create,
    "replace": _replace,
    "etags": _etags,
    "replace_absent": _replace_absent,
    "complete": _complete,
    "put_sum": _put_sum,
    "part_sum": _part_sum,
    "bulk_delete": _bulk_delete,
    "listings": _listings,
    "ranges": _ranges,
    "metadata": _metadata,
    "copies": _copies,
}
"""Field of the profile → what measures it."""


def _keys(client: Any, bucket: str, prefix: str) -> set[str]:
    page = client.list_objects_v2(Bucket=bucket, Prefix=prefix)
    return {item["Key"] for item in page.get("Contents", [])}


class _Scratch:
    """Objects under a prefix of their own."""

    def __init__(self, begin: Callable[[], Operation], bucket: str, prefix: str) -> None:
        self.bucket = bucket
        self._begin = begin
        self._prefix = prefix
        self.etags: Etags = "quoted"
        """How `If-Match` names an ETag."""

    @property
    def problem(self) -> str:
        """Begins the message of an error."""
        return self._begin().problem

    def below(self, place: str) -> "_Scratch":
        """Return those in a place of their own."""
        below = _Scratch(self._begin, self.bucket, self._prefix + place)
        below.etags = self.etags
        return below

    def condition(self, expected: Expect | str) -> dict[str, str]:
        return condition(expected, self.etags)

    def address(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self._prefix + key}

    def put(self, key: str, content: bytes, options: dict[str, Any] | None = None) -> bool:
        """Write an object, and tell whether it is there."""
        self.answer(
            lambda client: client.put_object(**self.address(key), Body=content, **(options or {}))
        )
        return self.read(key) == content

    def put_plainly(self, key: str, content: bytes) -> None:
        """Write an object without any condition or checksum.

        Raises:
            S3Error: It is not there.
        """
        if not any(self.put(key, content) for _ in range(TRIES)):
            raise S3Error(0, f"{self.problem}: it does not store what is written")

    def put_in_parts(
        self,
        key: str,
        content: bytes,
        *,
        creation: dict[str, Any] | None = None,
        total: dict[str, str] | None = None,
        condition: dict[str, str] | None = None,
    ) -> bool:
        """Write an object as an upload of one part, and tell whether it is there."""
        address = self.address(key)
        status, begun = self._ask(
            lambda client: client.create_multipart_upload(**address, **(creation or {}))
        )
        if status is not None:
            return False
        upload = {**address, "UploadId": begun["UploadId"]}
        status, sent = self._ask(
            lambda client: client.upload_part(**upload, PartNumber=1, Body=content, **(total or {}))
        )
        if status is None:
            sums = {name: value for name, value in sent.items() if name == "ChecksumCRC32"}
            parts = {"Parts": [{"PartNumber": 1, "ETag": sent["ETag"], **sums}]}
            status = self.answer(
                lambda client: client.complete_multipart_upload(
                    **upload, MultipartUpload=parts, **(condition or {})
                )
            )
        if status is not None:
            with contextlib.suppress(S3Error, UploadGone, Absent), self._begin() as operation:
                operation.run(lambda client, _: client.abort_multipart_upload(**upload))
        return self.read(key) == content

    def num_winners(self, key: str, expected: Expect | str) -> int:
        """Let several writers write under one condition, and count those that may."""
        together = threading.Barrier(WRITERS)

        def write(number: int) -> bool:
            with contextlib.suppress(threading.BrokenBarrierError):
                together.wait(10)
            content = {"Body": f"writer {number}".encode(), **self.condition(expected)}
            status = self.answer(lambda client: client.put_object(**self.address(key), **content))
            return status is None

        with ThreadPoolExecutor(WRITERS) as writers:
            return sum(writers.map(write, range(WRITERS)))

    def etag_of_new(self, key: str, content: bytes) -> str:
        self.put_plainly(key, content)
        return self.etag(key)

    def etag(self, key: str) -> str:
        """Return the ETag of an object that has been written.

        Raises:
            S3Error: It is not there.
        """
        found = self.head(key)
        if found is None:
            raise S3Error(0, f"{self.problem}: it does not store what is written")
        return etag_of(found)

    def head(self, key: str) -> dict[str, Any] | None:
        """Return the server's answer about an object; None if there is none."""
        with self._begin() as operation:
            return head(operation, self.address(key))

    def read(self, key: str, **options: str) -> bytes | None:
        """Return the content of an object; None if there is none."""

        def request(client: Any, _: Attempt) -> bytes:
            with contextlib.closing(
                client.get_object(**self.address(key), **options)["Body"]
            ) as body:
                return bytes(body.read())

        try:
            with self._begin() as operation:
                return operation.run(request)
        except Absent:
            return None

    def is_listed(self, key: str) -> bool:
        """Tell whether a listing shows an object, the only one with its name."""

        def request(client: Any, _: Attempt) -> bool:
            keys = _keys(client, self.bucket, self._prefix + key)
            if keys - {self._prefix + key}:
                raise AnswerError("a listing of objects that nobody has written")
            return bool(keys)

        with self._begin() as operation:
            return operation.run(request)

    def delete(self, key: str) -> None:
        with self._begin() as operation:
            operation.run(lambda client, _: client.delete_object(**self.address(key)))

    def answer(self, act: Callable[[Any], object]) -> int | None:
        """Make a request; return the status of its refusal, or None if it is done.

        Raises:
            S3Error: The server can't be reached, or refuses the user rather than the request.
        """
        return self._ask(act)[0]

    def _ask(self, act: Callable[[Any], Any]) -> tuple[int | None, Any]:
        """Make a request; return what `answer` does, and the server's answer."""

        def request(client: Any, _: Attempt) -> tuple[int | None, Any]:
            try:
                return None, act(client)
            except ClientError as error:
                if is_of_request(error):
                    return int(error.response["ResponseMetadata"]["HTTPStatusCode"]), None
                raise

        with self._begin() as operation:
            return operation.run(request)

    def clear(self) -> None:
        """Remove all scratch objects, as far as the server lets us."""
        with contextlib.suppress(S3Error):
            with self._begin() as operation:
                keys = operation.run(lambda client, _: _keys(client, self.bucket, self._prefix))
            for key in keys:
                self.delete(key.removeprefix(self._prefix))
