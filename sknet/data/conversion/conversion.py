"""Conversion: a source of images into shards, by several processes or hosts, resumable by shard.

A file's bytes depend on the samples and its place only: the number of workers, the hosts and the
directory leave no trace. All processes, on whatever host, see one directory; through it they also
tell how far they are.
"""

import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import Protocol, TypeVar

from sknet.data.conversion.converter import ConvertedShard, ShardConverter
from sknet.data.conversion.directory import WORK, begin, only_conversion_in, write_durably
from sknet.data.conversion.plan import (
    ShardPlan,
    plan_digest,
    plan_shards,
    shard_counts,
    shard_names,
)
from sknet.data.conversion.progress import (
    Progress,
    ProgressLine,
    ProgressSink,
    read_tallies,
    unheard,
)
from sknet.data.shards import ShardSet, read_shards
from sknet.data.sources import open_source
from sknet.data.staging import MAX_QUARANTINE, ScanCache, Staged, refuse_too_many, stage_source
from sknet.errors import LostProcessError
from sknet.records import Reencoding, Shards

TICK_SECONDS = 0.5

Item = TypeVar("Item")

Result = TypeVar("Result")


def in_processes(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    num_workers: int,
    on_tick: Callable[[], None],
) -> Iterator[Result]:
    """Yield results as they come; items are taken when a process is about to be free.

    Raises what `function` raises, and LostProcessError if a process was killed.
    """
    waiting = iter(items)
    pending: set[Future[Result]] = set()
    # MindSpore's threads don't survive a fork.
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
            "a worker process was killed, perhaps for want of memory: "
            "start again to go on from what is finished"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Not to go on writing beside the next attempt, when this one is killed."""
    if parent := parent_process():
        threading.Thread(target=_exit_after, args=[parent.sentinel], daemon=True).start()


def _exit_after(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


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


DEFAULT_NUM_SHARDS = 8

POLL_SECONDS = 0.5


def shards_at(data_dir: str, cache_dir: Path, *, rank: int, num_workers: int) -> ShardSet:
    """Return the verified shards of `data_dir`.

    A source of images is converted by rank 0 into `cache_dir/<digest>`, where the next run finds
    it; the other ranks wait without a collective, which would time out. Raises UserError for a
    source that has not the documented form.
    """
    given = Path(data_dir)
    if (given / "shards.json").is_file():
        return read_shards(given)
    source = open_source(data_dir)
    staged = stage_source(source, ScanCache(source))
    directory = cache_dir / staged.dataset.content_digest[:16]
    if rank != 0:
        # msrun ends this rank if rank 0 dies.
        while not directory.is_dir():
            time.sleep(POLL_SECONDS)
    elif not directory.is_dir():
        partial = cache_dir / f".{directory.name}.partial"
        partial.mkdir(parents=True, exist_ok=True)
        write_shards(
            staged,
            data_dir,
            partial,
            num_shards=DEFAULT_NUM_SHARDS,
            num_workers=num_workers,
            on_progress=ProgressLine(),
        )
        partial.rename(directory)
    return read_shards(directory)
