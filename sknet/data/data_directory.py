"""The data of a program's --data_dir: its shards, or those that are made of its images."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from infra.base.files import is_file
from infra.base.locks import exclusive
from sknet.data.conversion.conversion import refuse_quarantine_above, write_shards
from sknet.data.conversion.progress import Shown
from sknet.data.copies.leaks import ON_LEAK, OnLeak, copy_warnings, refuse_recorded_leaks
from sknet.data.scan_cache import ScanCache
from sknet.data.shards import ShardSet, read_shards
from sknet.data.sources import SPLITS, open_source
from sknet.data.staging import stage_source
from sknet.outputs import make_directory
from sknet.records import Dataset
from sknet.records.data import SHARDS_FILE

NUM_SHARDS = 8
"""Shards of each split."""

POLL_SECONDS = 0.5
"""Time between two looks at whether rank 0 has finished."""


def shards_at(
    data_dir: str,
    cache_dir: Path,
    *,
    rank: int,
    num_workers: int,
    splits: Sequence[str] = SPLITS,
    max_quarantine: float | None = None,
    on_leak: OnLeak = ON_LEAK,
    check: Callable[[Dataset], None] = lambda _: None,
    report: Callable[[str], None] = lambda _: None,
) -> ShardSet:
    """Return the verified shards of a data directory; convert it if it holds images.

    Rank 0 converts into `cache_dir/<digest>`, where the next run finds the shards; a run that is
    started meanwhile waits for it. The other ranks wait for that directory, because a collective
    operation would time out.

    Args:
        data_dir: A directory with shards, or a source of images as users write it.
        cache_dir: Where the shards of sources are.
        rank: This process's rank.
        num_workers: Processes that convert.
        splits: The splits that the program reads, whose shards are verified.
        max_quarantine: Largest fraction of the samples that may be unusable, 0 to 1; None: that of
            `refuse_too_many`. It doesn't apply to shards that are given.
        on_leak: What happens if samples have copies in other splits. Nothing can be left out of
            shards that are given, so that `drop` refuses those with such copies.
        check: Called with a data set before it is converted; raises UserError if the program can't
            use it.
        report: Called on rank 0 with lines about the source, copies in several splits, the images
            that are left out, and another program that converts the same data.

    Raises:
        UserError: The source has none of the known forms, a shard is damaged, or `on_leak` refuses
            the data.
    """
    given = Path(data_dir)
    if is_file(given / SHARDS_FILE):
        shards = read_shards(given, splits)
        for line in copy_warnings(shards.record.dataset) if rank == 0 else ():
            report(line)
        refuse_recorded_leaks(shards.record.dataset, on_leak, f"the shards in {data_dir}")
        return shards
    source = open_source(data_dir)

    def tell(_level: int, line: str) -> None:
        if rank == 0:
            report(line)

    staged = stage_source(
        source, ScanCache(source), max_quarantine=max_quarantine, on_leak=on_leak, report=tell
    )
    check(staged.dataset)
    name = staged.dataset.content_digest[:16]
    directory = cache_dir / name
    if rank != 0:
        # If rank 0 dies, msrun ends this rank.
        while not directory.is_dir():
            time.sleep(POLL_SECONDS)
        return read_shards(directory, splits)
    make_directory(cache_dir, "--shards_dir")
    waiting = f"waiting for another program that converts {data_dir}"
    with exclusive(cache_dir / f".{name}.lock", on_wait=lambda: report(waiting)):
        if not directory.is_dir():
            partial = cache_dir / f".{name}.partial"
            partial.mkdir(exist_ok=True)
            write_shards(
                staged,
                data_dir,
                partial,
                num_shards=NUM_SHARDS,
                num_workers=num_workers,
                max_quarantine=max_quarantine,
                on_progress=Shown(),
                report=tell,
            )
            partial.rename(directory)
    shards = read_shards(directory, splits)
    refuse_quarantine_above(max_quarantine, shards.record)  # an earlier run may have allowed more
    return shards
