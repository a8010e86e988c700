"""What was found in files that were read before, so that no unchanged file is read again."""

import contextlib
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from sknet.cache import cache_directory, is_settled
from sknet.data.sources.source import Image, Source
from sknet.data.sources.trees import Skipped, SourceFile

Found = list[Image | Skipped]

FORMAT = 1
COLUMNS = ["path", "file_size", "stamp", "name", "offset", "size", "sha256", "reason", "counts"]


class Ledger:
    """The memory of one source, as a Parquet file in a cache directory."""

    def __init__(self, source: Source, directory: Path | None = None) -> None:
        """What the file remembers; nothing if it is missing, damaged or of another format."""
        directory = directory or cache_directory("ledgers")
        local = "://" not in source.location
        root = Path(source.location).absolute() if local else source.location
        name = hashlib.sha256(f"{FORMAT}\0{source.kind}\0{root}".encode()).hexdigest()[:16]
        self._file = directory / f"{name}.parquet"
        self._known = self._read()

    def _read(self) -> dict[tuple[str, int, str], Found]:
        if not self._file.is_file():
            return {}
        import pandas as pd  # here: see sknet.data.staging

        try:
            table = pd.read_parquet(self._file, columns=COLUMNS)
        except (OSError, ValueError):
            return {}
        known: dict[tuple[str, int, str], Found] = {}
        for path, file_size, stamp, name, offset, size, sha256, reason, counts in table.itertuples(
            index=False, name=None
        ):
            found = known.setdefault((path, file_size, stamp), [])
            text = name.decode("utf-8", "surrogateescape")
            if sha256:
                found.append(Image(text, offset, size, sha256))
            elif reason:
                found.append(Skipped(text, reason, counts))
        return known

    def recall(self, file: SourceFile) -> Found | None:
        """What a file held when it was read, if it hasn't changed since."""
        return self._known.get((file.path, file.size, file.stamp))

    def remember(self, read: Iterable[tuple[SourceFile, Found]], began_ns: int) -> None:
        """Keep what was found in the files that this run saw; replaces what was known.

        Files that changed shortly before `began_ns`, when listing began, may change once more
        without a new stamp: they are read again the next time. Without a place to keep it, all is.
        """
        import pandas as pd

        rows = [
            (file.path, file.size, file.stamp, *row)
            for file, found in read
            if file.stamp and is_settled(file.changed_ns, began_ns)
            for row in ([_row(entry) for entry in found] or [_NOTHING])
        ]
        table = pd.DataFrame(rows, columns=COLUMNS)
        part = self._file.with_suffix(f".{os.getpid()}")
        with contextlib.suppress(OSError):  # a full or read-only disk is no reason to fail
            self._file.parent.mkdir(parents=True, exist_ok=True)
            table.to_parquet(part, index=False)
            part.replace(self._file)


Row = tuple[bytes, int, int, str, str, bool]
_NOTHING: Row = (b"", 0, 0, "", "", False)


def _row(entry: Image | Skipped) -> Row:
    # An archive may hold names that are no text.
    name = entry.name.encode("utf-8", "surrogateescape")
    if isinstance(entry, Image):
        return (name, entry.offset, entry.size, entry.sha256, "", False)
    return (name, 0, 0, "", entry.reason, entry.quarantined)
