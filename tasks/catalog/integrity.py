"""Whether artifacts are still what was recorded of them: their bytes, and what they compute.

What is damaged is replaced by an intact copy, if there is one.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from infra.artifacts import (
    Artifact,
    ArtifactStore,
    Manifest,
    StoreError,
    absolute_uri,
    open_store,
    replace_damaged,
)
from sknet.errors import UserError
from sknet.evaluation.predictions import read_predictions
from sknet.judgement import EvaluationPair
from sknet.recipe import Recipe
from sknet.records import CheckpointChecks, Evaluation, Repair
from sknet.records.evaluation import CHECKS_FILE, evaluation_file, predictions_file
from tasks.catalog.production import COMPARABLE_FORMATS, created_at, newest


@dataclass(frozen=True)
class Wanted:
    """An artifact as others refer to it."""

    kind: str
    digest: str
    key: str | None = None
    """None if it is unknown, because the manifest that has it can't be read."""

    def __str__(self) -> str:
        return f"{self.kind}/{self.key}" if self.key else f"{self.kind} with digest {self.digest}"


@dataclass(frozen=True)
class CopySource:
    """Where an intact copy may come from."""

    how: Literal["fetched", "rebuilt"]
    name: str
    copy: Callable[[Wanted], Artifact]
    """Returns the copy. Raises UserError or OSError if there is none."""


@dataclass(frozen=True)
class Examined:
    """What was wrong with an artifact, and whether it still is."""

    artifact: Artifact | None
    """The artifact, intact by now; None if it couldn't be repaired."""
    damages: tuple[str, ...] = ()
    """What is still wrong, and why it couldn't be repaired."""
    repairs: tuple[Repair, ...] = ()


def examine(store: ArtifactStore, wanted: Wanted, sources: Sequence[CopySource]) -> Examined:
    """Read every byte of an artifact and of this host's copies of it, and repair what is damaged.

    Args:
        store: The store that should hold it.
        wanted: The artifact.
        sources: Where copies may be, tried in this order if something is damaged.
    """
    damages = damages_of(store, wanted)
    repairs = []
    if wanted.key and not damages:
        artifact = store.load(wanted.kind, wanted.key)
    else:
        unrepaired = list(damages)
        for source in sources:
            try:
                artifact = replace_damaged(store, source.copy(wanted), digest=wanted.digest)
            except (UserError, OSError) as error:
                unrepaired.append(f"{wanted}: not from {source.name}: {error}")
                continue
            name = f"{artifact.manifest.kind}/{artifact.manifest.key}"
            repairs.append(Repair(artifact=name, how=source.how, damages=damages))
            break
        else:
            return Examined(None, tuple(unrepaired))
    if copies := artifact.check_copies():
        found = tuple(f"this host's copy of {wanted}: {damage}" for damage in copies)
        repairs.append(Repair(artifact=str(wanted), how="fetched", damages=found))
    return Examined(artifact, (), tuple(repairs))


def damages_of(store: ArtifactStore, wanted: Wanted) -> tuple[str, ...]:
    """Return all that is wrong with an artifact in its store.

    Raises:
        UnreadableArtifactError: This user can't read it, so that nobody knows.
    """
    if wanted.key is None:
        return (f"no {wanted} can be read in the store",)
    try:
        damages = store.verify(wanted.kind, wanted.key, level="full")
    except StoreError as error:
        return (f"{wanted}: {error}",)
    if any(damage.problem == "unreadable" for damage in damages):
        store.load(wanted.kind, wanted.key, level="full")  # raises the error that says so
    if damages:
        return tuple(f"{wanted}: {damage}" for damage in damages)
    found = store.load(wanted.kind, wanted.key).digest
    if found != wanted.digest:
        return (f"{wanted}: digest is {found}, expected {wanted.digest}",)
    return ()


def locate(store: ArtifactStore, kind: str, digest: str) -> Wanted:
    """Return an artifact by its digest. Its files may be damaged, if its manifest can be read."""
    keys = (manifest.key for manifest in store.list(kind) if manifest.digest == digest)
    return Wanted(kind, digest, next(keys, None))


def copy_in(store: ArtifactStore, wanted: Wanted) -> Artifact:
    """Return the artifact from another store.

    Raises:
        StoreError: It isn't there.
    """
    if wanted.key is None:
        return store.find(wanted.kind, wanted.digest)
    return store.load(wanted.kind, wanted.key)


def copy_sources(store_uri: str, replica: str | None) -> list[CopySource]:
    """Return where copies may be: this host's copies of a bucket, then a replica of the store."""
    stores = [("this host's copies", store_uri)] if store_uri.startswith("s3://") else []
    if replica:
        stores.append((f"replica {absolute_uri(replica)}", replica))
    return [CopySource("fetched", name, partial(_copy_at, uri)) for name, uri in stores]


def mark_used(uri: str, artifacts: Iterable[Manifest]) -> list[str]:
    """Mark artifacts, and copies of them, as used, so that garbage collection leaves them.

    Args:
        uri: The store, or a replica of it.
        artifacts: What is used.

    Returns:
        A line for each that isn't there, or one that says why the store can't be used.
    """
    try:
        store = open_store(uri, create=False)
        missing = [each for each in artifacts if not store.use(each.kind, each.key)]
    except (StoreError, OSError) as error:
        return [f"{uri} does not protect what is used: {error}"]
    return [f"{uri} has no copy of {each.kind}/{each.key}: push it" for each in missing]


def _copy_at(uri: str, wanted: Wanted) -> Artifact:
    return copy_in(open_store(uri, create=False), wanted)


def manifest_of(store: ArtifactStore, wanted: Wanted) -> Manifest | None:
    """Return an artifact's manifest; None if it can't be read."""
    found = (manifest for manifest in store.list(wanted.kind) if manifest.key == wanted.key)
    return next(found, None)


def granting_promotion(store: ArtifactStore, checkpoint: str) -> Manifest | None:
    """Return the newest promotion that was granted to the checkpoint with this digest, if any."""
    return newest(
        manifest
        for manifest in store.list("promotion")
        if manifest.params.get("checkpoint") == checkpoint and manifest.params.get("granted")
    )


def recorded_evaluation(store: ArtifactStore, checkpoint: str, shards: str) -> Wanted | None:
    """Return the evaluation with which a checkpoint was promoted.

    Args:
        store: The store of both.
        checkpoint: Digest of the promoted checkpoint.
        shards: Digest of the shards that it was trained on.

    Returns:
        The oldest evaluation of a checkpoint that was promoted by hand; None if there is none.
    """
    if promotion := granting_promotion(store, checkpoint):
        key = str(promotion.made_with("evaluation"))
        return Wanted("evaluation", promotion.made_from("candidate"), key)
    evaluations = [
        manifest
        for manifest in store.list("evaluation")
        if manifest.inputs == {"checkpoint": checkpoint, "shards": shards}
        and manifest.format_version in COMPARABLE_FORMATS
    ]
    if not evaluations:
        return None
    first = min(evaluations, key=created_at)
    return Wanted("evaluation", first.digest, first.key)


def read_pairs(recipe: Recipe, recorded: Artifact, found: Path) -> list[EvaluationPair]:
    """Return a recorded and a new evaluation at each resolution, the recipe's own first.

    Args:
        recipe: The checkpoint's recipe.
        recorded: The recorded evaluation.
        found: Directory of the new one.

    Raises:
        UserError: A check that the checkpoint had passed fails now, or a file can't be read.
    """
    checks = CheckpointChecks.read(found / CHECKS_FILE)
    failed = [f"{check.name}: {check.detail}" for check in checks.checks if not check.passed]
    if failed:
        raise UserError(f"checks fail that had passed: {'; '.join(failed)}")
    pairs = []
    for side in recipe.resolutions:
        counts, predictions = evaluation_file(recipe, side), predictions_file(recipe, side)
        pairs.append(
            EvaluationPair(
                recorded=Evaluation.read(recorded.path(counts)),
                found=Evaluation.read(found / counts),
                recorded_predictions=read_predictions(recorded.path(predictions)),
                found_predictions=read_predictions(found / predictions),
            )
        )
    return pairs
