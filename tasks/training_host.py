"""What each host of a training needs before its ranks start: recipe, checkpoint, shards.

Hosts that share the store's directory work in the build's one workspace there. With a store on S3
they share nothing but the store: each host has a workspace of its own, begins with the newest
checkpoint in the store, and reads shards from there; the host of rank 0 uploads the checkpoints.

With a store on S3, a training in the order by blocks begins with its first shards, and the others
follow on demand. In the full order it needs all of them before the first step, so they come into
the host's cache, where a retry and the next training find them. So does the split that an
evaluation reads.
"""

import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from infra.artifacts import Artifact, ArtifactSpec, open_store
from infra.base.on_demand import LimitError
from infra.launch import PreparedHost
from sknet.errors import UserError
from sknet.recipe import Recipe
from sknet.records import Shards
from sknet.records.data import SHARDS_FILE
from sknet.records.evaluation import SPLIT

CHECKPOINTS = "checkpoints"
"""Directory of a training's workspace for its checkpoints and metrics."""

RECIPE = "recipe.yaml"
"""File of a workspace with the resolved recipe, which a program gets as its `--config`."""

ATTEMPT = "attempt"
"""File of a shared workspace by which hosts tell whether they see the same one."""

Failure = Callable[[], Exception | None]
"""Returns why shards don't come any more; None if they do."""


@dataclass(frozen=True)
class TrainingHost:
    """Prepares a host that works in a directory of its own; see `infra.launch.Preparation`."""

    store_uri: str
    training: ArtifactSpec
    """The checkpoint that the training makes."""
    shards: tuple[str, str]
    """Kind and key of the shards."""
    recipe: Recipe
    is_temporary: bool
    """Whether the directory vanishes afterwards, with all that isn't in the store."""

    @contextmanager
    def __call__(self, directory: Path, host: int) -> Iterator[PreparedHost]:
        """Bring here what ranks need, and serve them.

        Raises:
            UserError: This host can't use the store, or a file of it is damaged.
            OSError: The store can't be reached, or the disk is full.
        """
        store = open_store(self.store_uri)
        shards = store.load(*self.shards)
        checkpoints = directory / CHECKPOINTS
        checkpoints.mkdir(exist_ok=True)
        store.download_parts(self.training, directory)
        uploading = (
            store.uploading_parts(
                self.training, directory, checkpoints, is_only_copy=self.is_temporary
            )
            if host == 0
            else nullcontext()
        )
        with uploading, shards_for(self.recipe, shards, directory) as (data_dir, failure):
            options = _options(self.recipe.write(directory / RECIPE), data_dir, checkpoints)
            yield PreparedHost(options=options, failure=failure)


@dataclass(frozen=True)
class SharedWorkspace:
    """Prepares a host that works in the workspace of all hosts; see `infra.launch.Preparation`."""

    workspace: Path
    shards: Path
    """The directory of the shards."""
    attempt: str
    """Content of the file ATTEMPT: of another workspace under the same path, it differs."""

    @contextmanager
    def __call__(self, directory: Path, host: int) -> Iterator[PreparedHost]:
        """Check that this host shares the workspace.

        Raises:
            UserError: It doesn't.
        """
        del directory, host
        try:
            seen = (self.workspace / ATTEMPT).read_text("ascii")
        except OSError:
            seen = ""
        if seen != self.attempt:
            raise UserError(
                f"{socket.gethostname()} does not see the store of the training, whose workspace "
                f"is {self.workspace}: all hosts must share the store's directory under the same "
                "path, or use a store on S3"
            )
        checkpoints = self.workspace / CHECKPOINTS
        recipe = self.workspace / RECIPE
        yield PreparedHost(options=_options(recipe, self.shards, checkpoints))


def _options(recipe: Path, data_dir: Path, checkpoints: Path) -> dict[str, object]:
    return {"config": recipe, "data_dir": data_dir, "ckpt_save_dir": checkpoints}


@contextmanager
def shards_for(recipe: Recipe, shards: Artifact, workspace: Path) -> Iterator[tuple[Path, Failure]]:
    """Yield the directory from which this host's ranks read shards, and what tells of failure.

    Args:
        recipe: The recipe.
        shards: The shards.
        workspace: The workspace of the training on this host.

    Raises:
        UserError: A file is damaged.
        OSError: The store can't be reached, or the disk is full.
    """
    if shards.supplier is None or recipe.shuffle == "full":
        yield shards.directory, lambda: None
        return
    directory = workspace / "shards"
    # The evaluation after the training finds its split in the cache.
    supplier = shards.supplier(directory, _files_of(shards, SPLIT))

    def failure() -> Exception | None:
        if isinstance(supplier.failure, LimitError):
            return UserError(f"{supplier.failure}, or choose a smaller shuffle_window")
        return supplier.failure

    with supplier:
        shutil.copyfile(shards.path(SHARDS_FILE), directory / SHARDS_FILE)
        yield directory, failure


def directory_of_split(shards: Artifact, split: str) -> Path:
    """Return a directory that has at least the record of the shards and the files of a split."""
    names = {SHARDS_FILE, *_files_of(shards, split)}
    return shards.fetch(tuple(entry for entry in shards.manifest.files if entry.path in names))


def _files_of(shards: Artifact, split: str) -> set[str]:
    record = Shards.read(shards.path(SHARDS_FILE))
    return {name for shard in record.files_of(split) for name, *_ in shard.files}
