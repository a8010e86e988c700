"""What all parts of the training benchmark share: images, recipe, turns, tables."""

import itertools
import statistics
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.bench.bench_input import write_images

MODEL = "skresnet18"
# Takes a turn and returns what it measured.
Contestant = Callable[[], float]


class Setup:
    """The images as folders and as shards, and the recipe of all parts."""

    def __init__(self, root: Path, options: Namespace) -> None:
        from sknet.data.conversion.conversion import write_shards
        from sknet.data.shards import ShardSet
        from sknet.data.sources import open_source
        from sknet.data.staging import stage_source

        self.root, self.options = root, options
        self.folders, directory = root / "images", root / "shards"
        write_images(self.folders, options.images)
        directory.mkdir()
        shards = write_shards(
            stage_source(open_source(str(self.folders))),
            str(self.folders),
            directory,
            num_shards=1,
            parallel_map=in_this_process,
        )
        self.shards = ShardSet(shards, directory)
        self.keys: dict[str, Any] = {
            "model": MODEL,
            "image_resize": options.resolution,
            "global_batch_size": options.batch,
            "color_jitter": None,
            "interpolation": "bilinear",
            "epoch_size": 1,
            "opt": "momentum",
            "momentum": 0.9,
            "lr": 0.05,
            "log_interval": 1,
            "num_parallel_workers": 2,
        }
        self._numbers = itertools.count()

    def new_directory(self) -> Path:
        """Return a new empty directory."""
        directory = self.root / f"{next(self._numbers):03}"
        directory.mkdir()
        return directory


def in_this_process(function: Callable[..., Any], items: Any, *, on_tick: object) -> Iterator[Any]:
    """Convert in this process: starting workers takes longer than converting few images."""
    del on_tick
    return map(function, items)


def take_turns(contestants: dict[str, Contestant], rounds: int) -> dict[str, list[float]]:
    """Return what each contestant measures in every round."""
    measured: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds):
        turns = list(contestants.items())
        for name, contestant in turns if number % 2 == 0 else reversed(turns):
            measured[name].append(value := contestant())
            print(f"round {number + 1}: {name} {value:.1f}", file=sys.stderr)
    return measured


def print_turns(what: str, measured: dict[str, list[float]], goal: str) -> None:
    """Print a row for each contestant, then the ratio of the first two, and the goal."""
    print(f"\n| {what} | median | min-max |\n|---|---:|---:|")
    for name, values in measured.items():
        print(f"| {name} | {statistics.median(values):.1f} | {min(values):.1f}-{max(values):.1f} |")
    first, second = measured
    pairs = zip(measured[first], measured[second], strict=True)
    ratios = sorted(above / below for above, below in pairs)
    print(
        f"{what.split(',')[0]}: {first} is {statistics.median(ratios):.3f} times {second} "
        f"({ratios[0]:.3f}-{ratios[-1]:.3f}; {goal})",
        flush=True,
    )
