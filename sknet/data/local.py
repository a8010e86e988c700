"""Shards for the plain commands: of a directory of shards, or of images converted once."""

import time
from pathlib import Path

from sknet.data.conversion.conversion import write_shards
from sknet.data.ledger import Ledger
from sknet.data.conversion.progress import ProgressLine
from sknet.data.shards import read_shards
from sknet.data.sources import open_source
from sknet.data.staging import stage
from sknet.records import Shards

DEFAULT_NUM_SHARDS = 8
POLL_SECONDS = 0.5


def shards_at(
    data_dir: str, cache_dir: Path, *, rank: int, num_workers: int
) -> tuple[Shards, Path]:
    """The verified shards of `data_dir` and where they lie.

    A source of images is converted by rank 0 into `cache_dir/<digest>`, where the next run finds
    it; the other ranks wait without a collective, which would time out. Raises UserError for a
    source that has not the documented form.
    """
    given = Path(data_dir)
    if (given / "shards.json").is_file():
        return read_shards(given), given
    source = open_source(data_dir)
    staged = stage(source, Ledger(source))
    directory = cache_dir / staged.dataset.digest[:16]
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
    return read_shards(directory), directory
