"""What a store refuses, each said in one line."""

from pydantic import ValidationError


class StoreError(ValueError):
    """The store can't do what was asked; the message says what was found and expected."""


class DamagedArtifactError(StoreError):
    """An artifact is there, but is not what its manifest says."""


class DigestConflictError(StoreError):
    """Two builds of one key gave different files."""


class RefConflictError(StoreError):
    """A ref moved since the caller read it."""


class LostLeaseError(OSError):
    """Another builder took the key over; what it commits will be found when this is tried again."""


def one_line(error: ValidationError) -> str:
    """Return the first findings of a validation, as ``field: what is wrong``."""
    findings = error.errors(include_url=False, include_input=False)
    said = (f"{'.'.join(map(str, each['loc'])) or 'document'}: {each['msg']}" for each in findings)
    return " ".join("; ".join(list(said)[:3]).split())
