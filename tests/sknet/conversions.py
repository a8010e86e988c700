"""Staging and conversion of test data in the test's own process, and what they leave."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sknet.data.conversion.conversion import write_shards
from sknet.data.conversion.converter import ConvertedShard
from sknet.data.conversion.plan import ShardPlan
from sknet.data.shards import MindRecordSizes, mindrecord_sizes
from sknet.data.sources import open_source
from sknet.data.staging import Staged, stage_source
from sknet.records import Shards


def stage(source: Path | str, **options: Any) -> Staged:
    """Stage a source as it is now.

    Args:
        source: The source, as users write it.
        **options: Options of `stage_source`.
    """
    return stage_source(open_source(str(source)), **options)


def convert(source: Path | str, out: Path, *, num_shards: int | None = 2, **options: Any) -> Shards:
    """Stage and convert a source, in this process unless there is an option `num_workers`.

    Args:
        source: The source.
        out: The directory for the shards, which is made.
        num_shards: Shards of each split.
        **options: Options of `write_shards`.
    """
    out.mkdir(parents=True, exist_ok=True)
    if "num_workers" not in options:
        options.setdefault("parallel_map", in_this_process)
    return write_shards(stage(source), str(source), out, num_shards=num_shards, **options)


def in_this_process(
    function: Callable[[ShardPlan], ConvertedShard],
    items: Iterable[ShardPlan],
    *,
    on_tick: Callable[[], None],
) -> Iterator[ConvertedShard]:
    """Convert one shard after the other; a ParallelMap."""
    for item in items:
        yield function(item)
        on_tick()


def sizes_for(image_sizes: Sequence[int], key_bytes: int) -> MindRecordSizes:
    """Return the sizes that a shard of such images needs."""
    return mindrecord_sizes(
        num_images=len(image_sizes),
        image_bytes=sum(image_sizes),
        largest_image=max(image_sizes, default=0),
        key_bytes=key_bytes,
    )


def contents(directory: Path) -> dict[str, bytes]:
    """Return the content of each file in a directory."""
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def identities(paths: Iterable[Path]) -> dict[str, tuple[int, int]]:
    """Return what changes when a file is written again: its inode and modification time."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}
