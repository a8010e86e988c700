"""What a run of train-sknet would do: the recipe, what it would reuse and build, and the sizes.

Nothing is changed, neither in the store nor in the source. A key follows from what the artifact is
made from, so it is known as far as that is in the store.
"""

import logging
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from tabulate import tabulate

from flows.command import show_warning
from infra.artifacts import (
    Artifact,
    ArtifactSpec,
    ArtifactStore,
    Outlook,
    digest_of,
    foresee,
    open_store,
)
from infra.artifacts.opening import local_path
from infra.base.shortages import size_text
from sknet.data.conversion.conversion import refuse_quarantine_above
from sknet.data.conversion.plan import shard_counts
from sknet.data.copies.leaks import OnLeak
from sknet.data.scan_cache import ScanCache
from sknet.data.sources import Source
from sknet.data.sources.trees import SourceFile
from sknet.data.staging import Staged, stage_source
from sknet.device import Device
from sknet.recipe import Recipe
from sknet.recipe.keys import resolved
from sknet.records import Shards
from sknet.records.data import SHARDS_FILE
from sknet.sizes import checkpoint_bytes
from tasks.catalog.production import PRODUCTION, evaluation_spec
from tasks.catalog.specs import (
    about_earlier,
    checkpoint_spec,
    dataset_spec,
    earlier_checkpoint_spec,
    shards_spec,
)
from tasks.convert import ConversionSettings
from tasks.programs import device_here

READ_AT_MOST = 32 << 20
"""Bytes of images that a dry run reads to find out the keys, if nobody has read them yet."""

FILE_BYTES = 1_081_456
"""Bytes of a MindRecord file without images and of its index; measured with MindSpore 2.10."""

DOES: dict[Outlook, str] = {
    "reused": "reuse",
    "built": "build",
    "rebuilt": "build again, as the stored one is damaged",
    "resumed": "resume an interrupted build",
    "awaited": "wait for another process, which builds it",
}


UNKNOWN = "build or reuse"
"""What is done where a key isn't known."""


@dataclass(frozen=True)
class Line:
    """What a run would do with one artifact."""

    task: str
    does: str
    artifact: str
    """Kind and key; or when the key will be known."""
    size: str = ""
    """How large it is, or about how large it will be."""


class Asked(Protocol):
    """The options of a run on which its plan depends."""

    @property
    def workers(self) -> int:
        """Number of ranks on all hosts."""

    @property
    def on_leak(self) -> OnLeak:
        """What happens if an image is in several splits."""

    @property
    def full(self) -> bool:
        """Whether files are read again that haven't changed."""


@dataclass(frozen=True)
class Choices:
    """What a run is asked to do."""

    recipe: Recipe
    source: Source
    store: str
    device: Device | None
    """None: the hosts of a cluster decide, which aren't asked."""
    asked: Asked
    conversion: ConversionSettings


def print_plan(choices: Choices) -> None:
    """Print the recipe as it is resolved, what would be done, and the room on the disk.

    Raises:
        UserError: The store can't be read, or the images, as far as they are read, are refused.
    """
    root = None if choices.store.startswith("s3://") else local_path(choices.store)
    is_there = root is None or root.exists()
    store = open_store(choices.store, create=False) if is_there else None
    lines = [vars(line) for line in plan(choices, store)]
    print(f"# recipe {choices.recipe.name}, every key", *resolved(choices.recipe), sep="\n")
    if choices.device:
        print(f"\n# {choices.device}", end="")
    print(f"\n# store {choices.store}{'' if is_there else ', which would be made'}")
    print(tabulate(lines, headers="keys", disable_numparse=True))
    if root:
        present = next(each for each in (root, *root.parents) if each.exists())
        print(f"\n{size_text(shutil.disk_usage(present).free)} are free on the disk of the store")


def plan(choices: Choices, store: ArtifactStore | None) -> Iterator[Line]:
    """Yield what each task would do, as far as it can be known.

    Args:
        choices: What the run is asked to do.
        store: The store; None if it is yet to be made.

    Raises:
        UserError: The images, as far as they are read, are refused.
    """
    staged, line = _stage(choices, store)
    yield line
    shards, line = _convert(choices, store, staged)
    yield line
    checkpoint, line = _train(choices, store, staged, shards)
    yield line
    yield _validate(choices, store, checkpoint, shards, training=line.does)
    yield Line("promote", "judge", _opponent(store, checkpoint))
    yield Line("report", "write", "over all runs of the store")


@dataclass(frozen=True)
class _Images:
    """A data set as it would be staged."""

    staged: Staged
    digest: str
    """That of its artifact."""


def _stage(choices: Choices, store: ArtifactStore | None) -> tuple[_Images | None, Line]:
    source = choices.source
    cache = ScanCache(source)
    files = [file for file in source.files() if isinstance(file, SourceFile)]
    unread = [file for file in files if choices.asked.full or cache.get(file) is None]
    files_text = "1 file" if len(unread) == 1 else f"{len(unread):,} files"
    amount = f"{files_text}, {size_text(sum(file.size for file in unread))}"
    if sum(file.size for file in unread) > READ_AT_MOST:
        return None, Line("stage", f"read {amount}", "dataset, its key is known then")
    staged = stage_source(
        source,
        cache,
        max_quarantine=choices.conversion.max_quarantine,
        on_leak=choices.asked.on_leak,
        report=_report,
    )
    spec = dataset_spec(staged.dataset)
    outlook, dataset = foresee(store, spec)
    splits = ", ".join(f"{count:,} {split}" for split, count in staged.dataset.splits.items())
    line = _line("stage", outlook, spec, f"{size_text(_image_bytes(staged))} of images: {splits}")
    if choices.asked.full:
        line = replace(line, does=f"read {amount}, {line.does}")
    return _Images(staged, dataset.digest if dataset else _digest(staged)), line


def _convert(
    choices: Choices, store: ArtifactStore | None, images: _Images | None
) -> tuple[Artifact | None, Line]:
    if images is None:
        return None, Line("convert", UNKNOWN, "shards, their key is known after stage")
    settings = choices.conversion
    spec = shards_spec(images.digest, settings.shards, settings.reencoding)
    outlook, shards = foresee(store, spec)
    if shards:
        refuse_quarantine_above(settings.max_quarantine, Shards.read(shards.path(SHARDS_FILE)))
        return shards, _line("convert", outlook, spec, size_text(shards.manifest.num_bytes))
    wanted = None if settings.shards == "auto" else settings.shards
    num_files = sum(shard_counts(images.staged, wanted).values())
    size = size_text(_image_bytes(images.staged) + num_files * FILE_BYTES)
    about = "at most" if settings.reencoding else "about"
    return None, _line("convert", outlook, spec, f"{about} {size} in {num_files} files")


def _train(
    choices: Choices,
    store: ArtifactStore | None,
    images: _Images | None,
    shards: Artifact | None,
) -> tuple[Artifact | None, Line]:
    recipe, source = choices.recipe, choices.source
    expected = checkpoint_bytes(recipe, len(source.classes))
    size = f"about {size_text(expected)}" if expected else ""
    if images is None:
        return None, Line("train", UNKNOWN, "checkpoint, its key is known after convert", size)
    if shards is None:
        steps = _steps(choices, images.staged.dataset.splits["train"])
        when = "once the shards are built"
        return None, Line(
            "train", "build", f"checkpoint, its key is known {when}", _joined(steps, size)
        )
    steps = _steps(choices, Shards.read(shards.path(SHARDS_FILE)).num_samples("train"))
    if choices.device is None:
        when = "once the cluster says on which device"
        return None, Line(
            "train", UNKNOWN, f"checkpoint, its key is known {when}", _joined(steps, size)
        )
    spec = checkpoint_spec(recipe, shards.digest, choices.asked.workers, choices.device.target)
    outlook, checkpoint = foresee(store, spec)
    earlier = earlier_checkpoint_spec(
        recipe, shards.digest, choices.asked.workers, choices.device.target
    )
    if outlook == "built" and (line := about_earlier(store, earlier)):
        show_warning(line)
    if checkpoint:
        size = size_text(checkpoint.manifest.num_bytes)
    return checkpoint, _line("train", outlook, spec, _joined(steps, size))


def _validate(
    choices: Choices,
    store: ArtifactStore | None,
    checkpoint: Artifact | None,
    shards: Artifact | None,
    *,
    training: str,
) -> Line:
    if checkpoint is None or shards is None or choices.device is None:
        does = UNKNOWN if training == UNKNOWN else "build"
        return Line("validate", does, "evaluation, its key is known after train")
    device_target = device_here(choices.device.target, show_warning)
    spec = evaluation_spec(checkpoint.digest, shards.digest, device_target)
    outlook, evaluation = foresee(store, spec)
    size = size_text(evaluation.manifest.num_bytes) if evaluation else ""
    return _line("validate", outlook, spec, size)


def _opponent(store: ArtifactStore | None, checkpoint: Artifact | None) -> str:
    """Return what a checkpoint would be judged against."""
    current = store.refs.get(PRODUCTION) if store else None
    if current is None:
        return "by its floors alone, as nothing is promoted yet"
    if checkpoint and current.digest == checkpoint.digest:
        return "not again: it is in production"
    return f"against {current.kind}/{current.key}"


def _line(task: str, outlook: Outlook, spec: ArtifactSpec, size: str) -> Line:
    return Line(task, DOES[outlook], f"{spec.kind}/{spec.key}", size)


def _digest(staged: Staged) -> str:
    """Return the digest of a data set that isn't in the store."""
    with tempfile.TemporaryDirectory() as scratch:
        staged.write(Path(scratch))
        return digest_of(Path(scratch))


def _image_bytes(staged: Staged) -> int:
    return int(staged.index["size"].sum())


def _steps(choices: Choices, num_samples: int) -> str:
    """Return how long a training is, in words."""
    recipe = choices.recipe
    batch = recipe.global_batch(choices.asked.workers)
    return f"{recipe.epoch_size} epochs of {num_samples // batch:,} steps of {batch:,} images"


def _joined(*parts: str) -> str:
    return ", ".join(filter(None, parts))


def _report(level: int, line: str) -> None:
    if level >= logging.WARNING:
        show_warning(line)
