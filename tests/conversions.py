"""Conversions in the test's own process, and what they leave."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from sknet.data.conversion.conversion import write_shards
from sknet.data.conversion.converter import ConvertedShard
from sknet.data.conversion.plan import ShardPlan
from sknet.data.sources import open_source
from sknet.data.staging import stage_source
from sknet.records import Shards


def in_this_process(
    function: Callable[[ShardPlan], ConvertedShard],
    items: Iterable[ShardPlan],
    *,
    on_tick: Callable[[], None],
) -> Iterator[ConvertedShard]:
    for item in items:
        yield function(item)
        on_tick()


def write(source: Path, out: Path, *, num_shards: int | None = 2, **options: Any) -> Shards:
    """Converted as found now, here unless with `num_workers`."""
    out.mkdir(parents=True, exist_ok=True)
    if "num_workers" not in options:
        options.setdefault("parallel_map", in_this_process)
    staged = stage_source(open_source(str(source)))
    return write_shards(staged, str(source), out, num_shards=num_shards, **options)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def identities(paths: Iterable[Path]) -> dict[str, tuple[int, int]]:
    """What changes when a file is written again."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}
