"""What a store tells of what it holds: artifacts, builds, leftovers, and what can't be read."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from infra.artifacts.records import Artifact, Damage

logger = logging.getLogger(__name__)

OnUnreadable = Callable[[str, OSError], None]
"""Called with the path in the store of what can't be read, and why."""


def warn_of_unreadable(path: str, error: OSError) -> None:
    """Log a warning of what can't be read in a store."""
    logger.warning("%s can't be read: %s", path, error.strerror)


def noting(reasons: dict[str, str]) -> OnUnreadable:
    """Return a function that notes what can't be read: its path in the store → why."""

    def note(path: str, error: OSError) -> None:
        reasons[path] = str(error.strerror)

    return note


@dataclass(frozen=True)
class Lookup:
    """What a store found under a key."""

    artifact: Artifact | None
    damages: tuple[Damage, ...] = ()
    """Why what was there has been set aside."""


@dataclass(frozen=True)
class Usage:
    """What a store knows of an artifact without reading it."""

    used: datetime
    """When it was committed, or last used if that was later."""
    num_bytes: int
    """Size of its files, without the manifest."""


@dataclass(frozen=True)
class Build:
    """A build under way."""

    kind: str
    key: str
    inputs: Mapping[str, str]
    """Name of each input artifact → its digest."""


@dataclass(frozen=True)
class Leftover:
    """What a dead process or a repair has left in a store beside its artifacts."""

    name: str
    """Names it in messages: its path in the store, or a multipart upload."""
    num_bytes: int
    reason: str
    """Why it can go."""
    remove: Callable[[], None] = field(compare=False, repr=False)
    """Removes it, unless somebody uses it by now."""
