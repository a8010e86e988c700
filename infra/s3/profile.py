"""What a server does with the requests that a store needs: measured by `probe`, a record here."""

from dataclasses import dataclass
from typing import Literal

from infra.base.records import Record

Support = Literal["honoured", "not atomic", "ignored", "refused"]
"""What becomes of a condition: it decides, also between writers that come at the same moment
(`honoured`); it decides, but not between those (`not atomic`); the write happens whether it holds
or not (`ignored`); the server refuses such a request (`refused`)."""

Etags = Literal["quoted", "bare"]
"""How `If-Match` of a write names an ETag: in quotation marks, as HTTP has it, or without."""

PutSum = Literal["sha256", "md5", "none"]
"""The strongest checksum of PutObject that a server compares with what arrived."""

PartSum = Literal["crc32", "md5", "none"]
"""The strongest checksum of UploadPart that a server compares with what arrived."""

MAX_PUT_BYTES = 5 << 30
"""Largest object that S3 takes in one request."""


@dataclass(frozen=True, slots=True)
class Guarantee:
    """One line of what a store on a server promises."""

    topic: str
    promise: str
    source: str
    """Where the promise comes from."""
    refused: str = ""
    """What is refused because the server lacks something; empty if nothing is."""


class Profile(Record, strict=True):
    """What a server does with the requests of a store."""

    create: Support
    """``If-None-Match: *`` of PutObject."""
    replace: Support
    """``If-Match`` of PutObject, with an object under the key."""
    etags: Etags
    replace_absent: Literal["refused", "written", "unclear"]
    """``If-Match`` of PutObject without an object under the key: the server refuses it (404, 412),
    writes all the same, or answers something else."""
    complete: Support
    """Both conditions of CompleteMultipartUpload: the weaker one."""
    put_sum: PutSum
    part_sum: PartSum
    bulk_delete: bool
    """Whether DeleteObjects works with the CRC-32 that SDKs send."""
    listings: bool
    """Whether a listing shows each write and each deletion at once."""
    ranges: bool
    """Whether a part of an object can be read."""
    metadata: bool
    """Whether user-defined metadata comes back, also from a multipart upload."""
    copies: bool
    """Whether an object can be copied within the server."""

    @property
    def is_shared(self) -> bool:
        """Whether the server itself keeps any number of writers from overwriting each other."""
        return self.create == self.replace == "honoured"

    @property
    def puts_whole_files(self) -> bool:
        """Whether a file of any size is sent in one request.

        So it is where that request's condition holds, and that of a multipart upload does not.
        """
        return self.is_shared and self.complete != "honoured"

    @property
    def missing(self) -> tuple[str, ...]:
        """What the server lacks that nothing can replace; empty if a store can be there."""
        needs = {
            "listings that show each write at once": self.listings,
            "reads of a part of an object (Range)": self.ranges,
            "user-defined metadata": self.metadata,
            "copies within the server (CopyObject)": self.copies,
        }
        return tuple(name for name, has in needs.items() if not has)

    @property
    def guarantees(self) -> tuple[Guarantee, ...]:
        """What a store there promises, line by line."""
        return (self._writers(), self._files(), *self._bytes(), self._deletions())

    def _writers(self) -> Guarantee:
        topic, promise = "writers", "two writers never overwrite each other"
        if self.is_shared:
            looks = {
                "refused": "",
                "written": "; it would write an absent key, so the key is looked up before",
                "unclear": "; its answer for an absent key is unclear: it is looked up before",
            }
            source = "the server: If-None-Match and If-Match of PutObject"
            return Guarantee(topic, promise, source + looks[self.replace_absent])
        return Guarantee(
            topic,
            promise,
            "a lock of the kernel in SKNET_CACHE, as the server does not do it: If-None-Match is "
            f"{self.create}, If-Match is {self.replace}",
            "writers with another SKNET_CACHE than the first one; all may read",
        )

    def _files(self) -> Guarantee:
        topic, promise = "large files", "a late builder never overwrites a committed file"
        if self.puts_whole_files:
            return Guarantee(
                topic,
                promise,
                "If-None-Match of PutObject, in one request for a file: that of "
                f"CompleteMultipartUpload is {self.complete}",
                f"files above {MAX_PUT_BYTES >> 30} GiB",
            )
        if self.is_shared:
            return Guarantee(topic, promise, "the server: conditions of CompleteMultipartUpload")
        return Guarantee(topic, promise, "the same lock in SKNET_CACHE")

    def _bytes(self) -> tuple[Guarantee, ...]:
        sums = {
            "sha256": "the server compares the SHA-256",
            "crc32": "the server compares the CRC-32",
            "md5": "the server compares the MD5; checksums of SDKs are not sent",
            "none": "each write is read back, as the server compares nothing",
        }
        return (
            Guarantee("bytes of objects", "arrive undamaged", sums[self.put_sum]),
            Guarantee("bytes of parts", "arrive undamaged", sums[self.part_sum]),
        )

    def _deletions(self) -> Guarantee:
        source = "DeleteObjects" if self.bulk_delete else "DeleteObject, one by one"
        return Guarantee("deletions", "what is removed is gone", source)


STANDARD = Profile(
    create="honoured",
    replace="honoured",
    etags="quoted",
    replace_absent="refused",
    complete="honoured",
    put_sum="sha256",
    part_sum="crc32",
    bulk_delete=True,
    listings=True,
    ranges=True,
    metadata=True,
    copies=True,
)
"""What AWS documents of its own service."""
