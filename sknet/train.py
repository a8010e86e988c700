"""Train a recipe on images or shards, resuming from the newest valid checkpoint.

msrun --worker_num 2 --local_worker_num 2 --join=True sknet/train.py --config R --data_dir D
python -m sknet.train --config R --data_dir D --distribute False
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from infra.base.commands import OPTIONS, app_of, parsed_by, start
from infra.base.console import console
from infra.base.options import non_negative_float, positive_int
from infra.base.progress import Progress
from sknet import outputs, program
from sknet.device import choose_device
from sknet.options import DataOptions
from sknet.planning import (
    check_data,
    check_ranks,
    check_samples,
    open_data,
    plan_run,
)
from sknet.recipe import load_recipe
from sknet.records.evaluation import SPLIT
from sknet.training.stopping import StopRequest
from sknet.training.watchdog import FLOOR_SECONDS


def main(arguments: "Options") -> None:
    """Train. The last line that rank 0 prints names the final checkpoint."""
    distribute = program.is_distributed(arguments.distribute, "sknet/train.py")
    warnings: list[str] = []  # they come after the device, which is the first line
    recipe = load_recipe(arguments.config, arguments.set, warn=warnings.append)
    planned = arguments.planned_workers or program.num_ranks(distribute=distribute)
    check_ranks(recipe, planned)
    device = choose_device(arguments.device_target, recipe)
    console().show(Progress(phase="loading MindSpore"))
    from sknet.data.data_directory import shards_at
    from sknet.training.trainer import Options as TrainerOptions
    from sknet.training.trainer import Trainer, starting_network
    from sknet.world import join_world, set_device

    set_device(device.target, recipe.mode, recipe.jit_level)
    world = join_world(distribute=distribute)

    def report(line: str) -> None:
        if world.rank == 0:
            # One write for the whole line, because the thread that saves prints lines too.
            print(f"{line}\n", end="", flush=True)

    for line in (str(device), *warnings):
        report(line)
    check_data(recipe, planned, arguments.data_dir)
    weights = Path(recipe.ckpt_path) if recipe.ckpt_path else None
    if weights:  # refused if they don't fit, before images are converted
        starting_network(recipe, len(open_data(arguments.data_dir).classes), weights)
    outputs.make_directory(arguments.ckpt_save_dir, "--ckpt_save_dir")
    if arguments.tensorboard:
        outputs.make_directory(arguments.tensorboard, "--tensorboard")
    shards = shards_at(
        arguments.data_dir,
        arguments.shards_dir,
        rank=world.rank,
        num_workers=recipe.num_parallel_workers,
        max_quarantine=arguments.max_quarantine,
        on_leak=arguments.on_leak,
        check=lambda dataset: check_samples(recipe, planned, dataset.splits["train"]),
        report=report,
    )
    shards.keep(SPLIT)
    run = plan_run(recipe, shards.record, planned, device.target)
    options = TrainerOptions(
        directory=arguments.ckpt_save_dir,
        report=report,
        log_interval=recipe.log_interval,
        keep_checkpoint_max=recipe.keep_checkpoint_max,
        num_workers=recipe.num_parallel_workers,
        weights=weights,
        tensorboard=arguments.tensorboard,
        hang_floor=arguments.hang_floor,
    )
    Trainer(run, shards, world, StopRequest(distributed=distribute), options).train()


@dataclass(frozen=True, kw_only=True)
class Options(DataOptions):
    """The options, which have MindCV's names where MindCV has them."""

    config: Annotated[str, Parameter(alias="-c")]
    """Recipe: its name, or the path of a YAML file; `sknet recipes` lists the names."""
    ckpt_save_dir: Path = Path("ckpt")
    """Directory for checkpoints and metrics.jsonl."""
    planned_workers: Annotated[
        int | None, parsed_by(positive_int), Parameter(show_default="the actual number")
    ] = None
    """Number of ranks from which the global batch and the learning rate follow."""
    tensorboard: Path | None = None
    """Directory for TensorBoard event files."""
    hang_floor: Annotated[float, parsed_by(non_negative_float)] = FLOOR_SECONDS
    """Seconds that any step may take before the training counts as hung; 0 turns this off."""


def command(options: Annotated[Options, OPTIONS]) -> int:
    """Train a recipe on images or shards, resuming from the newest valid checkpoint.

    Example: `sknet train --config skresnet18_digits --data-dir digits`
    """
    return program.run(main, options)


if __name__ == "__main__":
    sys.exit(start(app_of(command, "python -m sknet.train")))
