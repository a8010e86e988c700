"""What an evaluation's resizing changes: the same networks, evaluated as MindCV and as Pillow do.

python -m tests.bench.bench_preprocessing [--data digits photographs] [--seeds 3] [--epochs 8]

The digits are those of the recipe skresnet18_digits, which enlarges them from 8 to 32 pixels. The
photographs are tiles of 96 to 192 pixels, cut from the left 60 % (training) and the right 40 %
(validation) of the three photographs that scikit-learn and matplotlib ship, whose upper and lower
halves are six classes; an evaluation shrinks them to 36 pixels. Each seed draws the tiles and is
the seed of the training, which is the same for both: MindSpore's augmentation at 32 pixels. Then
all validation images are evaluated in both ways.

Prints a Markdown table: for each data set the mean accuracy over the seeds in both ways, and the
difference, with 95 % intervals by Student's t. Each training goes to stderr.
"""

import argparse
import gc
import os
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from tests.bench.bench_rare_classes import interval
from tests.photographs import contrast, photographs

# Read when MindSpore is imported.
os.environ.setdefault("GLOG_v", "3")
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")

RECIPES = {"digits": "skresnet18_digits", "photographs": "skresnet18_folder"}
METHODS = ("mindcv", "pillow")
TILES = {"train": 120, "val": 60}
"""Tiles of each class."""
SIDES = (96, 192)

Floats = npt.NDArray[np.float64]


def main(arguments: argparse.Namespace) -> None:
    """Train with every seed, evaluate in both ways, and print the table."""
    import mindspore

    from sknet.world import set_device

    set_device("CPU", mindspore.GRAPH_MODE, None)
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, mindspore {mindspore.__version__}; {arguments.model}, "
        f"{arguments.epochs} epochs, {arguments.seeds} seeds\n"
    )
    print("| data | as MindCV, % | as Pillow, % | difference, points |\n|---|---:|---:|---:|")
    for data in arguments.data:
        found = np.empty((arguments.seeds, len(METHODS)))
        for seed in range(arguments.seeds):
            with tempfile.TemporaryDirectory() as folder:
                os.environ["SKNET_CACHE"] = f"{folder}/cache"
                found[seed] = accuracies(data, Path(folder), seed, arguments)
            print(f"{data}, seed {seed}: {found[seed]}", file=sys.stderr, flush=True)
            gc.collect()  # networks are reference cycles
        percent = 100 * found
        columns = [interval(values) for values in (*percent.T, percent[:, 1] - percent[:, 0])]
        print(f"| {data} | {' | '.join(columns)} |", flush=True)


def accuracies(data: str, root: Path, seed: int, arguments: argparse.Namespace) -> Floats:
    """Train, and return the accuracy on the validation images in both ways."""
    from sknet.data.shards import read_shards
    from sknet.evaluation.predicting import evaluate
    from sknet.models import create_model
    from sknet.models.weights import load_weights
    from sknet.planning import plan_run
    from sknet.recipe import load_recipe
    from sknet.training.stopping import StopRequest
    from sknet.training.trainer import Options, Trainer
    from sknet.world import ALONE
    from tests.sknet.conversions import convert

    source: Path | str = data if data == "digits" else write_tiles(root / "images", seed)
    convert(source, root / "shards", num_shards=1)
    shards = read_shards(root / "shards")
    keys = {"model": arguments.model, "seed": seed, "epoch_size": arguments.epochs}
    keys |= {"val_interval": arguments.epochs, "checkpoint_every_steps": "null"}
    keys |= {"image_resize": 32, "num_parallel_workers": 1, "warmup_epochs": 1}
    recipe = load_recipe(RECIPES[data], [f"{key}={value}" for key, value in keys.items()])
    if data == "photographs":
        recipe = recipe.model_copy(update={"lr": 1.0})  # for 512 images, of a short training
    run = plan_run(recipe, shards.record, 1, "CPU")
    options = Options(
        directory=root / "ckpt",
        report=lambda _: None,
        log_interval=1 << 20,
        keep_checkpoint_max=recipe.keep_checkpoint_max,
        num_workers=recipe.num_parallel_workers,
    )
    last = Trainer(run, shards, ALONE, StopRequest(distributed=False), options).train()
    network = create_model(recipe.model, num_classes=len(shards.classes))
    load_weights(network, last)
    return np.array(
        [
            evaluate(
                network,
                recipe.model_copy(update={"eval_preprocessing": method}),
                shards,
                batch_size=16,
            ).accuracy_top1
            for method in METHODS
        ]
    )


def write_tiles(root: Path, seed: int) -> Path:
    """Write the tiles as class folders."""
    random = np.random.default_rng(seed)
    for name, photograph in photographs().items():
        width, height = photograph.size
        border = round(0.6 * width)
        for half, top in (("upper", 0), ("lower", height // 2)):
            for split, left, right in (("train", 0, border), ("val", border, width)):
                part = photograph.crop((left, top, right, top + height // 2))
                folder = root / split / f"{name}-{half}"
                folder.mkdir(parents=True)
                for number in range(TILES[split]):
                    draw(part, random).save(folder / f"{number:03}.jpg", quality=92)
    return root


def draw(part: Image.Image, random: np.random.Generator) -> Image.Image:
    """Return a tile with structure: a blank sky is no picture of anything."""
    for _ in range(100):
        side = int(random.integers(*SIDES, endpoint=True))
        side = min(side, *part.size)
        left, top = (int(random.integers(0, end - side, endpoint=True)) for end in part.size)
        tile = part.crop((left, top, left + side, top + side))
        if contrast(tile) > 8:
            break
    return tile


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    result.add_argument("--data", nargs="+", choices=RECIPES, default=list(RECIPES))
    result.add_argument("--seeds", type=int, default=3, help="at least 2 (default 3)")
    result.add_argument("--epochs", type=int, default=8, help="(default 8)")
    result.add_argument("--model", default="skresnet18")
    return result


if __name__ == "__main__":
    sys.exit(main(parser().parse_args()))
