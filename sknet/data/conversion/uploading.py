"""Conversion by hosts that share no directory: each uploads the shards that it finishes.

The record of a finished shard is noted in the store, by the process that plans. The next conversion
of the same plan leaves out each shard of which the record and both files are there, and removes
everything else that is left.
"""

from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

from pydantic import ValidationError

from infra.base.uploads import Uploads
from sknet.data.conversion.conversion import (
    ParallelMap,
    ProgressTracker,
    num_samples,
    record_of_shards,
)
from sknet.data.conversion.converter import ConvertedShard, ShardConverter
from sknet.data.conversion.directory import ShardRecord
from sknet.data.conversion.outputs import TemporaryDirectories
from sknet.data.conversion.plan import (
    ShardPlan,
    plan_digest,
    plan_shards,
    shard_counts,
    shard_names,
)
from sknet.data.conversion.progress import ProgressSink
from sknet.data.index import SampleIndex
from sknet.data.quarantine import Report, no_report, report_quarantined
from sknet.errors import UserError
from sknet.records import Reencoding, Shards


def upload_shards(
    index: SampleIndex,
    source: str,
    uploads: Uploads,
    scratch: Path,
    *,
    num_shards: int | None,
    parallel_map: ParallelMap,
    reencoding: Reencoding | None = None,
    max_quarantine: float | None = None,
    on_progress: ProgressSink | None = None,
    report: Report = no_report,
) -> Shards:
    """Let hosts convert and upload all shards, and return the record of these.

    The files are those of `write_shards`, which describes the other arguments.

    Args:
        index: The staged samples.
        source: Its source, which each host opens.
        uploads: The files of the artifact that the shards become.
        scratch: A directory on this host for the rows of the index, which are dealt to shards.
        num_shards: Shards of each split.
        parallel_map: What converts the shards.
        reencoding: Settings to store large images smaller.
        max_quarantine: Largest fraction of samples that may be unusable.
        on_progress: Called about twice a second. It is told of whole shards only.
        report: Told which images are left out.

    Raises:
        UserError: As `write_shards`; or a host uploads to another store.
        DiskFullError: The disk of a host is full.
        MemoryRefusedError: A process was refused memory.
        OSError: The store can't be reached.
    """
    counts = shard_counts(index, num_shards)
    plan = plan_digest(index.dataset, counts, reencoding)
    known = _finished(uploads, plan, shard_names(counts))
    uploads.keep_only(
        [name for record in known.values() for name, *_ in record.file.files],
        [_note_of(name) for name in known],
    )
    converter = ShardConverter(source, TemporaryDirectories(uploads.upload), plan, reencoding)
    progress = ProgressTracker(num_samples(index), on_progress)

    def collect(converted: ConvertedShard) -> None:
        progress.add(converted)
        report_quarantined(report, "convert", converted.record.quarantined)

    def unfinished(planned: Iterable[ShardPlan]) -> Iterator[ShardPlan]:
        for shard in planned:
            if record := known.get(shard.name):
                collect(ConvertedShard.of(shard, record, reused=True))
            else:
                yield shard

    with closing(plan_shards(index, counts, scratch)) as planned:
        for converted in parallel_map(converter, unfinished(planned), on_tick=progress.report):
            _note(uploads, converted.record)
            collect(converted)
    return record_of_shards(
        index, source, counts, progress.finished, reencoding, max_quarantine=max_quarantine
    )


def _finished(uploads: Uploads, plan: str, names: list[str]) -> dict[str, ShardRecord]:
    """Return the records of the shards of a plan that are in the store, by name."""
    records = {}
    for content in uploads.notes().values():
        try:
            record = ShardRecord.model_validate_json(content)
        except ValidationError:
            continue
        if record.plan == plan:
            records[record.file.name] = record
    missing = uploads.missing([each for r in records.values() for each in r.file.files])
    return {
        name: records[name]
        for name in names
        if name in records and missing.isdisjoint(each for each, *_ in records[name].file.files)
    }


def _note(uploads: Uploads, record: ShardRecord) -> None:
    if missing := uploads.missing(record.file.files):
        raise UserError(
            f"a host has uploaded {min(missing)}, but it is not in the store as this host sees it: "
            "all hosts need the same AWS settings"
        )
    uploads.note(_note_of(record.file.name), record.encode())


def _note_of(name: str) -> str:
    return f"{name}.json"
