"""The specs of what a run makes: from them, the keys are known before anything is built.

The tasks and `flows.dry_run` share them. The spec of an evaluation is in `production`, which also
evaluates.
"""

from importlib.metadata import version
from typing import Any, Literal

from infra.artifacts import ArtifactSpec, ArtifactStore, StoreError
from sknet.data.shards import SHARDS_FORMAT
from sknet.recipe import Recipe
from sknet.records import Dataset, Reencoding

CHECKPOINT_FORMAT = 4
"""Format 2: other names of parameters, and a loss that rounds differently; 3: format 2 of
`Checkpoint`; 4: more fields in its evaluations."""


def dataset_spec(dataset: Dataset) -> ArtifactSpec:
    """Return the spec of a staged data set."""
    return ArtifactSpec(
        kind="dataset",
        format_version=2,
        params={"dataset": dataset.content_digest},
        inputs={},
    )


def shards_spec(
    dataset: str, num_shards: int | Literal["auto"], reencoding: Reencoding | None
) -> ArtifactSpec:
    """Return the spec of a data set's shards.

    Args:
        dataset: Digest of the data set.
        num_shards: Number of shards of each split, or auto.
        reencoding: How images are re-encoded; None: their original bytes.
    """
    return ArtifactSpec(
        kind="shards",
        format_version=SHARDS_FORMAT,
        params={
            "num_shards": num_shards,
            "reencoding": reencoding.model_dump() if reencoding else None,
            "mindspore": version("mindspore"),
        },
        inputs={"dataset": dataset},
    )


def checkpoint_spec(
    recipe: Recipe, shards: str, num_workers: int, device_target: str
) -> ArtifactSpec:
    """Return the spec of the final checkpoint of a training.

    Args:
        recipe: The recipe of the training.
        shards: Digest of the shards.
        num_workers: Number of ranks on all hosts.
        device_target: CPU or Ascend.
    """
    return _checkpoint_spec(recipe.of_training().choices(), shards, num_workers, device_target)


def stored_checkpoint_spec(
    store: ArtifactStore | None,
    recipe: Recipe,
    shards: str,
    num_workers: int,
    device_target: str,
) -> ArtifactSpec:
    """Return the spec under which a training is stored, or will be.

    Earlier versions had `sknet.recipe.recipe.BESIDES_TRAINING` in the key, too. What they trained
    is found under that key, and not trained again. Nothing in the store is changed.

    Args:
        store: The artifact store; None: it doesn't exist yet.
        recipe: The recipe of the training.
        shards: Digest of the shards.
        num_workers: Number of ranks on all hosts.
        device_target: CPU or Ascend.
    """
    spec = checkpoint_spec(recipe, shards, num_workers, device_target)
    earlier = _checkpoint_spec(recipe.choices(), shards, num_workers, device_target)
    if store is None or earlier == spec:
        return spec
    try:
        store.load(earlier.kind, earlier.key)
    except StoreError:
        return spec
    return earlier


def _checkpoint_spec(
    choices: dict[str, Any], shards: str, num_workers: int, device_target: str
) -> ArtifactSpec:
    return ArtifactSpec(
        kind="checkpoint",
        format_version=CHECKPOINT_FORMAT,
        params={
            "recipe": choices,
            "world_size": num_workers,
            "device_target": device_target,
            "mindspore": version("mindspore"),
        },
        inputs={"shards": shards},
    )
