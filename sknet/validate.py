"""Evaluate a checkpoint on the validation split: accuracy from summed counts.

python -m sknet.validate -c RECIPE.yaml --data_dir DIR --ckpt_path FILE [--json OUT]
"""

import argparse
import os
import sys
from pathlib import Path

from sknet import program
from sknet.errors import UserError

BATCH_SIZE = 64


def main(arguments: argparse.Namespace) -> None:
    """Evaluate; prints one line and writes the record of --json."""
    recipe = program.recipe_of(arguments)
    file: Path = arguments.ckpt_path
    if file.is_dir():
        file /= "model.ckpt"
    if not file.is_file():
        raise UserError(f"checkpoint {file} does not exist")
    if arguments.json:
        program.make_directory(arguments.json.parent, "--json")
    from sknet.data.local import shards_at
    from sknet.evaluation import evaluate
    from sknet.models import create_model
    from sknet.models.weights import load_weights
    from sknet.training.checkpoint import read_state
    from sknet.training.device import set_device

    set_device(arguments.device_target)
    if (file.parent / "state.json").is_file():
        read_state(file.parent)
    shards, directory = shards_at(
        arguments.data_dir, arguments.shards_dir, rank=0, num_workers=os.cpu_count() or 1
    )
    network = create_model(recipe.model, num_classes=len(shards.dataset.classes))
    load_weights(network, file)
    evaluation = evaluate(network, recipe, shards, directory, batch_size=BATCH_SIZE)
    print(
        f"accuracy@1 {evaluation.accuracy_top1:.2%} "
        f"({evaluation.correct_top1}/{evaluation.seen}), "
        f"accuracy@5 {evaluation.accuracy_top5:.2%} "
        f"({evaluation.correct_top5}/{evaluation.seen}), loss {evaluation.loss:.4f}",
        flush=True,
    )
    program.write_record(evaluation, arguments.json)


def parser() -> argparse.ArgumentParser:
    """The options; names as in MindCV where it has the option."""
    result = program.parser(__doc__.splitlines()[0])
    program.add_recipe(result)
    result.add_argument("--data_dir", required=True, help="folders of images, shards, or 'digits'")
    result.add_argument("--ckpt_path", type=Path, required=True, help="model.ckpt or its directory")
    result.add_argument("--shards_dir", type=Path, default=Path("shards"), help="cache of shards")
    result.add_argument("--device_target", default="CPU", help="CPU or Ascend")
    result.add_argument("--json", type=Path, help="where the evaluation goes as JSON")
    return result


if __name__ == "__main__":
    sys.exit(program.run(main, parser().parse_args()))
