"""Our input pipelines against MindCV's on the same images with the same operations, in one run.

python -m tests.bench.bench_input [--images 600] [--rounds 7]

The images are crops of 500x375 of two photographs that ship with scikit-learn, as JPEGs of quality
95 in class folders. MindCV reads the folders. Ours reads shards of the same files, and shards of
images whose shorter side was reduced to 256 at quality 92, in evaluations also with
`eval_preprocessing: pillow`. For comparison, a plain loop with Pillow (with as many threads) and
the bare decoding of the JPEGs are measured. All take turns, in reversed order every other round;
ratios are computed within each round. Prints a Markdown table for training and for evaluation and
each number of workers; it checks no limits.
"""

import argparse
import importlib.metadata
import io
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# Read when MindSpore is imported.
os.environ.setdefault("GLOG_v", "3")

GOALS = {"ours": 1.0, "ours, side 256": 2.0}
NUM_CLASSES = 4
WIDTH, HEIGHT = 500, 375
SHORTER_SIDE = 256
SEED = 0
# Reads all images once and returns their number.
Contestant = Callable[[], int]


def main(arguments: argparse.Namespace) -> None:
    """Measure training, then evaluation."""
    print_conditions(arguments)
    with tempfile.TemporaryDirectory() as folder:
        data = Data(Path(folder), arguments.images)
        for training in (True, False):
            for workers in arguments.workers:
                contestants = all_contestants(data, training, workers, arguments)
                rates, costs = measure(contestants, arguments.rounds)
                print_table("training" if training else "evaluation", workers, rates, costs)


class Data:
    """The images as folders of classes, and both kinds of shards."""

    def __init__(self, root: Path, count: int) -> None:
        from sknet.data.shards import read_shards

        self.folders = root / "images"
        write_images(self.folders, count)
        self.shards = {}
        for name, side in (("ours", None), ("ours, side 256", SHORTER_SIDE)):
            directory = root / name
            convert(self.folders, directory, side)
            self.shards[name] = read_shards(directory)

    def files(self) -> list[Path]:
        """Return all images of both splits."""
        return sorted(self.folders.rglob("*.jpg"))


def write_images(root: Path, count: int) -> None:
    """Write `count` crops as the training split, and the same as the validation split."""
    from sklearn.datasets import load_sample_image

    draw = random.Random(SEED)
    sources = [Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]
    for number in range(count):
        source = sources[number % 2]
        left = draw.randint(0, source.width - WIDTH)
        top = draw.randint(0, source.height - HEIGHT)
        buffer = io.BytesIO()
        source.crop((left, top, left + WIDTH, top + HEIGHT)).save(
            buffer, "JPEG", quality=95, subsampling="4:2:0"
        )
        for split in ("train", "val"):
            path = root / split / f"class{number % NUM_CLASSES}" / f"{number:04}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(buffer.getvalue())


def convert(source: Path, directory: Path, shorter_side: int | None) -> None:
    """Convert the folders into two shards of each split."""
    from sknet.data.conversion.conversion import write_shards
    from sknet.data.conversion.converter import DEFAULT_QUALITY, reencoding_to
    from sknet.data.sources import open_source
    from sknet.data.staging import stage_source

    directory.mkdir()
    write_shards(
        stage_source(open_source(str(source))),
        str(source),
        directory,
        num_shards=2,
        reencoding=reencoding_to(shorter_side, DEFAULT_QUALITY) if shorter_side else None,
    )


def all_contestants(
    data: Data, training: bool, workers: int, arguments: argparse.Namespace
) -> dict[str, Contestant]:
    """Return the contestants by name; those that read shards come first."""
    batch, split = arguments.batch, "train" if training else "val"
    contestants: dict[str, Contestant] = {
        name: lambda at=at: ours(at, training, workers, batch) for name, at in data.shards.items()
    }
    if not training:
        contestants |= {
            f"{name}, by Pillow": lambda at=at: ours(at, False, workers, batch, "pillow")
            for name, at in data.shards.items()
        }
    files = sorted((data.folders / split).rglob("*.jpg"))
    return contestants | {
        "MindCV": lambda: mindcv(data.folders, split, workers, batch),
        "Pillow": lambda: in_threads(pillow_training if training else pillow_eval, files, workers),
        "decoding only": lambda: in_threads(decode, files, workers),
    }


def ours(
    shards: Any, training: bool, workers: int, batch: int, eval_preprocessing: str = "mindcv"
) -> int:
    """Read as in training or evaluation, without computing anything."""
    from sknet.data.reading.pipeline import eval_batches
    from sknet.data.reading.threads import read_ahead
    from sknet.data.reading.training_batches import TrainingBatches
    from sknet.planning import plan_run
    from sknet.recipe import Recipe
    from sknet.world import ALONE

    recipe = Recipe(
        model="skresnet18",
        epoch_size=1,
        batch_size=batch,
        lr=0.1,
        color_jitter=None,
        num_parallel_workers=workers,
        eval_preprocessing=eval_preprocessing,
    )
    if not training:
        indices = np.arange(shards.num_samples("val"))
        return count(eval_batches(recipe, shards, "val", indices, batch, [recipe.image_resize]))
    run = plan_run(recipe, shards.record, 1, "CPU")
    batches = TrainingBatches(run, shards, ALONE, workers).after(0)
    with closing(read_ahead(batches, 2)) as ahead:
        return count(ahead)


def mindcv(folders: Path, split: str, workers: int, batch: int) -> int:
    """Read with MindCV's own three functions, as its train.py calls them."""
    from tests.peers import mindcv_data

    data, training = mindcv_data(), split == "train"
    dataset = data.create_dataset(
        name="", root=str(folders), split=split, shuffle=training, num_parallel_workers=workers
    )
    transforms = data.create_transforms("", 224, is_training=training)
    loader = data.create_loader(
        dataset,
        batch,
        is_training=training,
        num_classes=NUM_CLASSES,
        transform=transforms,
        num_parallel_workers=workers,
    )
    iterator = loader.create_tuple_iterator(num_epochs=1, output_numpy=True)
    try:
        return count(iterator)
    finally:
        iterator.stop()


def count(batches: Iterable[tuple[Any, ...]]) -> int:
    """Return the number of images in all batches."""
    return sum(len(labels) for _, labels in batches)


def in_threads(function: Callable[[Path], object], files: list[Path], workers: int) -> int:
    """Call a function for each file in threads; Pillow releases Python's lock."""
    with ThreadPoolExecutor(workers) as pool:
        return len(list(pool.map(lambda path: function(path) is None, files)))


def decode(path: Path) -> object:
    """Decode the whole image."""
    return Image.open(path).load()


def pillow_training(path: Path) -> object:
    """Decode, random crop, resize, flip, normalise."""
    image = Image.open(path).convert("RGB")
    share, ratio = random.uniform(0.08, 1.0), random.uniform(0.75, 1.333)
    area = share * image.width * image.height
    width = min(image.width, round((area * ratio) ** 0.5))
    height = min(image.height, round((area / ratio) ** 0.5))
    left = random.randint(0, image.width - width)
    top = random.randint(0, image.height - height)
    box = (left, top, left + width, top + height)
    crop = image.resize((224, 224), Image.Resampling.BILINEAR, box=box)
    if random.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return normalised(crop)


def pillow_eval(path: Path) -> object:
    """Decode, resize, crop the centre, normalise."""
    image = Image.open(path).convert("RGB")
    factor = SHORTER_SIDE / min(image.size)
    size = (round(image.width * factor), round(image.height * factor))
    image = image.resize(size, Image.Resampling.BICUBIC)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    return normalised(image.crop((left, top, left + 224, top + 224)))


def normalised(image: Image.Image) -> object:
    """Return a normalised image, (3, 224, 224) float32."""
    pixels = np.asarray(image, np.float32)
    mean, std = np.float32([123.675, 116.28, 103.53]), np.float32([58.395, 57.12, 57.375])
    return np.ascontiguousarray(((pixels - mean) / std).transpose(2, 0, 1))


def measure(
    contestants: dict[str, Contestant], rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return the images per second of every contestant in every round, after one to warm up.

    And the milliseconds of CPU time of an image, which depend less on the machine's other load.
    """
    for contestant in contestants.values():
        contestant()
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    costs: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds):
        turns = list(contestants.items())
        for name, contestant in turns if number % 2 == 0 else reversed(turns):
            began, used = time.perf_counter(), time.process_time()
            images = contestant()
            rates[name].append(images / (time.perf_counter() - began))
            costs[name].append(1000 * (time.process_time() - used) / images)
    return rates, costs


def print_conditions(arguments: argparse.Namespace) -> None:
    """Print the conditions on which the figures depend."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    packages = ("mindspore", "mindcv", "pillow")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    print(f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {versions}")
    print(
        f"{os.cpu_count()} cores, {arguments.images} images of {WIDTH}x{HEIGHT}, batch "
        f"{arguments.batch}, {arguments.rounds} rounds; load before {load}"
    )


def print_table(
    mode: str, workers: int, rates: dict[str, list[float]], costs: dict[str, list[float]]
) -> None:
    """Print a row for each contestant, then ours as multiples of MindCV's."""
    print(f"\n| {mode}, {workers} workers | images/s | min-max | CPU ms an image |")
    print("|---|---:|---:|---:|")
    for name, values in rates.items():
        median = statistics.median(values)
        cost = statistics.median(costs[name])
        print(f"| {name} | {median:.0f} | {min(values):.0f}-{max(values):.0f} | {cost:.2f} |")
    for name, goal in GOALS.items():
        pairs = zip(rates[name], rates["MindCV"], strict=True)
        ratios = sorted(mine / theirs for mine, theirs in pairs)
        print(
            f"{mode}, {workers} workers: {name} {statistics.median(ratios):.2f}x MindCV "
            f"({ratios[0]:.2f}-{ratios[-1]:.2f}; goal {goal}x)"
        )


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    result.add_argument("--images", type=int, default=600)
    result.add_argument("--batch", type=int, default=64)
    result.add_argument("--rounds", type=int, default=7)
    result.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    return result


if __name__ == "__main__":
    sys.exit(main(parser().parse_args()))
