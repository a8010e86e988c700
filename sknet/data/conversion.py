"""Conversion: a source of images into shards, by several processes or hosts, resumable by shard.

A file's bytes depend on the samples and its place only: the number of workers, the hosts and the
directory leave no trace.

    out/.conversion/<shard>.<attempt>/   where one attempt writes; no two writers ever meet
    out/<shard>.mindrecord[.db]          moved there, synced, once whole
    out/.conversion/<shard>.json         written last: the shard is finished
    out/shards.json                      written once all are; then out/.conversion goes

A start after a kill trusts a shard whose record is of the same plan and whose files have the
recorded sizes and SHA-256; it removes whatever else an earlier conversion left. All processes,
on whatever host, see one directory; through it they also tell how far they are.
"""

import fcntl
import hashlib
import itertools
import json
import os
import re
import shutil
import socket
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from sknet.data.images import undecodable
from sknet.data.order import order_slice
from sknet.data.processes import in_processes
from sknet.data.progress import Progress, ProgressSink, Tally, read_tallies, unheard
from sknet.data.quarantine import MAX_QUARANTINE, refuse_too_many
from sknet.data.reencoding import reencode
from sknet.data.shards import (
    SCHEMA,
    SHARDS_FORMAT,
    Layout,
    Row,
    is_sound,
    layout_for,
    write_shard,
)
from sknet.data.sources import SPLITS, Sample, Source, open_source
from sknet.data.staging import INDEX_COLUMNS, Staged
from sknet.errors import UserError
from sknet.records import (
    Dataset,
    QuarantinedSample,
    Record,
    Reencoding,
    Sha256,
    ShardFile,
    Shards,
)

# Samples are spread by this fixed permutation, so that a few shards hold all classes.
SPREAD_SEED = 0
AUTO_SHARD_BYTES = 1 << 28
ROWS_PER_BLOCK = 1024
# A range of an S3 object has no checksum on its way: what arrives wrong once is read once more.
READS = 2
WORK = ".conversion"
PLAN_FILE = "plan"
_OURS = re.compile(r"[a-z]+-\d{5}-of-\d{5}\.mindrecord(\.db)?|shards\.json(\.part)?|\.conversion")


@dataclass(frozen=True)
class ShardPlan:
    """One shard to write: its name says its place among those of the split."""

    split: str
    name: str
    rows: pd.DataFrame
    """Its part of the index, in its order."""


class ShardRecord(Record):
    """A finished shard, as the next start finds it."""

    plan: Sha256
    file: ShardFile
    quarantined: tuple[QuarantinedSample, ...]


@dataclass(frozen=True)
class ConvertedShard:
    """A finished shard, as its process reports it."""

    record: ShardRecord
    source_bytes: int
    num_images: int
    """Quarantined ones included."""
    kept: bool
    """Whether an earlier attempt had finished it."""


class Spread(Protocol):
    """A way to have shards converted: processes of this host, or other hosts."""

    def __call__(
        self,
        function: Callable[[ShardPlan], ConvertedShard],
        items: Iterable[ShardPlan],
        *,
        on_tick: Callable[[], None],
    ) -> Iterator[ConvertedShard]:
        """Yield results in any order, raise what `function` raises, tick about twice a second."""


@dataclass(frozen=True)
class ShardConverter:
    """What every process needs to convert any shard; called with the shard's plan."""

    source: str
    directory: Path
    plan: str
    attempt: str
    """Of the conversion as a whole: a host that reads another one sees another directory."""
    reencoding: Reencoding | None

    def __call__(self, shard: ShardPlan) -> ConvertedShard:
        """Convert unless that is done. Raises UserError where sample, source or directory fail."""
        self._check_host()
        images, size = len(shard.rows), int(shard.rows["size"].sum())
        work = self.directory / WORK
        if record := self._finished(shard.name):
            return ConvertedShard(record, size, images, kept=True)
        building = work / f"{shard.name}.{uuid.uuid4().hex[:8]}"
        building.mkdir()
        quarantined: list[QuarantinedSample] = []
        layout = layout_for(shard.rows["size"].tolist(), int(shard.rows["key"].str.len().sum()) * 4)
        rows = self._rows(shard, layout, quarantined, Tally(building / "tally"))
        file = write_shard(building / shard.name, shard.split, rows, layout)
        for name in (file.name, file.index_name):
            sync(building / name)
            (building / name).replace(self.directory / name)
        sync(self.directory)
        record = ShardRecord(plan=self.plan, file=file, quarantined=tuple(quarantined))
        write_durably(record, work / f"{shard.name}.json")
        shutil.rmtree(building)
        return ConvertedShard(record, size, images, kept=False)

    def _check_host(self) -> None:
        try:
            seen = (self.directory / WORK / PLAN_FILE).read_text("ascii")
        except OSError:
            seen = ""
        if seen != self.attempt:
            raise UserError(
                f"host {socket.gethostname()} does not see the directory {self.directory}: "
                "all hosts that convert must share it"
            )

    def _finished(self, name: str) -> ShardRecord | None:
        path = self.directory / WORK / f"{name}.json"
        record = ShardRecord.read(path) if path.is_file() else None
        return record if record and is_sound(record.file, self.directory) else None

    def _rows(
        self,
        shard: ShardPlan,
        layout: Layout,
        quarantined: list[QuarantinedSample],
        tally: Tally,
    ) -> Iterator[Row]:
        try:
            opened = open_source(self.source)
        except UserError as error:
            raise UserError(f"on host {socket.gethostname()}: {error}") from None
        for sample in _samples(shard.rows):
            key = sample.key
            content = _read(opened, sample)
            if reason := undecodable(content):
                quarantined.append(QuarantinedSample(split=shard.split, key=key, reason=reason))
            else:
                image = reencode(content, self.reencoding) if self.reencoding else content
                if len(image) >= layout.page_bytes:
                    raise UserError(f"sample {key} takes {len(image)} bytes when re-encoded")
                yield Row(image, sample.label, key)
            tally.add(len(content))


def write_shards(
    staged: Staged,
    source: str,
    directory: Path,
    *,
    num_shards: int | None,
    num_workers: int = 1,
    reencoding: Reencoding | None = None,
    max_quarantine: float = MAX_QUARANTINE,
    spread: Spread | None = None,
    on_progress: ProgressSink = unheard,
) -> Shards:
    """Write all shards and, last, shards.json into `directory`, which then holds nothing else.

    `num_shards` is for each split; None: by their bytes, about 256 MiB a shard. `spread` takes the
    place of `num_workers` processes on this host. Samples that don't decode are left out and
    listed. Raises UserError if the source changed since staging, if too many samples don't
    decode, or if the directory holds other things or another conversion is at work in it.
    """
    counts = shard_counts(staged, num_shards)
    plan = plan_digest(staged.dataset, counts, reencoding)
    with only_conversion_in(directory):
        attempt = uuid.uuid4().hex
        _begin(directory, staged, counts, plan, attempt)
        converter = ShardConverter(source, directory.absolute(), plan, attempt, reencoding)
        progress = _ProgressOf(directory, len(staged.index), on_progress)
        run = spread or partial(in_processes, num_workers=min(num_workers, sum(counts.values())))
        for converted in run(converter, plan_shards(staged, counts), on_tick=progress.tell):
            progress.add(converted)
        by_name = {converted.record.file.name: converted.record for converted in progress.finished}
        records = [by_name[name] for name in shard_names(counts)]
        shards = Shards(
            dataset=staged.dataset,
            files=tuple(record.file for record in records),
            quarantined=tuple(
                sorted(
                    (sample for record in records for sample in record.quarantined),
                    key=lambda sample: (sample.split, sample.key),
                )
            ),
            reencoding=reencoding,
            plan=plan,
        )
        refuse_quarantine_above(max_quarantine, shards)
        write_durably(shards, directory / "shards.json")
        shutil.rmtree(directory / WORK)
    return shards


def refuse_quarantine_above(share: float, shards: Shards) -> None:
    """Raises UserError if staging and conversion left out a greater share of all samples."""
    staged = shards.dataset.quarantined
    total = sum(shards.dataset.splits.values()) + len(staged)
    refuse_too_many([*staged, *shards.quarantined], total, share)


def shard_counts(staged: Staged, num_shards: int | None) -> dict[str, int]:
    """How many shards each split gets: never more than samples."""
    counts = {}
    for split in SPLITS:
        sizes = staged.index["size"][staged.index["split"] == split]
        by_bytes = -(-int(sizes.sum()) // AUTO_SHARD_BYTES)
        counts[split] = min(by_bytes if num_shards is None else num_shards, len(sizes))
    return counts


def shard_names(counts: dict[str, int]) -> list[str]:
    """In the order of the splits and of their samples."""
    return [
        f"{split}-{number:05}-of-{count:05}.mindrecord"
        for split, count in counts.items()
        for number in range(count)
    ]


def plan_shards(staged: Staged, counts: dict[str, int]) -> Iterator[ShardPlan]:
    """The shards one by one, equal in length within a split but for one sample."""
    for split, count in counts.items():
        places = np.flatnonzero((staged.index["split"] == split).to_numpy())
        bounds = [len(places) * number // count for number in range(count + 1)] if count else []
        names = shard_names({split: count})
        for name, (start, stop) in zip(names, pairwise(bounds), strict=True):
            spread = order_slice(len(places), SPREAD_SEED, 0, start, stop)
            yield ShardPlan(split, name, staged.index.iloc[places[spread]])


def plan_digest(dataset: Dataset, counts: dict[str, int], reencoding: Reencoding | None) -> str:
    """Over the rows (the data set's digest covers each) and all settings that shape the bytes."""
    shaping = {
        "format": SHARDS_FORMAT,
        "samples": dataset.samples_digest,
        "counts": counts,
        "spread_seed": SPREAD_SEED,
        "schema": SCHEMA,
        "mindspore": version("mindspore"),
        "reencoding": reencoding.model_dump() if reencoding else None,
    }
    return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()


@contextmanager
def only_conversion_in(directory: Path) -> Iterator[None]:
    """Hold the directory; the kernel lets go when this process ends, however it ends."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another conversion is at work in {directory}") from None
        yield
    finally:
        os.close(descriptor)


def write_durably(record: Record, path: Path) -> None:
    """Write so that after any crash the file is there whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    record.write(part)
    sync(part)
    part.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Have a file's or directory's content reach the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _ProgressOf:
    """Adds up finished shards and the tallies of those at work."""

    def __init__(self, directory: Path, total_images: int, on_progress: ProgressSink) -> None:
        self.finished: list[ConvertedShard] = []
        self._work = directory / WORK
        self._sink = on_progress
        self._now = Progress(0, total_images, 0)

    def add(self, converted: ConvertedShard) -> None:
        self.finished.append(converted)
        self.tell()

    def tell(self) -> None:
        done = {converted.record.file.name for converted in self.finished}
        images, size = read_tallies(
            path
            for path in self._work.glob("*/tally")
            if path.parent.name.rpartition(".")[0] not in done
        )
        kept = [converted for converted in self.finished if converted.kept]
        images += sum(converted.num_images for converted in self.finished)
        # An attempt whose host was lost is counted until its shard is done again.
        images = min(max(images, self._now.images), self._now.total_images)
        self._now = Progress(
            images=images,
            total_images=self._now.total_images,
            bytes=max(size + sum(c.source_bytes for c in self.finished), self._now.bytes),
            kept_images=sum(converted.num_images for converted in kept),
            kept_bytes=sum(converted.source_bytes for converted in kept),
        )
        self._sink(self._now)


def _read(source: Source, sample: Sample) -> bytes:
    """The sample as it was staged."""
    for _ in range(READS):
        try:
            content = source.read(sample)
        except OSError as error:
            raise UserError(f"sample {sample.key} can't be read: {error.strerror}") from None
        if hashlib.sha256(content).hexdigest() == sample.sha256:
            return content
    raise UserError(
        f"sample {sample.key} changed since it was staged: start again to read it anew, with "
        "--full if its time stamp didn't change"
    )


def _samples(rows: pd.DataFrame) -> Iterator[Sample]:
    """Block by block: a million rows as objects would take a gigabyte."""
    for start in range(0, len(rows), ROWS_PER_BLOCK):
        block = rows.iloc[start : start + ROWS_PER_BLOCK]
        columns = (block[name].tolist() for name in INDEX_COLUMNS)
        yield from itertools.starmap(Sample, zip(*columns, strict=True))


def _begin(
    directory: Path, staged: Staged, counts: dict[str, int], plan: str, attempt: str
) -> None:
    """Leave finished shards of this plan, with their records, and nothing else."""
    for path in directory.iterdir():
        if not _OURS.fullmatch(path.name):
            raise UserError(
                f"{directory} holds {path.name!r}, which no conversion wrote: "
                "expected a new or empty directory, or that of an earlier conversion"
            )
    work = directory / WORK
    work.mkdir(exist_ok=True)
    _reopen(directory, plan, plan_shards(staged, counts))
    names = shard_names(counts)
    trusted = {f"{name}.json" for name in names if _is_of(plan, work / f"{name}.json")}
    for path in work.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in trusted:
            path.unlink()
    kept = {name.removesuffix(".json") for name in trusted}
    for path in directory.iterdir():
        if path != work and path.name.removesuffix(".db") not in kept:
            path.unlink()
    (work / PLAN_FILE).write_text(attempt, "ascii")


def _is_of(plan: str, path: Path) -> bool:
    try:
        return ShardRecord.read(path).plan == plan
    except UserError:
        return False


def _reopen(directory: Path, plan: str, planned: Iterable[ShardPlan]) -> None:
    """Turn a finished conversion of this plan back into records of its shards."""
    try:
        shards = Shards.read(directory / "shards.json")
    except UserError:
        return
    if shards.plan != plan:
        return
    left_out: dict[str, list[QuarantinedSample]] = {file.name: [] for file in shards.files}
    keys = {sample.key: sample for sample in shards.quarantined}
    for shard in planned if keys else ():
        held = shard.rows["key"][shard.rows["key"].isin(list(keys))]
        left_out[shard.name] = [keys[key] for key in held]
    for file in shards.files:
        record = ShardRecord(plan=plan, file=file, quarantined=tuple(left_out[file.name]))
        write_durably(record, directory / WORK / f"{file.name}.json")
