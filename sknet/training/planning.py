"""What is about to be trained, and whether these ranks can do it."""

import os

import mindspore as ms

from sknet.errors import UserError
from sknet.recipe import Recipe
from sknet.records import Layout, Run, Shards


def plan_run(recipe: Recipe, shards: Shards, world_size: int, device_target: str) -> Run:
    """The run as planned for `world_size` ranks.

    Raises UserError where recipe, data, machine and world don't fit.
    """
    classes = shards.dataset.classes
    if recipe.num_classes not in (None, len(classes)):
        raise UserError(
            f"num_classes is {recipe.num_classes}, but the data set has {len(classes)} classes"
        )
    processors = os.cpu_count() or 1
    if recipe.num_parallel_workers > processors:
        raise UserError(
            f"num_parallel_workers is {recipe.num_parallel_workers}, but this machine has "
            f"{processors} processors: --set num_parallel_workers={processors}, which draws other "
            "augmentations"
        )
    global_batch = recipe.global_batch(world_size)
    num_samples = shards.num_samples("train")
    if num_samples < global_batch:
        raise UserError(
            f"the global batch is {global_batch}, but there are {num_samples} training samples: "
            "choose a smaller batch"
        )
    return Run(
        recipe=recipe.model_copy(update={"name": "recipe", "ckpt_path": ""}),
        classes=classes,
        shards_digest=shards.digest,
        world_size=world_size,
        global_batch_size=global_batch,
        steps_per_epoch=num_samples // global_batch,
        device_target=device_target,
        mindspore=ms.__version__,
    )


def refuse_indivisible(run: Run, world_size: int) -> None:
    """Raises UserError if `world_size` ranks can't share the run's global batch."""
    if not run.recipe.can_share(run.global_batch_size, world_size):
        passes = run.recipe.gradient_accumulation_steps
        accumulated = f" in {passes} passes" if passes > 1 else ""
        raise UserError(
            f"the global batch of {run.global_batch_size}{accumulated}, planned for "
            f"{run.world_size} workers, "
            f"can't be divided among {world_size}: choose a number of workers that divides it"
        )


def with_layout(layouts: tuple[Layout, ...], step: int, world_size: int) -> tuple[Layout, ...]:
    """The layouts of a training that goes on after `step` steps with `world_size` ranks."""
    used = tuple(layout for layout in layouts if layout.first_step < step)
    if used and used[-1].world_size == world_size:
        return used
    return (*used, Layout(first_step=step, world_size=world_size))
