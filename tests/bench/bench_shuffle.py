"""How far the order by blocks is from a full shuffle, and what that does to the accuracy.

python -m tests.bench.bench_shuffle [--seeds 5] [--epochs 8] [--model skresnet18]
python -m tests.bench.bench_shuffle --data garments --model tiny --epochs 6

Three orders of a data set whose samples lie sorted by class in 64 shards: the full order, the order
by blocks, and reading from the beginning to the end. And the order by blocks of shards over which
the classes are spread, as the conversion does it. Of each:

- neighbours: correlation of a sample's place with that of the one that is read next; 0 is a full
  shuffle.
- classes: variance of the number of samples of a class in a batch, divided by that of batches drawn
  at random; 1 is a full shuffle, the number of samples in a batch is one class for each batch.
- company: how often two samples of a batch were together in the epoch before, divided by how often
  they are by chance; 1 is a full shuffle.

Then the accuracy of digits, whose shards are sorted by class or not, after trainings that differ in
nothing but the order: the mean over the seeds with its 95 % interval by Student's t. `--data
garments` prints this table alone, for generated images like Fashion-MNIST's (see garments.py) in 80
shards that are sorted by class.
"""

import argparse
import gc
import itertools
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

# Read when MindSpore is imported.
os.environ.setdefault("GLOG_v", "3")
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")

import tests.tiny_model.sitecustomize  # noqa: F401 (adds the model `tiny`)
from sknet.data.block_order import BlockOrder
from sknet.data.order import Indices, epoch_order
from tests.bench.bench_rare_classes import interval, write_digits
from tests.bench.garments import write_garments

NUM_SHARDS, SHARD_SIZE, NUM_CLASSES, BATCH, PARTS = 64, 1000, 100, 256, 8
WINDOWS = (4_000, 8_000)
"""Half a part, and a whole one."""
NUM_GARMENTS = 2000
GARMENTS_OF_PART = NUM_GARMENTS // PARTS


@dataclass(frozen=True)
class Trained:
    """What is trained to compare orders."""

    source: str
    """How the source's directory is named to the conversion."""
    write: Callable[[Path], object]
    """Writes the images into a directory."""
    num_shards: int
    """Shards of a split."""
    sorted: tuple[bool, ...]
    """Whether the training shards are sorted by class: each of these in turn."""
    orders: Mapping[str, tuple[str, ...]]
    """What each order changes in the recipe."""
    changes: tuple[str, ...] = ()
    """What is changed in the recipe for all orders."""


DATA = {
    # 4 parts of 359 samples.
    "digits": Trained(
        source="{}",
        write=lambda directory: write_digits(directory, 1, 0),
        num_shards=16,
        sorted=(False, True),
        orders={
            "full": (),
            "blocks": ("shuffle=blocks", "shuffle_parts=4", "shuffle_window=90"),
        },
    ),
    # A part has 10 shards.
    "garments": Trained(
        source="fashion-mnist:{}",
        write=lambda directory: write_garments(directory, train=NUM_GARMENTS, val=1000),
        num_shards=80,
        sorted=(True,),
        orders={
            "full": (),
            "blocks, window of a part": ("shuffle=blocks", f"shuffle_window={GARMENTS_OF_PART}"),
            "blocks, window of a quarter": (
                "shuffle=blocks",
                f"shuffle_window={-(-GARMENTS_OF_PART // 4)}",
            ),
        },
        changes=("ratio=[0.95, 1.05]", "hflip=0.5"),
    ),
}

Labels = npt.NDArray[np.int64]


def main(arguments: argparse.Namespace) -> None:
    """Print both tables."""
    import mindspore

    from sknet.world import set_device

    print(f"{datetime.now(UTC):%Y-%m-%d}, mindspore {mindspore.__version__}")
    if arguments.data == "digits":
        print_distances()
    set_device("CPU", mindspore.GRAPH_MODE, None)
    trained = f"{arguments.data}, {arguments.model}, {arguments.epochs} epochs"
    print(f"\n{trained}, {arguments.seeds} seeds\n")
    print("| shards | order | accuracy, % | more than full |\n|---|---|---:|---:|")
    for is_sorted in DATA[arguments.data].sorted:
        print_accuracies(arguments, is_sorted=is_sorted)


def print_distances() -> None:
    """Print how far each order is from a full shuffle, as the mean over five epochs."""
    total = NUM_SHARDS * SHARD_SIZE
    by_class = np.arange(total) * NUM_CLASSES // total
    spread = by_class[epoch_order(total, 77, 0)]
    rows: dict[str, tuple[Labels, Any]] = {
        "full": (by_class, lambda epoch: epoch_order(total, 1, epoch)),
        "from beginning to end": (by_class, lambda _: np.arange(total)),
    }
    for window in WINDOWS:
        rows |= {
            f"blocks, window {window}, sorted by class": (by_class, _blocks(window)),
            f"blocks, window {window}, classes spread": (spread, _blocks(window)),
        }
    print("\n| order | neighbours | classes | company |\n|---|---:|---:|---:|")
    for name, (labels, order_of) in rows.items():
        epochs = [order_of(epoch)[: total // BATCH * BATCH] for epoch in range(6)]
        places = [correlation(order) for order in epochs[1:]]
        classes = [class_variance(labels[order]) for order in epochs[1:]]
        company = [
            repeated_company(before, after, total) for before, after in itertools.pairwise(epochs)
        ]
        figures = (np.mean(places), np.mean(classes), np.mean(company))
        print(f"| {name} | {' | '.join(f'{figure:.2f}' for figure in figures)} |", flush=True)


def _blocks(window: int) -> Any:
    def order_of(epoch: int) -> Indices:
        order = BlockOrder.of(
            [SHARD_SIZE] * NUM_SHARDS, parts=PARTS, window=window, batch=BATCH, seed=1, epoch=epoch
        )
        return order.at(np.arange(order.num_samples // BATCH * BATCH))

    return order_of


def correlation(order: Indices) -> float:
    """Return the correlation of the places of samples that are read one after the other."""
    return float(np.corrcoef(order[:-1], order[1:])[0, 1])


def class_variance(labels: Labels) -> float:
    """Return the variance of a class's count in batches, as a multiple of that by chance."""
    batches = labels.reshape(-1, BATCH)
    counts = np.stack([np.bincount(batch, minlength=NUM_CLASSES) for batch in batches])
    share = 1 / NUM_CLASSES
    return float(counts.var(axis=0).mean() / (BATCH * share * (1 - share)))


def repeated_company(before: Indices, after: Indices, total: int) -> float:
    """Return how often two samples of a batch were in one batch before, over that by chance."""
    earlier = np.full(total, -1)
    earlier[before] = np.arange(len(before)) // BATCH
    pairs = 0
    for batch in earlier[after].reshape(-1, BATCH):
        counts = np.bincount(batch[batch >= 0])
        pairs += int((counts * (counts - 1)).sum())
    by_chance = len(after) * (BATCH - 1) * (BATCH - 1) / (total - 1)
    return pairs / by_chance


def print_accuracies(arguments: argparse.Namespace, *, is_sorted: bool) -> None:
    """Print a row for each order, of shards sorted by class or not."""
    data = DATA[arguments.data]
    found = np.empty((arguments.seeds, len(data.orders)))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SKNET_CACHE"] = f"{folder}/cache"
        shards = write_shards(Path(folder), data, is_sorted=is_sorted)
        for seed in range(arguments.seeds):
            for number, (name, changes) in enumerate(data.orders.items()):
                directory = Path(folder, f"{number}-{seed}")
                changed = (*data.changes, *changes)
                found[seed, number] = 100 * accuracy(shards, changed, seed, directory, arguments)
                print(f"seed {seed}: {name} {found[seed, number]}", file=sys.stderr, flush=True)
                gc.collect()  # networks are reference cycles
    kind = "sorted by class" if is_sorted else "classes spread"
    for number, name in enumerate(data.orders):
        more = interval(found[:, number] - found[:, 0]) if number else ""
        print(f"| {kind} | {name} | {interval(found[:, number])} | {more} |", flush=True)


def write_shards(folder: Path, data: Trained, *, is_sorted: bool) -> Any:
    """Write the images, convert them into shards, and return these.

    If they are to be sorted by class, the rows of all training shards are laid out anew.
    """
    from sknet.data.shards import ShardSet, common_sizes, read_rows, read_shards
    from sknet.data.shards import write_shard as write
    from tests.sknet.conversions import convert, sizes_for

    data.write(folder / "images")
    source = data.source.format(folder / "images")
    convert(source, folder / "shards", num_shards=data.num_shards)
    shards = read_shards(folder / "shards")
    if not is_sorted:
        return shards
    files = shards.record.files_of("train")
    rows = sorted(
        (
            row
            for file in files
            for row in read_rows(shards.directory / file.name, range(file.num_samples))
        ),
        key=lambda row: (row.label, row.key),
    )
    directory = folder / "sorted"
    directory.mkdir()
    sizes = common_sizes([sizes_for([len(row.image) for row in rows], 50 * len(rows))])
    written, first = [], 0
    for file in files:
        part = rows[first : first + file.num_samples]
        written.append(write(directory / file.name, "train", part, sizes))
        first += file.num_samples
    for file in shards.record.files_of("val"):
        for name in (file.name, file.index_name):
            (directory / name).symlink_to(shards.directory / name)
        written.append(file)
    return ShardSet(shards.record.model_copy(update={"files": tuple(written)}), directory)


def accuracy(
    shards: Any,
    changes: tuple[str, ...],
    seed: int,
    directory: Path,
    arguments: argparse.Namespace,
) -> float:
    """Train with these changes of the recipe, and return the accuracy of the validation images."""
    from sknet.planning import plan_run
    from sknet.recipe import load_recipe
    from sknet.training.checkpoint import read_state
    from sknet.training.stopping import StopRequest
    from sknet.training.trainer import Options, Trainer
    from sknet.world import ALONE

    epochs = arguments.epochs
    keys = {"model": arguments.model, "seed": seed, "epoch_size": epochs, "val_interval": epochs}
    keys["checkpoint_every_steps"] = "null"
    options_of_command = [f"{key}={value}" for key, value in keys.items()]
    recipe = load_recipe("skresnet18_digits", [*options_of_command, *changes])
    run = plan_run(recipe, shards.record, 1, "CPU")
    options = Options(
        directory=directory,
        report=lambda _: None,
        log_interval=1 << 20,
        keep_checkpoint_max=1,
        num_workers=recipe.num_parallel_workers,
    )
    last = Trainer(run, shards, ALONE, StopRequest(distributed=False), options).train()
    _, evaluation = read_state(last).evaluations[-1]
    return evaluation.correct_top1 / evaluation.seen


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    result.add_argument("--data", choices=DATA, default="digits", help="(default digits)")
    result.add_argument("--seeds", type=int, default=5, help="at least 2 (default 5)")
    result.add_argument("--epochs", type=int, default=8, help="(default 8)")
    result.add_argument("--model", default="skresnet18")
    return result


if __name__ == "__main__":
    sys.exit(main(parser().parse_args()))
