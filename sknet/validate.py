"""Evaluate a checkpoint on the validation split: predictions of each sample, counted on the host.

python -m sknet.validate -c RECIPE.yaml --data_dir DIR --ckpt_path FILE [--json OUT] [--out DIR]
msrun --worker_num 2 --local_worker_num 2 --join=True sknet/validate.py -c RECIPE.yaml …
"""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sknet import program
from sknet.errors import CheckpointError, UserError
from sknet.recipe import Recipe
from sknet.records import CheckpointChecks, Evaluation, Shards

if TYPE_CHECKING:
    from sknet.data.shards import ShardSet
    from sknet.evaluation.predictions import Predictions
    from sknet.models.sknet import SKNet
    from sknet.world import World

BATCH_SIZE = 16
"""Of a rank. The largest map of skresnet18 at 320 pixels takes 100 MB then."""
SPLIT = "val"


def main(arguments: argparse.Namespace) -> None:
    """Evaluate; rank 0 prints a line for each resolution and writes what was asked for."""
    distribute = program.is_distributed(arguments.distribute, "sknet/validate.py")
    recipe = program.recipe_of(arguments)
    file = weights_of(arguments.ckpt_path)
    make_places(arguments)
    from sknet.data.conversion.conversion import shards_at
    from sknet.models import create_model, fold
    from sknet.models.weights import load_weights
    from sknet.world import join_world, set_device

    set_device(arguments.device_target)
    world = join_world(distribute=distribute)
    shards = shards_at(
        arguments.data_dir,
        arguments.shards_dir,
        rank=world.rank,
        num_workers=os.cpu_count() or 1,
    )
    network = create_model(recipe.model, num_classes=len(shards.classes))
    check(arguments, network, recipe, shards.record, leads=world.rank == 0)
    load_weights(network, file)
    evaluate(arguments, fold(network), recipe, shards, world)
    # The first rank to leave would end the others.
    world.sum(0.0)


def weights_of(given: Path) -> Path:
    """The file of weights, of a checkpoint's directory too. Raises UserError if there is none."""
    file = given / "model.ckpt" if given.is_dir() else given
    if not file.is_file():
        raise UserError(f"checkpoint {file} does not exist")
    return file


def make_places(arguments: argparse.Namespace) -> None:
    """Make the directories of the results, before the work. Raises UserError if one can't be."""
    if arguments.json:
        program.make_directory(arguments.json.parent, "--json")
    if arguments.out:
        program.make_directory(arguments.out, "--out")
        if any(arguments.out.iterdir()):
            raise UserError(f"--out {arguments.out} is not empty: give another directory")


def check(
    arguments: argparse.Namespace, network: "SKNet", recipe: Recipe, shards: Shards, *, leads: bool
) -> None:
    """Check a whole checkpoint for --out in full, otherwise what lies beside the weights.

    Raises CheckpointError if a check failed, and UserError for damaged files.
    """
    from sknet.evaluation.checks import check_checkpoint
    from sknet.records.evaluation import CHECKS_FILE
    from sknet.training.checkpoint import read_state

    given: Path = arguments.ckpt_path
    if arguments.out and given.is_dir():
        checks = check_checkpoint(given, network, recipe, shards)
        if leads:
            program.write(checks, arguments.out / CHECKS_FILE, "--out")
        refuse_failed(checks, given)
    else:
        directory = given if given.is_dir() else given.parent
        if (directory / "state.json").is_file():
            read_state(directory)


def evaluate(
    arguments: argparse.Namespace,
    network: "SKNet",
    recipe: Recipe,
    shards: "ShardSet",
    world: "World",
) -> None:
    """Predict by all ranks; count, print and write by the first."""
    from sknet.evaluation.predicting import evaluation_of, predict

    predictions = predict(
        network,
        recipe,
        shards,
        split=SPLIT,
        batch_size=BATCH_SIZE,
        resolutions=recipe.resolutions,
        world=world,
    )
    evaluations = {
        side: evaluation_of(
            at_side,
            split=SPLIT,
            resolution=side,
            num_classes=len(shards.classes),
            in_detail=True,
        )
        for side, at_side in predictions.items()
    }
    if arguments.out:
        from sknet.evaluation.attention import attention
        from sknet.records.evaluation import ATTENTION_FILE

        # By every rank, as they would have to wait for it anyway.
        seen = attention(network, recipe, shards, split=SPLIT, batch_size=BATCH_SIZE)
        if world.rank == 0:
            program.write(seen, arguments.out / ATTENTION_FILE, "--out")
            write_files(arguments.out, recipe, shards, predictions, evaluations)
    if world.rank == 0:
        for evaluation in evaluations.values():
            print(line_of(evaluation), flush=True)
        program.write_record(evaluations[recipe.image_resize], arguments.json)


def refuse_failed(checks: CheckpointChecks, checkpoint: Path) -> None:
    """Raises CheckpointError naming the checks that failed, if any did."""
    failed = [f"{check.name}: {check.detail}" for check in checks.checks if not check.passed]
    if failed:
        raise CheckpointError(f"{checkpoint} is not evaluated: {'; '.join(failed)}")


def write_files(
    out: Path,
    recipe: Recipe,
    shards: "ShardSet",
    predictions: "dict[int, Predictions]",
    evaluations: dict[int, Evaluation],
) -> None:
    """Counts and predictions at each resolution; examples of the recipe's."""
    import numpy as np

    from sknet.data.reading.pipeline import sample_images, sample_keys
    from sknet.evaluation.examples import chosen, write_examples
    from sknet.evaluation.predictions import write_predictions
    from sknet.records.evaluation import evaluation_file, predictions_file

    keys = sample_keys(shards, SPLIT, np.arange(shards.num_samples(SPLIT)))
    primary = predictions[recipe.image_resize]
    images = sample_images(shards, SPLIT, np.array(chosen(primary), np.int64))
    with program.writing(out, "--out"):
        for side, at_side in predictions.items():
            evaluations[side].write(out / evaluation_file(recipe, side))
            write_predictions(out / predictions_file(recipe, side), keys, at_side)
        write_examples(out, primary, keys, images)


def line_of(evaluation: Evaluation) -> str:
    """What is printed of a resolution."""
    low, high = evaluation.interval_top1
    return (
        f"{evaluation.resolution}x{evaluation.resolution}: "
        f"accuracy@1 {evaluation.accuracy_top1:.2%} "
        f"({evaluation.correct_top1}/{evaluation.seen}), 95 % interval {low:.2%} to {high:.2%}, "
        f"accuracy@5 {evaluation.accuracy_top5:.2%} "
        f"({evaluation.correct_top5}/{evaluation.seen}), loss {evaluation.loss:.4f}, "
        f"calibration error {evaluation.calibration_error:.4f}"
    )


def parser() -> argparse.ArgumentParser:
    """The options; names as in MindCV where it has the option."""
    result = program.parser(__doc__.splitlines()[0])
    program.add_recipe(result)
    result.add_argument("--data_dir", required=True, help="folders of images, shards, or 'digits'")
    result.add_argument("--ckpt_path", type=Path, required=True, help="model.ckpt or its directory")
    result.add_argument("--shards_dir", type=Path, default=Path("shards"), help="cache of shards")
    result.add_argument("--distribute", type=program.boolean, help="default: True under msrun")
    result.add_argument("--device_target", default="CPU", help="CPU or Ascend")
    result.add_argument("--json", type=Path, help="where the evaluation goes as JSON")
    result.add_argument(
        "--out",
        type=Path,
        help="directory for counts, predictions, attention and examples; a directory as --ckpt_path"
        " is checked in full before",
    )
    return result


if __name__ == "__main__":
    sys.exit(program.run(main, parser().parse_args()))
