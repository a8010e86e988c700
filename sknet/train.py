"""Train a recipe on images or shards, resuming from the newest valid checkpoint.

msrun --worker_num 2 --local_worker_num 2 --join=True sknet/train.py --config R --data_dir D
python -m sknet.train --config R --data_dir D --distribute False
"""

import argparse
import sys
from pathlib import Path

from infra.base.options import non_negative_float, positive_int
from sknet import outputs, program
from sknet.device import choose_device
from sknet.planning import (
    check_data,
    check_processors,
    check_ranks,
    check_samples,
    open_data,
    plan_run,
)
from sknet.training.stopping import StopRequest
from sknet.training.watchdog import FLOOR_SECONDS


def main(arguments: argparse.Namespace) -> None:
    """Train. The last line that rank 0 prints names the final checkpoint."""
    distribute = program.is_distributed(arguments.distribute, "sknet/train.py")
    warnings: list[str] = []  # they come after the device, which is the first line
    recipe = program.recipe_of(arguments, warnings.append)
    planned = arguments.planned_workers or program.num_ranks(distribute=distribute)
    check_ranks(recipe, planned)
    check_processors(recipe)
    device = choose_device(arguments.device_target, recipe)
    from sknet.data.data_directory import shards_at
    from sknet.training.trainer import Options, Trainer, starting_network
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
    run = plan_run(recipe, shards.record, planned, device.target)
    options = Options(
        directory=arguments.ckpt_save_dir,
        report=report,
        weights=weights,
        tensorboard=arguments.tensorboard,
        progress_file=arguments.progress_file,
        hang_floor=arguments.hang_floor,
    )
    Trainer(run, shards, world, StopRequest(distributed=distribute), options).train()


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options, which have MindCV's names where MindCV has them."""
    result = program.parser(__doc__.splitlines()[0])
    program.add_run_options(result)
    result.add_argument(
        "--ckpt_save_dir",
        type=Path,
        default=Path("ckpt"),
        help="directory for checkpoints and metrics.jsonl (default: ckpt)",
    )
    result.add_argument(
        "--planned_workers",
        type=positive_int,
        help="number of ranks from which the global batch and the learning rate follow "
        "(default: the actual number)",
    )
    result.add_argument("--progress_file", type=Path, help=argparse.SUPPRESS)
    result.add_argument(
        "--tensorboard", type=Path, help="directory for TensorBoard event files (default: none)"
    )
    result.add_argument(
        "--hang_floor",
        type=non_negative_float,
        default=FLOOR_SECONDS,
        help="seconds that any step may take before the training counts as hung; 0 turns this "
        f"off (default: {FLOOR_SECONDS:g})",
    )
    return result


if __name__ == "__main__":
    sys.exit(program.run(main, parser().parse_args()))
