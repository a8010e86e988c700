"""What earlier stagings found in a source's files, so that only changed files are read again."""

import contextlib
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import imagehash
import PIL

from infra.base.files import cache_directory
from infra.base.verified import is_settled
from sknet.data.sources.source import ScannedImage, Source
from sknet.data.sources.trees import Skipped, SourceFile

Found = list[ScannedImage | Skipped]
"""What a scan found in a file."""

_CACHE_FORMAT = 3
"""Another one for other columns, other fingerprints and other reasons to leave files out."""
_CACHE_COLUMNS = [
    *("path", "file_size", "stamp"),
    *("name", "offset", "size", "sha256", "fingerprint", "reason", "counts"),
]

_CachedEntry = tuple[bytes, int, int, str, bytes, str, bool]
"""Name, offset, size, SHA-256, fingerprint, reason, and whether it is quarantined."""

_NOTHING: _CachedEntry = (b"", 0, 0, "", b"", "", False)
"""The one entry of a file in which nothing was found."""


class ScanCache:
    """What earlier stagings found in the files of one source: a Parquet file on this host."""

    def __init__(self, source: Source, directory: Path | None = None) -> None:
        """Read the cache of a source; it is empty if it is missing, damaged or of another format.

        Args:
            source: The source.
            directory: Where caches are, by default in the user's cache of this host.
        """
        directory = directory or cache_directory("ledgers")
        is_local = "://" not in source.location
        root = Path(source.location).absolute() if is_local else source.location
        # Fingerprints of other versions may differ, and are not to be compared with these.
        versions = f"{PIL.__version__}\0{imagehash.__version__}"
        name = f"{_CACHE_FORMAT}\0{versions}\0{source.kind}\0{root}"
        self._path = directory / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.parquet"
        self._known = self._read()

    def get(self, file: SourceFile) -> Found | None:
        """Return what was found in a file; None if it is not known, or may have changed."""
        return self._known.get((file.path, file.size, file.stamp))

    def write(self, scanned: Iterable[tuple[SourceFile, Found]], began_ns: int) -> None:
        """Replace the cache by what this staging found; do nothing if it can't be written.

        Args:
            scanned: All files, and what was found in each.
            began_ns: When listing the source began, in nanoseconds since the epoch. A file that
                changed shortly before may change once more without a new stamp, so it is not
                cached.
        """
        import pandas as pd

        rows = [
            (file.path, file.size, file.stamp, *entry)
            for file, found in scanned
            if file.stamp and is_settled(file.changed_ns, began_ns)
            for entry in ([_cached(each) for each in found] or [_NOTHING])
        ]
        table = pd.DataFrame(rows, columns=_CACHE_COLUMNS)
        part = self._path.with_suffix(f".{os.getpid()}")
        with contextlib.suppress(OSError):  # a full or read-only disk is no reason to fail
            self._path.parent.mkdir(parents=True, exist_ok=True)
            table.to_parquet(part, index=False)
            part.replace(self._path)

    def _read(self) -> dict[tuple[str, int, str], Found]:
        if not self._path.is_file():
            return {}
        import pandas as pd

        try:
            table = pd.read_parquet(self._path, columns=_CACHE_COLUMNS)
        except (OSError, ValueError):
            return {}
        known: dict[tuple[str, int, str], Found] = {}
        for row in table.itertuples(index=False, name=None):
            path, file_size, stamp, name, offset, size, sha256, fingerprint, reason, counts = row
            found = known.setdefault((path, file_size, stamp), [])
            text = name.decode("utf-8", "surrogateescape")
            if sha256:
                found.append(ScannedImage(text, offset, size, sha256, fingerprint))
            elif reason:
                found.append(Skipped(text, reason, counts))
        return known


def _cached(entry: ScannedImage | Skipped) -> _CachedEntry:
    # As bytes, because an archive may hold names that are not valid text.
    name = entry.name.encode("utf-8", "surrogateescape")
    if isinstance(entry, ScannedImage):
        return (name, entry.offset, entry.size, entry.sha256, entry.fingerprint, "", False)
    return (name, 0, 0, "", b"", entry.reason, entry.quarantined)
