"""Where this host remembers what it would be slow to find out again; safe to delete at any time."""

import os
from pathlib import Path

# A file that changes within its time stamp's resolution keeps the stamp: the coarsest is FAT's.
SETTLED_NS = 2_000_000_000


def cache_directory(name: str) -> Path:
    """A directory of the user's cache: $SKNET_CACHE, or sknet/ where XDG puts caches."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("SKNET_CACHE") or Path(base) / "sknet") / name


def is_settled(changed_ns: int, looked_ns: int) -> bool:
    """Whether a file last changed at a time would show it if it changed after one looked."""
    return changed_ns < looked_ns - SETTLED_NS
