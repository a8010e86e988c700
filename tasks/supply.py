"""Where a program finds the shards of a store that it reads.

A training in the order by blocks begins with its first shards, and the others follow on demand. In
the full order it needs all of them before the first step, so they come into the host's cache, where
a retry and the next training find them. So do those of a training on several hosts, which share
that cache, and the split that an evaluation reads.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.artifacts import Artifact
from infra.base.on_demand import LimitError
from sknet.errors import UserError
from sknet.recipe import Recipe
from sknet.records import Shards
from sknet.records.data import SHARDS_FILE
from sknet.records.evaluation import SPLIT
from tasks.errors import JobFailedError, LostWorkerError


@contextmanager
def shards_for(
    recipe: Recipe, shards: Artifact, workspace: Path, *, on_this_host: bool
) -> Iterator[Path]:
    """Yield the directory from which a training reads its shards.

    Args:
        recipe: The recipe.
        shards: The shards.
        workspace: The workspace of the training.
        on_this_host: Whether all its ranks run on this host.

    Raises:
        UserError: What the ranks read at once exceeds the limit, or a file is damaged.
        OSError: The store can't be reached, or the disk is full.
    """
    if shards.supplier is None or recipe.shuffle == "full" or not on_this_host:
        yield shards.directory
        return
    directory = workspace / "shards"
    # The evaluation after the training finds its split in the cache.
    supplier = shards.supplier(directory, _files_of(shards, SPLIT))
    with supplier:
        shutil.copyfile(shards.path(SHARDS_FILE), directory / SHARDS_FILE)
        try:
            yield directory
        except (LostWorkerError, JobFailedError):
            if supplier.failure is None:
                raise
            # The ranks ended because of it, and only say so.
            if isinstance(supplier.failure, LimitError):
                raise UserError(f"{supplier.failure}, or choose a smaller shuffle_window") from None
            raise supplier.failure from None


def directory_of_split(shards: Artifact, split: str) -> Path:
    """Return a directory that has at least the record of the shards and the files of a split."""
    names = {SHARDS_FILE, *_files_of(shards, split)}
    return shards.fetch(tuple(entry for entry in shards.manifest.files if entry.path in names))


def _files_of(shards: Artifact, split: str) -> set[str]:
    files = Shards.read(shards.path(SHARDS_FILE)).files_of(split)
    return {name for file in files for name in (file.name, file.index_name)}
