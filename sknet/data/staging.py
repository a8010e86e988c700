"""Staging: list a source, read and hash every file once, and describe it as a record and an index.

The same images give the same record and index on every machine with the same versions of Pillow
and imagehash, by which copies are found: neither holds a time or a path of the machine. What a file
held is cached, so that the next staging reads only what has changed.
"""

import itertools
import logging
import time
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from infra.base.progress import Count, work
from infra.base.shortages import memory_for
from sknet.data.copies.leaks import (
    ON_LEAK,
    OnLeak,
    copy_groups,
    copy_warnings,
    refuse_leaks,
    without_leaks,
)
from sknet.data.copies.matching import find_copies
from sknet.data.index import INDEX_COLUMNS, ROWS_PER_BLOCK, foreign, rows_digest, unreadable
from sknet.data.quarantine import (
    Report,
    ignored_lines,
    no_report,
    refuse_too_many,
    report_quarantined,
)
from sknet.data.scan_cache import Found, ScanCache
from sknet.data.sources.kinds import split_of
from sknet.data.sources.source import ALL_SPLITS, SPLITS, Sample, ScannedImage, Source
from sknet.data.sources.split_rule import read_groups
from sknet.data.sources.trees import Skipped, SourceFile, lasting_fault, printable
from sknet.data.splitting import divided_groups, draw_splits, uneven_splits, ungrouped
from sknet.errors import UserError
from sknet.records import Dataset, QuarantinedSample
from sknet.records.data import DATASET_FILE, INDEX_FILE

if TYPE_CHECKING:
    # Functions import them when they need them: they take a third of the time that Prefect's does.
    import pandas as pd
    import pyarrow as pa

NUM_READERS = 4
"""Threads that read. Hashing releases the interpreter's lock, and a network file system answers
several requests at once."""

FILES_PER_ROUND = 256
UNPRINTABLE = "a name that is not printable UTF-8: rename it"


@dataclass(frozen=True)
class Staged:
    """A data set and the index of its samples."""

    dataset: Dataset
    index: "pd.DataFrame"
    """One row for each sample, with INDEX_COLUMNS, sorted by split and key."""
    ignored: tuple[Skipped, ...] = ()
    """Files that are no images, and why. They are not quarantined."""
    num_files_read: int = 0
    """Number of files that were read this time. The others were in the cache."""

    def blocks(self, columns: Sequence[str] = INDEX_COLUMNS) -> Iterator["pa.Table"]:
        """Yield the rows of the index; see `sknet.data.index.SampleIndex`."""
        import pyarrow as pa

        for start in range(0, len(self.index), ROWS_PER_BLOCK):
            rows = self.index.iloc[start : start + ROWS_PER_BLOCK]
            yield pa.Table.from_pandas(rows[list(columns)], preserve_index=False)

    def write(self, directory: Path) -> None:
        """Write dataset.json and samples.parquet."""
        self.dataset.write(directory / DATASET_FILE)
        self.index.to_parquet(directory / INDEX_FILE, index=False)


def stage_source(
    source: Source,
    cache: ScanCache | None = None,
    *,
    full: bool = False,
    max_quarantine: float | None = None,
    on_leak: OnLeak = ON_LEAK,
    report: Report = no_report,
) -> Staged:
    """Find all samples of a source. Unchanged files that the cache knows are not read.

    Args:
        source: The source.
        cache: What earlier stagings found in its files; updated with what this one finds.
        full: Whether to read all files, whatever the cache knows.
        max_quarantine: Largest fraction of the samples that may be unusable, 0 to 1; None: that of
            `refuse_too_many`.
        on_leak: What happens if samples have copies in other splits: they are only recorded, the
            source is refused, or the copies are left out of the split that matters less.
        report: Told what folders were taken for, which files were left out, and which are copies,
            also of a source that is refused.

    Raises:
        UserError: The source doesn't have the form that it should have, a class has no usable
            image, too many samples are unusable, or `on_leak` refuses the source.
        MemoryRefusedError: The decoder of an image was refused memory.
        SourceReadError: The disk or the network failed, so that trying again may help.
    """
    _refuse_one_class(source)
    began_ns = time.time_ns()
    group_tree = source.split_rule.group_tree
    groups = read_groups(group_tree) if group_tree else None
    files, skipped = _list(source)
    for note in source.notes:
        report(logging.INFO, f"stage: {note}")
    scanned: list[tuple[SourceFile, Found]] = []
    num_files_read = 0
    with work(f"reading {source.location}", sum(file.size for file in files)) as count:
        for file, found, was_read in _scan_all(source, files, None if full else cache, count):
            scanned.append((file, found))
            num_files_read += was_read
    samples, unusable = _assign(source, scanned)
    skipped += unusable
    if cache:
        cache.write(scanned, began_ns)
    quarantined = tuple(
        _quarantined(entry)
        for entry in sorted(skipped, key=lambda entry: entry.name)
        if entry.quarantined
    )
    ignored = tuple(
        replace(entry, name=printable(entry.name)) for entry in skipped if not entry.quarantined
    )
    for line in ignored_lines(ignored):
        report(logging.INFO, f"stage: {line}")
    report_quarantined(report, "stage", quarantined)
    refuse_too_many(quarantined, len(samples) + len(quarantined), max_quarantine)
    if groups is not None and (lacking := ungrouped(samples, groups)):
        report(logging.WARNING, f"stage: {lacking}")
    matched = find_copies(
        [sample.sha256 for sample in samples], [sample.fingerprint for sample in samples]
    )
    copies = [[samples[each].key for each in group] for group in matched.groups]
    if source.split_rule.fractions:
        samples = draw_splits(
            samples, source.classes, source.split_rule, copies=copies, groups=groups
        )
        drawn = Counter(sample.split for sample in samples if sample.split not in source.splits)
        for split, num_images in sorted(drawn.items()):
            report(logging.INFO, f"stage: split {split}: {num_images} images, drawn from train")
        for line in uneven_splits(samples, source.classes, source.split_rule):
            report(logging.WARNING, f"stage: {line}")
    if divided := divided_groups(samples, groups or {}):
        if on_leak == "refuse":
            raise UserError(f"{divided}: put each into one split, or choose --on-leak warn")
        report(logging.WARNING, f"stage: {divided}")
    _refuse_empty_classes(source, samples)
    dropped: tuple[QuarantinedSample, ...] = ()
    if on_leak == "drop":
        samples, dropped = without_leaks(samples, copies)
        _refuse_empty_classes(source, samples, " after --on-leak drop")
    index = _index(samples)
    copied = {"copies": copy_groups(samples, copies), "dropped": dropped}
    dataset = _describe(source, index, quarantined).model_copy(update=copied)
    for line in copy_warnings(dataset, alike=matched.alike):
        report(logging.WARNING, f"stage: {line}")
    if on_leak == "refuse":
        refuse_leaks(dataset.copies)
    return Staged(dataset, index, ignored, num_files_read)


def read_staged(directory: Path) -> Staged:
    """Return what `Staged.write` wrote.

    Raises:
        UserError: A file can't be read, or the index and the record don't belong together.
    """
    from pyarrow import parquet

    dataset = Dataset.read(directory / DATASET_FILE)
    try:
        table = parquet.read_table(directory / INDEX_FILE, columns=INDEX_COLUMNS)
        # In one piece: to take rows out of several pieces, pandas copies them all, once a shard.
        index = table.combine_chunks().to_pandas()
    except (OSError, ValueError) as error:
        raise unreadable(directory / INDEX_FILE, error) from None
    if _digest(index, INDEX_COLUMNS) != dataset.index_sha256:
        raise foreign(directory / INDEX_FILE)
    return Staged(dataset, index)


def _list(source: Source) -> tuple[list[SourceFile], list[Skipped]]:
    files: list[SourceFile] = []
    skipped: list[Skipped] = []
    for entry in source.files():
        if isinstance(entry, Skipped):
            skipped.append(entry)
        elif entry.path.isprintable():
            files.append(entry)
        else:
            skipped.append(Skipped(entry.path, UNPRINTABLE))
    return files, skipped


def _scan_all(
    source: Source, files: list[SourceFile], cache: ScanCache | None, count: Count
) -> Iterator[tuple[SourceFile, Found, bool]]:
    """Yield each file, what is in it, and whether it was read to find that out."""

    def scan(file: SourceFile) -> tuple[SourceFile, Found, bool]:
        known = cache.get(file) if cache else None
        if known is not None:
            count(file.size)
            return file, known, False
        try:
            with memory_for(f"reading {file.path}"):
                return file, list(_counted(source.scan(file), file.size, count)), True
        except OSError as error:
            reason = lasting_fault(error, f"{source.location}: {file.path}")
            return file, [Skipped(file.path, f"can't be read: {reason}")], True

    with ThreadPoolExecutor(NUM_READERS) as pool:
        for start in range(0, len(files), FILES_PER_ROUND):
            yield from pool.map(scan, files[start : start + FILES_PER_ROUND])


def _counted(
    entries: Iterable[ScannedImage | Skipped], num_bytes: int, count: Count
) -> Iterator[ScannedImage | Skipped]:
    """Yield the entries of a file while they are read, and count its bytes, image by image."""
    try:
        for entry in entries:
            if isinstance(entry, ScannedImage):
                size = min(entry.size, num_bytes)
                num_bytes -= size
                count(size)
            yield entry
    finally:
        count(num_bytes)


def _assign(
    source: Source, scanned: list[tuple[SourceFile, Found]]
) -> tuple[list[Sample], list[Skipped]]:
    """Return the samples, sorted by split and key, and what can't be one."""
    samples: list[Sample] = []
    skipped: list[Skipped] = []
    for file, found in scanned:
        for entry in found:
            if isinstance(entry, Skipped):
                skipped.append(entry)
                continue
            assigned = source.assign(file.path, entry.name)
            if isinstance(assigned, Skipped):
                skipped.append(assigned)
                continue
            samples.append(
                Sample(
                    split=assigned.split,
                    key=assigned.key,
                    label=assigned.label,
                    size=entry.size,
                    sha256=entry.sha256,
                    file=file.path,
                    offset=entry.offset,
                    fingerprint=entry.fingerprint,
                )
            )
    samples.sort(key=lambda sample: (sample.split, sample.key))
    unique: dict[str, Sample] = {}
    for sample in samples:
        if not sample.key.isprintable():
            skipped.append(Skipped(sample.key, UNPRINTABLE))
            continue
        name = unicodedata.normalize("NFC", sample.key)
        if name in unique:
            reason = f"a second file of the name of {unique[name].key}"
            skipped.append(Skipped(sample.key, reason))
            continue
        unique[name] = sample
    return list(unique.values()), skipped


def _quarantined(entry: Skipped) -> QuarantinedSample:
    folder, inside, _ = entry.name.partition("/")
    split = (split_of(folder) if inside else None) or ""
    return QuarantinedSample(split=split, key=printable(entry.name), reason=entry.reason)


def _refuse_one_class(source: Source) -> None:
    if len(source.classes) < 2:
        raise UserError(
            f"data source {source.location} has the classes {list(source.classes)}: expected at "
            "least two"
        )


def _refuse_empty_classes(source: Source, samples: list[Sample], when: str = "") -> None:
    seen = {(sample.split, sample.label) for sample in samples}
    splits = {*SPLITS, *(split for split, _ in seen)}
    for split, (label, name) in itertools.product(sorted(splits), enumerate(source.classes)):
        if (split, label) not in seen:
            raise UserError(
                f"class {name!r} has no usable image for {split!r} in {source.location}{when}"
            )


def _index(samples: list[Sample]) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame(
        {column: [getattr(sample, column) for sample in samples] for column in INDEX_COLUMNS}
    )


def _describe(
    source: Source, index: "pd.DataFrame", quarantined: tuple[QuarantinedSample, ...]
) -> Dataset:
    counts = index["split"].value_counts()
    return Dataset(
        source=source.kind,
        classes=source.classes,
        titles=source.titles,
        splits={
            split: int(counts.get(split, 0))
            for split in ALL_SPLITS
            if split in SPLITS or split in counts
        },
        samples_digest=_digest(index, INDEX_COLUMNS[:5]),
        index_sha256=_digest(index, INDEX_COLUMNS),
        quarantined=quarantined,
    )


def _digest(index: "pd.DataFrame", columns: list[str]) -> str:
    return rows_digest(index[columns].itertuples(index=False, name=None))
