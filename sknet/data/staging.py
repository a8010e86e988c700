"""Staging: what a source holds, as a record and a file index, every file read and hashed once."""

import contextlib
import hashlib
import itertools
import os
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from infra.base.files import cache_directory
from infra.base.verified import is_settled
from sknet.data.sources.source import SPLITS, Image, Sample, Source
from sknet.data.sources.trees import Skipped, SourceFile, lasting_fault
from sknet.errors import UserError
from sknet.records import Dataset, QuarantinedSample

MAX_QUARANTINE = 0.001


def refuse_too_many(quarantined: Sequence[QuarantinedSample], total: int, max_share: float) -> None:
    """Raises UserError if more than a share of all samples can't be used."""
    if len(quarantined) > total * max_share:
        first = min(quarantined, key=lambda sample: sample.key)
        raise UserError(
            f"{len(quarantined)} of {total} samples ({len(quarantined) / total:.2%}) can't be "
            f"used, more than {max_share:.2%}; the first is {first.key}: {first.reason}"
        )


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


if TYPE_CHECKING:
    import pandas as pd

INDEX_COLUMNS = ["split", "key", "label", "size", "sha256", "file", "offset"]

# Hashing gives up the interpreter's lock, and a network file system answers several at once.
READERS = 4

FILES_PER_ROUND = 256

UNPRINTABLE = "a name that is not printable UTF-8: rename it"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Staged:
    """A data set and the index of its samples: one row each, with INDEX_COLUMNS."""

    dataset: Dataset
    index: "pd.DataFrame"
    ignored: tuple[str, ...] = ()
    """Files beside the samples that are none by their names; of no consequence."""
    files_read: int = 0
    """Files that were read this time; the others were known."""

    def write(self, directory: Path) -> None:
        """As dataset.json and samples.parquet."""
        self.dataset.write(directory / "dataset.json")
        self.index.to_parquet(directory / "samples.parquet", index=False)


def stage(
    source: Source,
    ledger: Ledger | None = None,
    *,
    full: bool = False,
    max_quarantine: float = MAX_QUARANTINE,
    on_progress: Progress | None = None,
) -> Staged:
    """Find and hash all samples; files that the ledger knows unchanged are not read, unless `full`.

    `on_progress` gets the files and bytes gone through so far. Raises UserError where the source
    has not its documented form, or if more than the share `max_quarantine` can't be used; and
    SourceReadError if reading fails through no fault of one file.
    """
    began = time.time_ns()
    listed = list(source.files())
    skipped = [entry for entry in listed if isinstance(entry, Skipped)]
    files = [entry for entry in listed if isinstance(entry, SourceFile)]
    unprintable = [file for file in files if not file.path.isprintable()]
    skipped += [Skipped(file.path, UNPRINTABLE) for file in unprintable]
    files = [file for file in files if file.path.isprintable()]
    read: list[tuple[SourceFile, Found]] = []
    num_read = 0
    num_bytes = 0
    for file, found, fresh in _found_in(source, files, None if full else ledger):
        read.append((file, found))
        num_read += fresh
        num_bytes += file.size
        if on_progress:
            on_progress(len(read), num_bytes)
    samples, left_out = _place(source, read)
    skipped += left_out
    if ledger:
        ledger.remember(read, began)
    quarantined = tuple(
        _quarantined(entry)
        for entry in sorted(skipped, key=lambda entry: entry.name)
        if entry.quarantined
    )
    refuse_too_many(quarantined, len(samples) + len(quarantined), max_quarantine)
    _refuse_empty_classes(source, samples)
    return _describe(
        source,
        samples,
        quarantined,
        tuple(_printable(entry.name) for entry in skipped if not entry.quarantined),
        num_read,
    )


def _found_in(
    source: Source, files: list[SourceFile], ledger: Ledger | None
) -> Iterator[tuple[SourceFile, Found, bool]]:
    """Each file, what is in it, and whether it was read for that."""

    def look(file: SourceFile) -> tuple[SourceFile, Found, bool]:
        known = ledger.recall(file) if ledger else None
        if known is not None:
            return file, known, False
        try:
            return file, list(source.scan(file)), True
        except OSError as error:
            reason = lasting_fault(error, f"{source.location}: {file.path}")
            return file, [Skipped(file.path, f"can't be read: {reason}")], True

    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(files), FILES_PER_ROUND):
            yield from pool.map(look, files[start : start + FILES_PER_ROUND])


def _place(
    source: Source, read: list[tuple[SourceFile, Found]]
) -> tuple[list[Sample], list[Skipped]]:
    samples: list[Sample] = []
    skipped: list[Skipped] = []
    for file, found in read:
        for entry in found:
            if isinstance(entry, Skipped):
                skipped.append(entry)
                continue
            place = source.place(file.path, entry.name)
            if isinstance(place, Skipped):
                skipped.append(place)
                continue
            where = (entry.size, entry.sha256, file.path, entry.offset)
            samples.append(Sample(place.split, place.key, place.label, *where))
    samples.sort(key=lambda sample: (sample.split, sample.key))
    kept: dict[str, Sample] = {}
    for sample in samples:
        if not sample.key.isprintable():
            skipped.append(Skipped(sample.key, UNPRINTABLE))
            continue
        name = unicodedata.normalize("NFC", sample.key)
        if name in kept:
            skipped.append(Skipped(sample.key, f"a second file of the name of {kept[name].key}"))
            continue
        kept[name] = sample
    return list(kept.values()), skipped


def _quarantined(entry: Skipped) -> QuarantinedSample:
    split = next((split for split in SPLITS if entry.name.startswith(f"{split}/")), "")
    return QuarantinedSample(split=split, key=_printable(entry.name), reason=entry.reason)


def _printable(name: str) -> str:
    if name.isprintable():
        return name
    return name.encode("unicode_escape", "backslashreplace").decode("ascii")


def _refuse_empty_classes(source: Source, samples: list[Sample]) -> None:
    seen = {(sample.split, sample.label) for sample in samples}
    for split, (label, name) in itertools.product(SPLITS, enumerate(source.classes)):
        if (split, label) not in seen:
            raise UserError(
                f"class {name!r} has no usable image for {split!r} in {source.location}"
            )


def _describe(
    source: Source,
    samples: list[Sample],
    quarantined: tuple[QuarantinedSample, ...],
    ignored: tuple[str, ...],
    files_read: int,
) -> Staged:
    import pandas as pd  # here, as it takes a third of the time in which Prefect is imported

    index = pd.DataFrame(
        {column: [getattr(sample, column) for sample in samples] for column in INDEX_COLUMNS}
    )
    counts = index["split"].value_counts()
    dataset = Dataset(
        source=source.kind,
        classes=source.classes,
        titles=source.titles,
        splits={split: int(counts.get(split, 0)) for split in SPLITS},
        samples_digest=_digest(index, INDEX_COLUMNS[:5]),
        index_sha256=_digest(index, INDEX_COLUMNS),
        quarantined=quarantined,
    )
    return Staged(dataset, index, ignored, files_read)


def read_staged(directory: Path) -> Staged:
    """What `Staged.write` wrote. Raises UserError if index and record don't agree."""
    from pyarrow import parquet

    dataset = Dataset.read(directory / "dataset.json")
    try:
        table = parquet.read_table(directory / "samples.parquet", columns=INDEX_COLUMNS)
        # In one piece: taking a shard's rows out of several copies them all, for every shard.
        index = table.combine_chunks().to_pandas()
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{directory / 'samples.parquet'} can't be read: {reason}") from None
    if _digest(index, INDEX_COLUMNS) != dataset.index_sha256:
        raise UserError(f"{directory / 'samples.parquet'} does not belong to its dataset.json")
    return Staged(dataset, index)


def _digest(index: "pd.DataFrame", columns: list[str]) -> str:
    hasher = hashlib.sha256()
    for row in index[columns].itertuples(index=False, name=None):
        hasher.update("\0".join(map(str, row)).encode() + b"\n")
    return hasher.hexdigest()
