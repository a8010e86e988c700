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
    from sknet.evaluation.predictions import Predictions

BATCH_SIZE = 16
SPLIT = "val"


def main(arguments: argparse.Namespace) -> None:
    """Evaluate; rank 0 prints a line for each resolution and writes what was asked for."""
    distribute = program.is_distributed(arguments.distribute, "sknet/validate.py")
    recipe = program.recipe_of(arguments)
    given: Path = arguments.ckpt_path
    file = given / "model.ckpt" if given.is_dir() else given
    if not file.is_file():
        raise UserError(f"checkpoint {file} does not exist")
    if arguments.json:
        program.make_directory(arguments.json.parent, "--json")
    if arguments.out:
        program.make_directory(arguments.out, "--out")
        if any(arguments.out.iterdir()):
            raise UserError(f"--out {arguments.out} is not empty: give another directory")
    from sknet.data.local import shards_at
    from sknet.evaluation.checks import check_checkpoint
    from sknet.evaluation.counting import evaluation_of
    from sknet.evaluation.predicting import predict
    from sknet.models import create_model, fold
    from sknet.models.weights import load_weights
    from sknet.training.checkpoint import read_state
    from sknet.training.device import join_world, set_device

    set_device(arguments.device_target)
    world = join_world(distribute=distribute)
    shards, directory = shards_at(
        arguments.data_dir,
        arguments.shards_dir,
        rank=world.rank,
        num_workers=os.cpu_count() or 1,
    )
    network = create_model(recipe.model, num_classes=len(shards.dataset.classes))
    if arguments.out and given.is_dir():
        checks = check_checkpoint(given, network, recipe, shards)
        if world.rank == 0:
            program.write(checks, arguments.out / "checks.json", "--out")
        refuse_failed(checks, given)
    elif (file.parent / "state.json").is_file():
        read_state(file.parent)
    load_weights(network, file)
    folded = fold(network)
    place = (recipe, shards, directory)
    predictions = predict(
        folded,
        *place,
        split=SPLIT,
        batch_size=BATCH_SIZE,
        resolutions=recipe.resolutions,
        rank=world.rank,
        world_size=world.size,
    )
    evaluations = {
        side: evaluation_of(
            at_side,
            split=SPLIT,
            resolution=side,
            num_classes=len(shards.dataset.classes),
            in_detail=True,
        )
        for side, at_side in predictions.items()
    }
    if arguments.out:
        from sknet.evaluation.attention import attention

        # By every rank, as they would have to wait for it anyway.
        seen = attention(folded, *place, split=SPLIT, batch_size=BATCH_SIZE)
        if world.rank == 0:
            program.write(seen, arguments.out / "attention.json", "--out")
            write_files(arguments.out, recipe, shards, directory, predictions, evaluations)
    if world.rank == 0:
        for evaluation in evaluations.values():
            print(line_of(evaluation), flush=True)
        program.write_record(evaluations[recipe.image_resize], arguments.json)
    # The first rank to leave would end the others.
    world.sum(0.0)


def refuse_failed(checks: CheckpointChecks, checkpoint: Path) -> None:
    """Raises CheckpointError naming the checks that failed, if any did."""
    failed = [f"{check.name}: {check.detail}" for check in checks.checks if not check.passed]
    if failed:
        raise CheckpointError(f"{checkpoint} is not evaluated: {'; '.join(failed)}")


def write_files(
    out: Path,
    recipe: Recipe,
    shards: Shards,
    directory: Path,
    predictions: "dict[int, Predictions]",
    evaluations: dict[int, Evaluation],
) -> None:
    """Counts and predictions at each resolution; examples of the recipe's."""
    import numpy as np

    from sknet.data.diagnosis import sample_images, sample_keys
    from sknet.evaluation.examples import chosen, write_examples
    from sknet.evaluation.files import evaluation_file, predictions_file, write_predictions

    place = (shards, directory, SPLIT)
    keys = sample_keys(*place, np.arange(shards.num_samples(SPLIT)))
    primary = predictions[recipe.image_resize]
    images = sample_images(*place, np.array(chosen(primary), np.int64))
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
