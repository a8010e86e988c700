"""Which conditions and checksums a write carries, so that it is safe on its server."""

import errno
import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from infra.s3.attempts import Operation
from infra.s3.errors import ConditionFailed, S3Error
from infra.s3.objects import ABSENT, ANY, Expect, as_header, condition, etag_of, head
from infra.s3.profile import MAX_PUT_BYTES, STANDARD, PartSum, Profile, PutSum

BLOCK = 1 << 20

Exclusive = Callable[[str], AbstractContextManager[None]]
"""Holds the lock of a key, which nobody else can hold meanwhile who may write."""


class Writing:
    """The writes to one bucket.

    Args:
        find_profile: Returns what the server does; called before the first write.
        exclusive: Stands in for conditions that the server does not honour; without it, writes that
            would need them are refused.
    """

    def __init__(
        self,
        find_profile: Callable[[], Profile] = lambda: STANDARD,
        exclusive: Exclusive | None = None,
    ) -> None:
        self._find_profile = find_profile
        self._exclusive = exclusive

    @property
    def profile(self) -> Profile:
        """What the server does."""
        return self._find_profile()

    def part_bytes(self, size: int, limit: int, expected: Expect | str, problem: str) -> int:
        """Return the size of the parts in which a file is sent.

        Args:
            size: Size of the file.
            limit: The usual size of a part.
            expected: The condition of the write.
            problem: Begins the message of an error.

        Raises:
            S3Error: The file is too large to be written safely on this server.
        """
        if size <= limit or expected is ANY or not self.profile.puts_whole_files:
            return limit
        if size > MAX_PUT_BYTES:
            raise S3Error(
                errno.EFBIG,
                f"{problem}: {size:,} bytes, but at most {MAX_PUT_BYTES:,} in one file can be "
                "written safely here, because the server does not honour the conditions of "
                "CompleteMultipartUpload: make several files of it",
            )
        return MAX_PUT_BYTES

    def lock(
        self, key: str, expected: Expect | str, *, in_parts: bool
    ) -> AbstractContextManager[None]:
        """Return what has to be held while a key is written.

        Raises:
            S3Error: The server does not honour the condition, and nothing stands in for it.
        """
        if self._is_honoured(expected, in_parts=in_parts):
            return nullcontext()
        if self._exclusive is None:
            raise S3Error(
                errno.ENOTSUP,
                f"{key}: the server does not honour the conditions of writes (If-Match, "
                "If-None-Match), without which two writers could overwrite each other",
            )
        return self._exclusive(key)

    def condition(
        self,
        operation: Operation,
        target: dict[str, str],
        expected: Expect | str,
        *,
        in_parts: bool,
    ) -> dict[str, str]:
        """Return the parameters of a conditional write; where they can't do, look at the key.

        Args:
            operation: The operation to which the write belongs.
            target: Bucket and Key of the object.
            expected: The condition.
            in_parts: Whether it is a multipart upload, whose parts would be sent in vain.

        Raises:
            ConditionFailed: It does not hold.
        """
        if expected is ANY:
            return {}
        is_honoured = self._is_honoured(expected, in_parts=in_parts)
        is_written_absent = isinstance(expected, str) and self.profile.replace_absent != "refused"
        if in_parts or is_written_absent or not is_honoured:
            found = head(operation, target)
            if (etag_of(found) if found else ABSENT) != expected:
                raise ConditionFailed
        return condition(expected, self.profile.etags) if is_honoured else {}

    def _is_honoured(self, expected: Expect | str, *, in_parts: bool) -> bool:
        if expected is ANY:
            return True
        profile = self.profile
        support = profile.create if expected is ABSENT else profile.replace
        return support == "honoured" and (not in_parts or profile.complete == "honoured")


def put_sum(kind: PutSum, sha256: str, md5: Callable[[], bytes]) -> dict[str, str]:
    """Return the parameters by which the server checks the bytes of PutObject.

    Args:
        kind: The checksum that the server compares.
        sha256: SHA-256 of the bytes, in hexadecimal digits.
        md5: Returns their MD5; called only if that is compared.
    """
    match kind:
        case "sha256":
            return {"ChecksumSHA256": as_header(bytes.fromhex(sha256))}
        case "md5":
            return {"ContentMD5": as_header(md5())}
        case "none":
            return {}


def part_sum(kind: PartSum, content: Iterable[bytes]) -> dict[str, str]:
    """Return the parameters by which the server checks the bytes of UploadPart.

    Args:
        kind: The checksum that the server compares.
        content: The bytes, some at a time; read only if they are compared.
    """
    match kind:
        case "crc32":
            crc = 0
            for block in content:
                crc = zlib.crc32(block, crc)
            return {"ChecksumCRC32": as_header(crc.to_bytes(4, "big"))}
        case "md5":
            digest = hashlib.md5(usedforsecurity=False)
            for block in content:
                digest.update(block)
            return {"ContentMD5": as_header(digest.digest())}
        case "none":
            return {}


def of_parts(kind: PartSum) -> dict[str, str]:
    """Return the parameters of CreateMultipartUpload that announce the checksum of its parts."""
    return {"ChecksumAlgorithm": "CRC32"} if kind == "crc32" else {}


def blocks(path: Path, start: int, stop: int) -> Iterator[bytes]:
    """Yield the bytes of a part of a file, some at a time."""
    with path.open("rb") as file:
        file.seek(start)
        for at in range(start, stop, BLOCK):
            yield file.read(min(BLOCK, stop - at))
