"""What each key for rare classes gains on digits, of which some are 50 times rarer than others.

python -m tests.bench.bench_rare_classes [--seeds 5] [--ratio 50] [--epochs 8]

The 1,437 training digits of the recipe skresnet18_digits are thinned: five of the ten classes keep
all their samples, about 143, and five keep one in `--ratio`, which is 3. Each seed draws which
classes and samples these are, and is the seed of the training. The 360 validation digits, by other
people, stay as they are. All contestants train the recipe for as many steps.

Prints a Markdown table: for each contestant the mean over the seeds, with its 95 % interval by
Student's t, of the balanced accuracy (the mean of the recalls of all classes), by how much it
exceeds that of the uniform order with the same seed, and the mean recalls of the rare and of the
common classes. Each training goes to stderr.
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

# Read when MindSpore is imported.
os.environ.setdefault("GLOG_v", "3")
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")

# The keys that each contestant adds to the recipe; none changes the number of steps.
CONTESTANTS = {
    "uniform": (),
    "sampler: sqrt": ("sampler=sqrt",),
    "sampler: balanced": ("sampler=balanced",),
    "class_weights: balanced": ("class_weights=balanced",),
    "logit_adjustment: 1": ("logit_adjustment=1",),
}
NUM_TRAIN = 1437

Floats = npt.NDArray[np.float64]


def main(arguments: argparse.Namespace) -> None:
    """Train every contestant with every seed, and print the table."""
    import mindspore

    from sknet.world import set_device

    set_device("CPU", mindspore.GRAPH_MODE, None)
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, mindspore {mindspore.__version__}; {arguments.model}, "
        f"{arguments.epochs} epochs, {arguments.seeds} seeds, ratio {arguments.ratio:g}"
    )
    contestants = arguments.contestants
    # Of each seed and contestant: mean recall of all, of the rare and of the common classes.
    found = np.empty((arguments.seeds, len(contestants), 3))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SKNET_CACHE"] = f"{folder}/cache"
        for seed in range(arguments.seeds):
            root = Path(folder, str(seed))
            is_rare = write_digits(root / "images", arguments.ratio, seed)
            for number, name in enumerate(contestants):
                recalls = train(root, name, seed, arguments)
                parts = (recalls, recalls[is_rare], recalls[~is_rare])
                found[seed, number] = [part.mean() for part in parts]
                print(f"seed {seed}: {name} {found[seed, number]}", file=sys.stderr, flush=True)
                gc.collect()  # networks are reference cycles
    print_table(list(contestants), 100 * found)


def write_digits(folder: Path, ratio: float, seed: int) -> npt.NDArray[np.bool_]:
    """Write the thinned digits as class folders, and return which classes are rare, (10,)."""
    from sklearn.datasets import load_digits

    digits, numbers = load_digits(), np.random.default_rng(seed)
    labels, train = digits.target, np.arange(len(digits.target)) < NUM_TRAIN
    is_rare: npt.NDArray[np.bool_] = numbers.permutation(10) < 5
    for label in range(10):
        own = labels == label
        kept = np.flatnonzero(own & train)
        if is_rare[label]:
            kept = numbers.choice(kept, max(1, round(len(kept) / ratio)), replace=False)
        for split, indices in (("train", kept), ("val", np.flatnonzero(own & ~train))):
            directory = folder / split / str(label)
            directory.mkdir(parents=True)
            for index in indices:
                pixels = (digits.images[index] * (255 / 16)).round().astype(np.uint8)
                Image.fromarray(pixels).save(directory / f"{index:04}.png")
    return is_rare


def train(root: Path, name: str, seed: int, arguments: argparse.Namespace) -> Floats:
    """Train, and return the recall of each class of the validation digits, (10,)."""
    from sknet.data.shards import read_shards
    from sknet.planning import plan_run
    from sknet.recipe import load_recipe
    from sknet.training.checkpoint import read_state
    from sknet.training.stopping import StopRequest
    from sknet.training.trainer import Options, Trainer
    from sknet.world import ALONE
    from tests.sknet.conversions import convert

    if not (root / "shards").exists():
        convert(root / "images", root / "shards", num_shards=1)
    shards = read_shards(root / "shards")
    epochs = arguments.epochs
    keys = {"model": arguments.model, "seed": seed, "epoch_size": epochs, "val_interval": epochs}
    keys["checkpoint_every_steps"] = "null"
    changes = [f"{key}={value}" for key, value in keys.items()]
    recipe = load_recipe("skresnet18_digits", [*changes, *CONTESTANTS[name]])
    run = plan_run(recipe, shards.record, 1, "CPU")
    options = Options(
        directory=root / name,
        report=lambda _: None,
        log_interval=1 << 20,
        keep_checkpoint_max=recipe.keep_checkpoint_max,
        num_workers=recipe.num_parallel_workers,
    )
    last = Trainer(run, shards, ALONE, StopRequest(distributed=False), options).train()
    _, evaluation = read_state(last).evaluations[-1]
    recalls: Floats = np.array(evaluation.class_correct) / np.array(evaluation.class_seen)
    return recalls


def print_table(contestants: list[str], percents: Floats) -> None:
    """Print a row for each contestant.

    Args:
        contestants: Their names; the others are compared with the first.
        percents: (seeds, contestants, 3): mean recall of all, of the rare and of the common
            classes.
    """
    headings = ("", "balanced accuracy", f"more than {contestants[0]}", "rare classes", "common")
    print(f"\n| {' | '.join(headings)} |\n|---|---:|---:|---:|---:|")
    for number, name in enumerate(contestants):
        balanced, rare, common = (interval(values) for values in percents[:, number].T)
        more = interval(percents[:, number, 0] - percents[:, 0, 0]) if number else ""
        print(f"| {name} | {balanced} | {more} | {rare} | {common} |")


def interval(values: Floats) -> str:
    """Return the mean of values of different seeds with its 95 % interval by Student's t."""
    from scipy.stats import t

    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.1f} ({values.mean() - half:.1f} to {values.mean() + half:.1f})"


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    result.add_argument("--seeds", type=int, default=5, help="at least 2 (default 5)")
    result.add_argument("--ratio", type=float, default=50, help="common to rare (default 50)")
    result.add_argument("--epochs", type=int, default=8, help="(default 8)")
    result.add_argument("--model", default="skresnet18")
    result.add_argument(
        "--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS), metavar="NAME"
    )
    return result


if __name__ == "__main__":
    sys.exit(main(parser().parse_args()))
