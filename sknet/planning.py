"""What is refused before anything is read: a recipe, data, ranks and a machine that don't fit.

It needs no MindSpore, so that a flow checks everything where it runs.
"""

import os
from importlib.metadata import version

from sknet.errors import UserError
from sknet.recipe import Recipe
from sknet.records import Run, Shards


def check_ranks(recipe: Recipe, world_size: int) -> None:
    """Check that so many ranks can train a recipe.

    Raises:
        UserError: They can't divide its global batch, or get one image at a time.
    """
    refuse_single_images(recipe, recipe.global_batch(world_size), world_size)


def refuse_single_images(recipe: Recipe, global_batch: int, world_size: int) -> None:
    """Check that each forward pass of a rank has several images.

    The attention of an SK unit normalises its means over pixels by BatchNorm, which makes zeros of
    a single value.

    Raises:
        UserError: It has one image.
    """
    if global_batch == world_size * recipe.gradient_accumulation_steps:
        raise UserError(
            f"each of {world_size} workers gets one image in a forward pass (the global batch is "
            f"{global_batch}), which BatchNorm can't normalise: choose a larger batch_size or "
            "global_batch_size, fewer workers or a smaller gradient_accumulation_steps"
        )


def check_processors(recipe: Recipe) -> None:
    """Check that this machine can run a recipe's decoding threads.

    Raises:
        UserError: It has fewer processors. MindSpore accepts no more threads than that, and with
            fewer of them other augmentations are drawn.
    """
    processors = os.cpu_count() or 1
    if recipe.num_parallel_workers > processors:
        raise UserError(
            f"num_parallel_workers is {recipe.num_parallel_workers}, but this machine has "
            f"{processors} processors: --set num_parallel_workers={processors}, which draws other "
            "augmentations"
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


def check_samples(recipe: Recipe, world_size: int, num_samples: int) -> None:
    """Check that training samples, or files that may be some, fill a global batch.

    Raises:
        UserError: There are too few.
    """
    global_batch = recipe.global_batch(world_size)
    if num_samples < global_batch:
        raise UserError(
            f"the global batch is {global_batch}, but there are {num_samples} training samples: "
            "choose a smaller batch"
        )


def plan_run(recipe: Recipe, shards: Shards, world_size: int, device_target: str) -> Run:
    """Return the run of a recipe on a data set, planned for `world_size` ranks.

    Raises:
        UserError: Recipe, data, machine and number of ranks don't fit.
    """
    check_ranks(recipe, world_size)
    check_processors(recipe)
    classes, num_samples = shards.dataset.classes, shards.num_samples("train")
    check_classes(recipe, len(classes))
    check_samples(recipe, world_size, num_samples)
    global_batch = recipe.global_batch(world_size)
    return Run(
        # Neither the name of a recipe nor the path of its weights changes the result. Its device is
        # only a preference; the run records the device in use.
        recipe=recipe.model_copy(
            update={"name": "recipe", "ckpt_path": "", "device_target": "auto"}
        ),
        classes=classes,
        shards_digest=shards.content_digest,
        world_size=world_size,
        global_batch_size=global_batch,
        steps_per_epoch=num_samples // global_batch,
        device_target=device_target,
        mindspore=version("mindspore"),
    )
