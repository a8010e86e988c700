"""What the host does for a step while the device could compute, and how many cores a card needs.

python -m tests.bench.bench_host [--images 1408] [--batch 64] [--steps 20] [--rounds 5]

A network that computes next to nothing is trained on batches of 64 images of 224x224 pixels.

| table | what is measured |
|---|---|
| serial | milliseconds of a step of the real loop, of the bare compiled step on tensors that exist,
  and of a step that first copies its batch into tensors; for batches as pixels, which the device
  normalises, and as float32, each with its bytes to the device |
| peer | the same for `Model.train`, which MindCV's train.py calls, on the same batch; its sink mode
  can't run here, because MindSpore switches it off on CPU |
| CPU time | milliseconds of CPU an image, by part of the input pipeline, and the cores that one
  card needs at the published 46.83 ms a step of 64 images |

The difference between the loop and the bare step is what the host does serially. Contestants take
turns, in reversed order every other round. It prints Markdown tables and the goals, and checks no
limits: what must hold is counted by tests (`tests/sknet/training/test_loop.py`, `test_inputs.py`).
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# Read when MindSpore is imported.
os.environ.setdefault("GLOG_v", "3")

import mindspore as ms
import mindspore.dataset as ds
from mindspore import Tensor, nn

from sknet.data.order import epoch_order
from sknet.data.reading.pipeline import sample_images
from sknet.data.reading.training_batches import TrainingBatches
from sknet.models.backend import backend_of
from sknet.training.inputs import InputMaker
from sknet.world import ALONE
from tests.bench.bench_input import NUM_CLASSES, SEED, print_conditions
from tests.bench.training_loop import Clocks, Training
from tests.bench.training_setup import Setup, take_turns

PUBLISHED_STEP, PUBLISHED_BATCH = 46.83, 64
"""Milliseconds of a step and images a card, of skresnet18 on Ascend 910* (MindCV's README)."""
SERIAL_GOAL, BYTES_GOAL = 3.0, 9.7
"""Milliseconds beyond the bare step, and megabytes to the device."""


class NextToNothing(nn.Cell):
    """A classifier of one pixel of each image."""

    def __init__(self) -> None:
        super().__init__()
        self.architecture = SimpleNamespace(depths=())
        self.backend = backend_of()
        self.fc = nn.Dense(3, NUM_CLASSES)

    def construct(self, x: Tensor, factors: Tensor | None = None) -> Tensor:  # noqa: ARG002 (the step passes it)
        """Map images (N, 3, R, R) to logits."""
        return self.fc(x[:, :, 0, 0])


def main(arguments: argparse.Namespace) -> None:
    """Print all tables."""
    print_conditions(arguments)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SKNET_CACHE"] = f"{folder}/cache"
        os.environ.pop("MS_COMPILER_CACHE_ENABLE", None)
        setup = Setup(Path(folder), arguments)
        measure_serial(setup)
        measure_cpu(setup)


def measure_serial(setup: Setup) -> None:
    """Measure the steps of our loop and of MindCV's on one batch in memory."""
    contestants: dict[str, Callable[[], float]] = {}
    megabytes = {}
    for kind, place in (("pixels", "device"), ("float32", "host")):
        setup.keys["normalise_on"] = place
        training = Training(setup, NextToNothing())
        batch = training.batch()
        training.steps_from_memory(batch, 2)
        inputs = InputMaker(training.start.step_cell.network, training.run.recipe, ALONE)(batch, 0)
        # The fourth input tells whether this rank was asked to stop.
        megabytes[kind] = (sum(each.nbytes for each in inputs[0][:2]) + 4) / 1e6
        contestants |= {
            f"{kind}: our loop": in_our_loop(training, batch, setup.options.steps),
            f"{kind}: bare step": in_turn(training, lambda inputs=inputs: inputs, setup),
            f"{kind}: batch copied": in_turn(training, lambda batch=batch: copied(batch), setup),
        }
    contestants["float32: MindCV's loop"] = in_model_train(batch, setup)
    measured = take_turns(contestants, setup.options.rounds)
    print("\n| a step, ms | median | min-max | MB to the device |\n|---|---:|---:|---:|")
    for name, values in measured.items():
        size = megabytes[name.partition(":")[0]]
        print(
            f"| {name} | {statistics.median(values):.2f} | {min(values):.2f}-{max(values):.2f} "
            f"| {size:.2f} |"
        )
    for kind, size in megabytes.items():
        loop, bare = measured[f"{kind}: our loop"], measured[f"{kind}: bare step"]
        serial = statistics.median(x - y for x, y in zip(loop, bare, strict=True))
        print(
            f"{kind}: the host takes {serial:.2f} ms a step beyond the bare step (goal at most "
            f"{SERIAL_GOAL:g}), {size:.2f} MB go to the device (goal at most {BYTES_GOAL:g})",
            flush=True,
        )


def in_our_loop(training: Training, batch: Any, steps: int) -> Callable[[], float]:
    """Return a contestant: the median step of the real loop, in milliseconds."""

    def run() -> float:
        training.reset()
        clocks, _ = training.steps_from_memory(batch, steps)
        return statistics.median(clocks.milliseconds)

    return run


def in_turn(training: Training, inputs: Callable[[], Any], setup: Setup) -> Callable[[], float]:
    """Return a contestant: the median of steps that are read at once, in milliseconds."""

    def run() -> float:
        training.reset()
        training.start.step_cell.set_train(True)
        clocks = Clocks()
        for _ in range(setup.options.steps):
            training.start.step_cell(inputs()).asnumpy()
            clocks.steps.append(time.perf_counter())
        return statistics.median(clocks.milliseconds)

    return run


def copied(batch: Any) -> Any:
    """Return new tensors with copies of a batch."""
    images, labels = batch
    return ((Tensor(images), Tensor(labels), None),)


def in_model_train(batch: Any, setup: Setup) -> Callable[[], float]:
    """Return a contestant: the mean step of `Model.train`, in milliseconds."""
    images, labels = batch
    network = NextToNothing()
    optimizer = nn.Momentum(network.trainable_params(), 0.05, 0.9)
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    ms.set_context(mode=ms.GRAPH_MODE)
    model = ms.Model(network, loss, optimizer)
    steps = setup.options.steps

    def rows() -> Iterator[Any]:
        for _ in range(steps):
            yield images, labels

    def dataset() -> Any:
        return ds.GeneratorDataset(rows, ["image", "label"], shuffle=False)

    model.train(1, dataset(), dataset_sink_mode=True)

    def run() -> float:
        data = dataset()
        began = time.perf_counter()
        model.train(1, data, dataset_sink_mode=True)
        return 1000 * (time.perf_counter() - began) / steps

    return run


def measure_cpu(setup: Setup) -> None:
    """Measure the CPU time of each part of the input pipeline."""
    training = Training(setup, NextToNothing())
    run, shards = training.run, setup.shards
    order = epoch_order(shards.num_samples("train"), SEED, 0)
    make = InputMaker(training.start.step_cell.network, run.recipe, ALONE)

    def read(place: str) -> list[Any]:
        """Read the batches of an epoch, normalised by the host or not."""
        recipe = run.recipe.model_copy(update={"normalise_on": place})
        changed = run.model_copy(update={"recipe": recipe})
        with closing(TrainingBatches(changed, shards, ALONE, 1).after(0)) as batches:
            return list(islice(batches, run.steps_per_epoch))

    batches = read("device")
    contestants = {
        "read": lambda: cpu_seconds(lambda: sample_images(shards, "train", order)),
        "read, decode, crop": lambda: cpu_seconds(lambda: read("device")),
        "and normalise": lambda: cpu_seconds(lambda: read("host")),
        "tensors": lambda: cpu_seconds(lambda: [make(batch, 0) for batch in batches]),
    }
    measured = take_turns(contestants, setup.options.rounds)
    image = {
        name: 1000 * statistics.median(values) / len(order) for name, values in measured.items()
    }
    image["decode, crop"] = image["read, decode, crop"] - image["read"]
    image["normalise on the host"] = image["and normalise"] - image["read, decode, crop"]
    print("\n| CPU time | ms an image |\n|---|---:|")
    for name in ("read", "decode, crop", "normalise on the host", "tensors"):
        print(f"| {name} | {image[name]:.3f} |")
    rate = 1000 * PUBLISHED_BATCH / PUBLISHED_STEP
    on_device = image["read, decode, crop"] + image["tensors"]
    for kind, needed in (
        ("pixels", on_device),
        ("float32", on_device + image["normalise on the host"]),
    ):
        print(
            f"{kind}: a card that takes {rate:.0f} images/s needs {needed * rate / 1000:.1f} cores "
            "of this kind",
            flush=True,
        )


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU time of all threads of this process for some work, in seconds."""
    began = time.process_time()
    work()
    return time.process_time() - began


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    result.add_argument("--images", type=int, default=1408, help="images (default 1408)")
    result.add_argument("--batch", type=int, default=64, help="images a step (default 64)")
    result.add_argument("--resolution", type=int, default=224)
    result.add_argument("--steps", type=int, default=20, help="steps a turn (default 20)")
    result.add_argument("--rounds", type=int, default=5)
    return result


if __name__ == "__main__":
    sys.exit(main(parser().parse_args()))
