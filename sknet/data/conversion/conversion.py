"""Conversion of a staged source into shards, by several processes or hosts.

A shard's bytes depend on its samples, its number, and the sizes of the images of its split only:
the count of processes, the hosts and the directory leave no trace. Here, all processes, on whatever
host, work in one directory; in `sknet.data.conversion.uploading` they share none.
"""

import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import partial
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import Any, Protocol, TypeVar

from infra.base.files import replace_file
from sknet.data.conversion.converter import ConvertedShard, ShardConverter
from sknet.data.conversion.directory import WORK, locked, prepare
from sknet.data.conversion.outputs import SharedDirectory
from sknet.data.conversion.plan import (
    ShardPlan,
    plan_digest,
    plan_shards,
    shard_counts,
    shard_names,
)
from sknet.data.conversion.progress import (
    ConversionProgress,
    ProgressSink,
    read_tallies,
)
from sknet.data.index import SampleIndex, has_key, rows_of
from sknet.data.quarantine import Report, no_report, refuse_too_many, report_quarantined
from sknet.errors import LostProcessError, UserError
from sknet.records import Reencoding, Shards
from sknet.records.data import SHARDS_FILE

TICK_SECONDS = 0.5
"""Time between two looks at the progress."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class ParallelMap(Protocol):
    """A way to convert shards in parallel: in processes of this host, or on other hosts."""

    def __call__(
        self,
        function: Callable[[ShardPlan], ConvertedShard],
        items: Iterable[ShardPlan],
        *,
        on_tick: Callable[[], None],
    ) -> Iterator[ConvertedShard]:
        """Yield the function's results in any order, and raise what it raises.

        Args:
            function: What to call.
            items: What to call it with.
            on_tick: To be called about twice a second.
        """


def write_shards(
    index: SampleIndex,
    source: str,
    directory: Path,
    *,
    num_shards: int | None,
    num_workers: int = 1,
    reencoding: Reencoding | None = None,
    max_quarantine: float | None = None,
    parallel_map: ParallelMap | None = None,
    on_progress: ProgressSink | None = None,
    report: Report = no_report,
) -> Shards:
    """Write all shards and, last, shards.json. Finished shards of the same plan are reused.

    Images that don't decode are left out and listed.

    Args:
        index: The staged samples.
        source: Its source, as users write it.
        directory: An existing directory, which holds the shards and nothing else in the end.
        num_shards: Shards of each split. None: one for about 256 MiB of images.
        num_workers: Processes on this host that convert.
        reencoding: Settings to store large images smaller. None: the original bytes.
        max_quarantine: Largest fraction of samples that may be unusable, 0 to 1; None: that of
            `refuse_too_many`.
        parallel_map: What converts the shards, in place of processes on this host.
        on_progress: Called about twice a second.
        report: Told which images are left out, shard by shard.

    Raises:
        UserError: The source changed since it was staged, too many images, or all of a class in a
            split, don't decode, the directory holds other files, or another conversion is at work
            in it.
        LostProcessError: A process was killed.
        DiskFullError: The disk is full.
        MemoryRefusedError: A process was refused memory.
    """
    counts = shard_counts(index, num_shards)
    plan = plan_digest(index.dataset, counts, reencoding)
    if parallel_map is None:
        num_workers = min(num_workers, sum(counts.values()))
        parallel_map = partial(_map_in_processes, num_workers=num_workers)
    with locked(directory):
        attempt = uuid.uuid4().hex
        prepare(directory, index, counts, plan, attempt)
        output = SharedDirectory(directory.absolute(), attempt)
        converter = ShardConverter(source, output, plan, reencoding)
        progress = ProgressTracker(num_samples(index), on_progress, directory / WORK)
        with closing(plan_shards(index, counts, directory / WORK)) as planned:
            for converted in parallel_map(converter, planned, on_tick=progress.report):
                progress.add(converted)
                report_quarantined(report, "convert", converted.record.quarantined)
        shards = record_of_shards(
            index, source, counts, progress.finished, reencoding, max_quarantine=max_quarantine
        )
        replace_file(directory / SHARDS_FILE, shards.encode(), durable=True)
        shutil.rmtree(directory / WORK)
    return shards


def record_of_shards(
    index: SampleIndex,
    source: str,
    counts: dict[str, int],
    finished: Iterable[ConvertedShard],
    reencoding: Reencoding | None,
    *,
    max_quarantine: float | None,
) -> Shards:
    """Return the record of all shards, in their order, unless too little of the data is left.

    Args:
        index: The staged samples.
        source: Its source, for messages.
        counts: Number of shards of each split.
        finished: All shards, in any order.
        reencoding: How images were re-encoded.
        max_quarantine: Largest fraction of samples that may be unusable; see `write_shards`.

    Raises:
        UserError: Too many images, or all of a class in a split, were left out.
    """
    by_name = {converted.record.file.name: converted.record for converted in finished}
    records = [by_name[name] for name in shard_names(counts)]
    shards = Shards(
        dataset=index.dataset,
        files=tuple(record.file for record in records),
        quarantined=tuple(
            sorted(
                (sample for record in records for sample in record.quarantined),
                key=lambda sample: (sample.split, sample.key),
            )
        ),
        reencoding=reencoding,
        plan=plan_digest(index.dataset, counts, reencoding),
    )
    refuse_quarantine_above(max_quarantine, shards)
    _refuse_empty_classes(index, shards, source)
    return shards


def num_samples(index: SampleIndex) -> int:
    """Return the number of samples of all splits."""
    return sum(index.dataset.splits.values())


def refuse_quarantine_above(max_fraction: float | None, shards: Shards) -> None:
    """Check how many samples staging and conversion left out together.

    Args:
        max_fraction: Largest fraction of all samples, 0 to 1; None: that of `refuse_too_many`.
        shards: The shards.

    Raises:
        UserError: More were left out.
    """
    staged = shards.dataset.quarantined
    num_samples = sum(shards.dataset.splits.values()) + len(staged)
    refuse_too_many([*staged, *shards.quarantined], num_samples, max_fraction)


def _refuse_empty_classes(index: SampleIndex, shards: Shards, source: str) -> None:
    """Check that conversion left a readable image of each class in each split."""
    left_out = {sample.key: sample for sample in shards.quarantined}
    if not left_out:
        return  # staging has found some
    remaining: set[tuple[Any, ...]] = set()
    lost: list[tuple[Any, ...]] = []
    for block in index.blocks(["split", "label", "key"]):
        is_left_out = has_key(block, left_out)
        kept = block.filter(~is_left_out).select(["split", "label"])
        remaining.update(rows_of(kept.group_by(["split", "label"]).aggregate([])))
        lost += rows_of(block.filter(is_left_out))
    for split, label, key in lost:
        if (split, label) not in remaining:
            raise UserError(
                f"class {shards.dataset.classes[label]!r} has no usable image for {split!r} in "
                f"{source}; the first that was left out is {key}: {left_out[key].reason}"
            )


class ProgressTracker:
    """Adds up the finished shards and the tallies of those that are being written."""

    def __init__(
        self, total_images: int, on_progress: ProgressSink | None, work: Path | None = None
    ) -> None:
        """Begin with nothing.

        Args:
            total_images: Images of all shards.
            on_progress: Told of it.
            work: The directory of the tallies, which have names below those of the shards. None: no
                tally can be seen from here.
        """
        self.finished: list[ConvertedShard] = []
        self._work = work
        self._on_progress = on_progress
        self._now = ConversionProgress(0, total_images, 0)

    def add(self, converted: ConvertedShard) -> None:
        """Count a finished shard."""
        self.finished.append(converted)
        self.report()

    def report(self) -> None:
        """Tell how far the conversion is."""
        if self._on_progress is None:
            return
        finished = {converted.record.file.name for converted in self.finished}
        images, size = read_tallies(
            path
            for path in (self._work.glob("*/tally") if self._work else ())
            if path.parent.name.rpartition(".")[0] not in finished
        )
        reused = [converted for converted in self.finished if converted.reused]
        images += sum(converted.num_images for converted in self.finished)
        # The tally of a lost host counts until its shard is converted again: never more than all.
        images = min(max(images, self._now.images), self._now.total_images)
        self._now = ConversionProgress(
            images=images,
            total_images=self._now.total_images,
            bytes=max(size + sum(c.source_bytes for c in self.finished), self._now.bytes),
            reused_images=sum(converted.num_images for converted in reused),
            reused_bytes=sum(converted.source_bytes for converted in reused),
        )
        self._on_progress(self._now)


def _map_in_processes(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    num_workers: int,
    on_tick: Callable[[], None],
) -> Iterator[Result]:
    """Map in processes of this host. Items are taken when a process is about to be free.

    Raises:
        LostProcessError: A process was killed.
    """
    waiting = iter(items)
    pending: set[Future[Result]] = set()
    # Spawned processes, because MindSpore's threads don't survive a fork.
    pool = ProcessPoolExecutor(
        max(1, num_workers), mp_context=get_context("spawn"), initializer=_end_with_parent
    )
    try:
        while True:
            while len(pending) <= num_workers:
                try:
                    pending.add(pool.submit(function, next(waiting)))
                except StopIteration:
                    break
            if not pending:
                return
            done, pending = wait(pending, TICK_SECONDS, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
            on_tick()
    except BrokenProcessPool:
        raise LostProcessError(
            "a worker process was killed, perhaps because memory ran out: start the same command "
            "again to resume from the finished shards"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """End this process when its parent is killed, so that it doesn't disturb the next attempt."""
    if parent := parent_process():
        threading.Thread(target=_exit_after, args=[parent.sentinel], daemon=True).start()


def _exit_after(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
