"""Conversion: a source of images into shards, by several processes or hosts, resumable by shard.

A file's bytes depend on the samples and its place only: the number of workers, the hosts and the
directory leave no trace. All processes, on whatever host, see one directory; through it they also
tell how far they are.
"""

import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Protocol

from sknet.data.conversion.directory import WORK, begin, only_conversion_in, write_durably
from sknet.data.conversion.converter import ConvertedShard, ShardConverter
from sknet.data.conversion.plan import ShardPlan, plan_digest, plan_shards, shard_counts, shard_names
from sknet.data.processes import in_processes
from sknet.data.conversion.progress import Progress, ProgressSink, read_tallies, unheard
from sknet.data.quarantine import MAX_QUARANTINE, refuse_too_many
from sknet.data.staging import Staged
from sknet.records import Reencoding, Shards


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
        begin(directory, staged, counts, plan, attempt)
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
