"""The specs of what a run makes: from them, the keys are known before anything is built.

The tasks and `flows.dry_run` share them. The spec of an evaluation is in `production`, which also
evaluates.
"""

from importlib.metadata import version
from typing import Any, Literal

from infra.artifacts import ArtifactSpec, ArtifactStore
from sknet.data.shards import SHARDS_FORMAT
from sknet.recipe import Recipe
from sknet.records import Dataset, Reencoding
from sknet.records.training import image_libraries

CHECKPOINT_FORMAT = 5
"""Format 2: other names of parameters, and a loss that rounds differently; 3: format 2 of
`Checkpoint`; 4: more fields in its evaluations; 5: augmentations follow from the position of a
sample in the epoch, no longer from the numbers of ranks and threads."""


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
    choices = recipe.of_training().choices()
    spec = _checkpoint_spec(CHECKPOINT_FORMAT, choices, shards, num_workers, device_target)
    params = spec.params | {"image_libraries": image_libraries(recipe)}
    return spec.model_copy(update={"params": params})


def earlier_checkpoint_spec(
    recipe: Recipe, shards: str, num_workers: int, device_target: str
) -> ArtifactSpec:
    """Return the spec that the same training had before images were augmented by their position.

    What an earlier version has begun under it can't go on; see `checkpoint_spec`.
    """
    choices = recipe.of_training().choices()
    choices["num_parallel_workers"] = recipe.num_parallel_workers
    return _checkpoint_spec(4, choices, shards, num_workers, device_target)


def about_earlier(store: ArtifactStore | None, earlier: ArtifactSpec) -> str | None:
    """Return what to say of a training that an earlier version has done or begun, if it has.

    Args:
        store: The artifact store; None: it doesn't exist yet.
        earlier: The spec that the training had for the earlier version.
    """
    if store is None:
        return None
    if (earlier.kind, earlier.key) in store.addresses(earlier.kind):
        done = f"done this training ({earlier.kind}/{earlier.key[:12]})"
    elif store.is_begun(earlier):
        done = "begun this training"
    else:
        return None
    return (
        f"an earlier version has {done}, but it augmented images otherwise, so that it can't go on "
        "or be reused here: training from the first step"
    )


def _checkpoint_spec(
    format_version: int, choices: dict[str, Any], shards: str, num_workers: int, device_target: str
) -> ArtifactSpec:
    return ArtifactSpec(
        kind="checkpoint",
        format_version=format_version,
        params={
            "recipe": choices,
            "world_size": num_workers,
            "device_target": device_target,
            "mindspore": version("mindspore"),
        },
        inputs={"shards": shards},
    )
