"""Staging: what a source holds, as a record and a file index, every file read and hashed once."""

import hashlib
import itertools
import time
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sknet.data.ledger import Found, Ledger
from sknet.data.quarantine import MAX_QUARANTINE, refuse_too_many
from sknet.data.sources.source import SPLITS, Sample, Source
from sknet.data.sources.trees import Skipped, SourceFile, lasting_fault
from sknet.errors import UserError
from sknet.records import Dataset, QuarantinedSample

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
