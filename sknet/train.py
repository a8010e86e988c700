"""Train a recipe on images or shards; resumes from the newest valid checkpoint by itself.

msrun --worker_num 2 --local_worker_num 2 --join=True sknet/train.py --config R --data_dir D
python -m sknet.train --config R --data_dir D --distribute False
"""

import argparse
import sys
from pathlib import Path

from sknet import program
from sknet.training.stopping import StopRequest
from sknet.training.watchdog import FLOOR_SECONDS


def main(arguments: argparse.Namespace) -> None:
    """Train; the last line of rank 0 names the final checkpoint."""
    distribute = program.is_distributed(arguments.distribute, "sknet/train.py")
    stop = StopRequest()
    with stop.listening(distributed=distribute):
        _train(arguments, stop, distribute=distribute)


def _train(arguments: argparse.Namespace, stop: StopRequest, *, distribute: bool) -> None:
    recipe = program.recipe_of(arguments)
    from sknet.data.conversion.conversion import shards_at
    from sknet.training.trainer import Options, Trainer, plan_run
    from sknet.world import join_world, set_device

    set_device(arguments.device_target, recipe.mode)
    world = join_world(distribute=distribute)

    def say(line: str) -> None:
        if world.rank == 0:
            # In one piece: the thread that saves speaks too.
            print(f"{line}\n", end="", flush=True)

    program.make_directory(arguments.ckpt_save_dir, "--ckpt_save_dir")
    if arguments.tensorboard:
        program.make_directory(arguments.tensorboard, "--tensorboard")
    shards = shards_at(
        arguments.data_dir,
        arguments.shards_dir,
        rank=world.rank,
        num_workers=recipe.num_parallel_workers,
    )
    workers = arguments.planned_workers or world.size
    run = plan_run(recipe, shards.record, workers, arguments.device_target)
    options = Options(
        tensorboard=arguments.tensorboard,
        hang_floor=arguments.hang_floor,
        progress_file=arguments.progress_file,
    )
    weights = Path(recipe.ckpt_path) if recipe.ckpt_path else None
    directory = arguments.ckpt_save_dir
    Trainer(run, shards, directory, world, say, stop, options, weights=weights).train()


def parser() -> argparse.ArgumentParser:
    """The options; names as in MindCV where it has the option."""
    result = program.parser(__doc__.splitlines()[0])
    program.add_recipe(result)
    result.add_argument("--data_dir", required=True, help="folders of images, shards, or 'digits'")
    result.add_argument("--ckpt_save_dir", type=Path, default=Path("ckpt"))
    result.add_argument("--shards_dir", type=Path, default=Path("shards"), help="cache of shards")
    result.add_argument("--distribute", type=program.boolean, help="default: True under msrun")
    result.add_argument("--device_target", default="CPU", help="CPU or Ascend")
    result.add_argument(
        "--planned_workers",
        type=_positive,
        help="for how many the global batch and the learning rate are meant; default: those there",
    )
    result.add_argument("--progress_file", type=Path, help=argparse.SUPPRESS)
    result.add_argument("--tensorboard", type=Path, help="directory for event files")
    result.add_argument(
        "--hang_floor",
        type=_seconds,
        default=FLOOR_SECONDS,
        help="seconds that any step may take before the job counts as hung; 0: any time",
    )
    return result


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0")
    return value


if __name__ == "__main__":
    sys.exit(program.run(main, parser().parse_args()))
