"""Where this host remembers what it would be slow to find out again; safe to delete at any time."""

import os
from pathlib import Path


def cache_directory(name: str) -> Path:
    """A directory of the user's cache: $SKNET_CACHE, or sknet/ where XDG puts caches."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("SKNET_CACHE") or Path(base) / "sknet") / name
