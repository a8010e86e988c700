"""Refs on S3: one JSON document each, replaced only if nobody else has replaced it meanwhile."""

from infra.artifacts.records import Manifest, RefConflictError
from infra.artifacts.refs import Ref, RefDocument, Refs, check_ref_name, next_document
from infra.base.records import MAX_DOCUMENT_BYTES
from infra.s3 import Bucket, Expect, PreconditionError, StoredObject

SUFFIX = ".json"


class S3Refs(Refs):
    """The refs ``refs/<name>.json`` of a bucket's prefix."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def names(self) -> tuple[str, ...]:
        """Return the names of the documents; see `Refs`."""
        names = (listed.key.removeprefix("refs/") for listed in self._bucket.list("refs/"))
        return tuple(
            sorted(
                name.removesuffix(SUFFIX)
                for name in names
                if name.endswith(SUFFIX) and "/" not in name
            )
        )

    def get(self, name: str) -> Ref | None:
        """Return the present entry; see `Refs`."""
        document, _ = self._read(name)
        return document.current if document is not None else None

    def set(
        self,
        name: str,
        target: Manifest | Ref,
        *,
        expected: Ref | None,
        reason: str,
        suspect: str | None = None,
    ) -> Ref:
        """Compare and replace by a conditional put; see `Refs`."""
        present, stored = self._read(name)
        document = next_document(
            name, present, target, expected=expected, reason=reason, suspect=suspect
        )
        version = stored.etag if stored is not None else Expect.ABSENT
        try:
            self._bucket.put(_key(name), document.encode(), expected=version)
        except PreconditionError:
            raise RefConflictError(
                f"ref {name!r} was moved by another writer: read it again before you move it"
            ) from None
        return document.current

    def history(self, name: str) -> tuple[Ref, ...]:
        """Return all entries of the document; see `Refs`."""
        document, _ = self._read(name)
        return document.entries if document is not None else ()

    def _read(self, name: str) -> tuple[RefDocument | None, StoredObject | None]:
        stored = self._bucket.get(_key(name), max_bytes=MAX_DOCUMENT_BYTES)
        return (RefDocument.parse(name, stored.content) if stored else None), stored


def _key(name: str) -> str:
    check_ref_name(name)
    return f"refs/{name}{SUFFIX}"
