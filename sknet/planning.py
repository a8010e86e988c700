"""What is refused before anything is read: a recipe, data, ranks and a machine that don't fit.

It needs no MindSpore, so that a flow checks everything where it runs.
"""

import math
from importlib.metadata import version
from itertools import islice
from pathlib import Path

from infra.base.files import is_file
from sknet.data.sources import Source, open_source
from sknet.data.sources.folders import ClassFolders, UnsplitFolders
from sknet.data.sources.kaggle import KaggleImagenet
from sknet.data.sources.source import Assignment
from sknet.data.sources.trees import Skipped, SourceFile
from sknet.errors import UserError
from sknet.recipe import Recipe
from sknet.records import Dataset, Run, Shards
from sknet.records.data import SHARDS_FILE
from sknet.records.training import image_libraries

LEAST_IMAGES = 2
"""Images of a forward pass: the attention of an SK unit normalises its means over pixels by
BatchNorm, which makes zeros of a single value."""

FILES_OF_ONE_IMAGE = (ClassFolders, UnsplitFolders, KaggleImagenet)
"""Sources each of whose files is an image, so that their samples can be counted unread."""


def check_ranks(recipe: Recipe, world_size: int) -> None:
    """Check that so many ranks can train a recipe.

    Raises:
        UserError: They can't divide its global batch, get one image at a time, or an odd number
            where two are mixed; or the batch can't be divided among the parts of its order.
    """
    global_batch = recipe.global_batch(world_size)
    refuse_single_images(recipe, global_batch, world_size)
    refuse_odd_mixing(recipe, global_batch, world_size)
    refuse_undivided_parts(recipe, global_batch)


def refuse_single_images(recipe: Recipe, global_batch: int, world_size: int) -> None:
    """Check that each forward pass of a rank has `LEAST_IMAGES`.

    Raises:
        UserError: It has one image.
    """
    if global_batch < LEAST_IMAGES * world_size * recipe.gradient_accumulation_steps:
        raise UserError(
            f"each of {world_size} workers gets one image in a forward pass (the global batch is "
            f"{global_batch}), which BatchNorm can't normalise: choose a larger batch_size or "
            "global_batch_size, fewer workers or a smaller gradient_accumulation_steps"
        )


def refuse_odd_mixing(recipe: Recipe, global_batch: int, world_size: int) -> None:
    """Check that each rank has both of any two samples that are mixed.

    Raises:
        UserError: The recipe mixes images, and a rank's part of the global batch is odd.
    """
    if recipe.mixes and global_batch // world_size % 2:
        raise UserError(
            f"each of {world_size} workers gets {global_batch // world_size} images of a step, but "
            "mixup and cutmix mix two at a time: choose an even batch for each worker"
        )


def refuse_undivided_parts(recipe: Recipe, global_batch: int) -> None:
    """Check that each step can take equally many samples of every part of the order by blocks.

    Raises:
        UserError: The parts don't divide the global batch.
    """
    if recipe.shuffle == "blocks" and global_batch % recipe.shuffle_parts:
        raise UserError(
            f"the global batch is {global_batch}, which shuffle_parts {recipe.shuffle_parts} don't "
            "divide: choose shuffle_parts that do"
        )


def check_classes(recipe: Recipe, num_classes: int) -> None:
    """Check that a recipe is for a data set of so many classes.

    Raises:
        UserError: It is for another number.
    """
    if recipe.num_classes not in (None, num_classes):
        raise UserError(
            f"num_classes is {recipe.num_classes}, but the data set has {num_classes} classes"
        )
    recipe.check_class_weights(num_classes)


def check_model(recipe: Recipe, run: Run, checkpoint: Path) -> None:
    """Check that a recipe is for the network of a training.

    Raises:
        UserError: It is for another one.
    """
    if recipe.model != run.recipe.model:
        raise UserError(
            f"the recipe's model is {recipe.model}, but {checkpoint} is of a {run.recipe.model}: "
            "leave --config out, or give its own recipe"
        )


def check_samples(recipe: Recipe, world_size: int, num_samples: int) -> None:
    """Check that training samples, or files that may be some, fill a global batch.

    Raises:
        UserError: There are too few.
    """
    global_batch = recipe.global_batch(world_size)
    if num_samples >= global_batch:
        return
    passes = world_size * recipe.gradient_accumulation_steps
    unit = math.lcm(
        passes,
        2 * world_size if recipe.mixes else 1,
        recipe.shuffle_parts if recipe.shuffle == "blocks" else 1,
    )
    fitting = num_samples // unit * unit
    if fitting < LEAST_IMAGES * passes:
        least = -(-LEAST_IMAGES * passes // unit) * unit
        raise UserError(
            f"there are {num_samples} training samples for {world_size} workers, expected "
            f"{least} or more: add images, or choose fewer workers"
        )
    smaller = (
        f"batch_size={fitting // passes}" if recipe.batch_size else f"global_batch_size={fitting}"
    )
    raise UserError(
        f"the global batch is {global_batch}, but there are {num_samples} training samples: "
        f"choose a smaller batch, such as --set {smaller}"
    )


def check_data(recipe: Recipe, world_size: int, data: str) -> None:
    """Check what can be known of shards, or of a source of images, before they are read.

    Args:
        recipe: The recipe.
        world_size: Number of ranks.
        data: The directory or the source, as users write it.

    Raises:
        UserError: It is missing, has none of the known forms, or doesn't fit the recipe.
    """
    given = open_data(data)
    if not isinstance(given, Dataset):
        check_source(recipe, world_size, given)
        return
    check_classes(recipe, len(given.classes))
    check_samples(recipe, world_size, given.splits["train"])


def check_source(recipe: Recipe, world_size: int, source: Source) -> None:
    """Check what a listing shows of a source. What archives hold is checked once they are read.

    Raises:
        UserError: The source lacks files, or doesn't fit the recipe.
    """
    check_classes(recipe, len(source.classes))
    if not isinstance(source, FILES_OF_ONE_IMAGE):
        next(source.files(), None)  # raises if archives are missing
        return
    candidates = (file for file in source.files() if _may_be_trained_on(file, source))
    enough = recipe.global_batch(world_size)
    check_samples(recipe, world_size, sum(1 for _ in islice(candidates, enough)))


def open_data(data: str) -> Dataset | Source:
    """Return the record of the shards in a directory, or else the source of images.

    Raises:
        UserError: There are no shards, and the source is missing or has none of the known forms.
    """
    record = Path(data) / SHARDS_FILE
    return Shards.read(record).dataset if is_file(record) else open_source(data)


def _may_be_trained_on(file: SourceFile | Skipped, source: Source) -> bool:
    if isinstance(file, Skipped):
        return False
    assigned = source.assign(file.path, "")
    return isinstance(assigned, Assignment) and assigned.split == "train"


def plan_run(recipe: Recipe, shards: Shards, world_size: int, device_target: str) -> Run:
    """Return the run of a recipe on a data set, planned for `world_size` ranks.

    Raises:
        UserError: Recipe, data, machine and number of ranks don't fit.
    """
    check_ranks(recipe, world_size)
    classes, num_samples = shards.dataset.classes, shards.num_samples("train")
    check_classes(recipe, len(classes))
    check_samples(recipe, world_size, num_samples)
    global_batch = recipe.global_batch(world_size)
    return Run(
        recipe=recipe.of_training(),
        classes=classes,
        shards_digest=shards.content_digest,
        world_size=world_size,
        global_batch_size=global_batch,
        steps_per_epoch=num_samples // global_batch,
        device_target=device_target,
        mindspore=version("mindspore"),
        image_libraries=image_libraries(recipe),
    )
