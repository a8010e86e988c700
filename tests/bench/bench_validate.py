"""Validation against MindCV's, from encoded images to counts, on the same images and weights.

python -m tests.bench.bench_validate [--images 256] [--rounds 7]

MindCV's side is its validate.py: its data set of folders, transforms and loader, `Model.eval` with
its metrics and loss. Ours reads shards of the same files, with the same weights in our network of
MindCV's form, BatchNorm folded. Each runs in its own process and compiles before it is measured.
They take turns, in reversed order every other round; ratios are computed within each round. Then
the networks alone are measured on one batch. The counts are printed: equal counts show that both do
the same work. The load is printed too; no limits are checked.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.bench.bench_input import NUM_CLASSES, convert, write_images
from tests.bench.bench_model import children, print_conditions

CONTESTANTS = ("ours", "MindCV")
MODES = ("validation", "forward")
GOALS = {"validation": 1.5, "forward": 2.0}
INTERPOLATION, RESOLUTION = "bilinear", 224
# Validates all images and returns the counts as text, or computes one forward pass.
Runs = dict[str, Callable[[], str]]


def main(arguments: argparse.Namespace) -> None:
    """Measure both modes, and print a table and the ratios."""
    print_conditions(arguments)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_images(root / "images", arguments.images)
        convert(root / "images", root / "shards", None)
        options = (root, arguments.model, arguments.batch, arguments.threads)
        with children({name: (name, *options) for name in CONTESTANTS}, contestant) as pipes:
            for name, pipe in pipes.items():
                print(f"{name} counted {pipe.recv()}")
            results = {mode: measure(pipes, mode, arguments.rounds) for mode in MODES}
            for pipe in pipes.values():
                pipe.send("")
    images = {"validation": arguments.images, "forward": arguments.batch}
    print("\n| | | images/s | min-max |\n|---|---|---:|---:|")
    for mode, seconds in results.items():
        for name, values in seconds.items():
            rates = sorted(images[mode] / value for value in values)
            print(
                f"| {mode} | {name} | {statistics.median(rates):.1f} | "
                f"{rates[0]:.1f}-{rates[-1]:.1f} |"
            )
    for mode, seconds in results.items():
        pairs = zip(seconds["MindCV"], seconds["ours"], strict=True)
        ratios = sorted(theirs / mine for theirs, mine in pairs)
        print(
            f"{mode}: {statistics.median(ratios):.2f}x MindCV "
            f"({ratios[0]:.2f}-{ratios[-1]:.2f}; goal {GOALS[mode]}x)"
        )


def measure(pipes: dict[str, Connection], mode: str, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of every contestant in every round."""
    seconds: dict[str, list[float]] = {name: [] for name in pipes}
    for number in range(rounds):
        turns = list(pipes.items())
        for name, pipe in turns if number % 2 == 0 else reversed(turns):
            pipe.send(mode)
            seconds[name].append(pipe.recv())
    return seconds


def contestant(
    pipe: Connection, name: str, root: Path, model: str, batch: int, threads: int
) -> None:
    """Compile, send the counts, then answer each mode with its seconds."""
    os.environ |= {"OMP_NUM_THREADS": str(threads), "GLOG_v": "3"}
    from sknet.world import set_device

    set_device("CPU")
    runs = (ours if name == "ours" else mindcv)(root, model, batch)
    runs["forward"]()
    pipe.send(runs["validation"]())
    while mode := pipe.recv():
        began = time.perf_counter()
        runs[mode]()
        pipe.send(time.perf_counter() - began)
    # MindSpore's threads sometimes keep an interpreter from ending.
    os._exit(0)


def ours(root: Path, model: str, batch: int) -> Runs:
    """Validate as sknet.validate does, with MindCV's weights."""
    import mindspore as ms

    from sknet.data.shards import read_shards
    from sknet.evaluation.predicting import predict
    from sknet.evaluation.predictions import BATCH_SIZE, evaluation_of
    from sknet.models import create_model, fold
    from sknet.models.weights import load_weights
    from sknet.recipe import Recipe

    shards = read_shards(root / "shards")
    recipe = Recipe(
        model=f"{model}_mindcv",
        epoch_size=1,
        batch_size=BATCH_SIZE,
        lr=0.1,
        interpolation=INTERPOLATION,
        num_parallel_workers=os.cpu_count() or 1,
    )
    network = create_model(recipe.model, num_classes=NUM_CLASSES)
    ms.save_checkpoint(peer(model), str(root / "ours.ckpt"))
    load_weights(network, root / "ours.ckpt", "mindcv")
    folded = fold(network)

    def validation() -> str:
        predictions = predict(
            folded,
            recipe,
            shards,
            batch_size=BATCH_SIZE,
            resolutions=[RESOLUTION],
        )
        found = evaluation_of(
            predictions[RESOLUTION],
            split="val",
            resolution=RESOLUTION,
            num_classes=NUM_CLASSES,
        )
        return f"accuracy@1 {found.accuracy_top1:.4f}, loss {found.loss:.4f}"

    return {"validation": validation, "forward": forward(folded, batch)}


def mindcv(root: Path, model: str, batch: int) -> Runs:
    """Validate as MindCV's validate.py does, with its functions."""
    from mindspore import Model, nn

    from tests.peers import mindcv_data, mindcv_module

    data, network = mindcv_data(), peer(model)
    workers = os.cpu_count() or 1
    dataset = data.create_dataset(
        name="", root=str(root / "images"), split="val", num_parallel_workers=workers
    )
    loader = data.create_loader(
        dataset,
        batch,
        drop_remainder=False,
        is_training=False,
        transform=data.create_transforms(
            "", RESOLUTION, is_training=False, interpolation=INTERPOLATION
        ),
        num_parallel_workers=workers,
    )
    # MindCV also leaves out top 5 if there are fewer classes.
    metrics = {"accuracy@1": nn.Top1CategoricalAccuracy(), "loss": nn.Loss()}
    loss = mindcv_module("mindcv.loss").create_loss(name="CE", label_smoothing=0.0)
    whole = Model(network, loss_fn=loss, metrics=metrics)

    def validation() -> str:
        found = whole.eval(loader, dataset_sink_mode=False)
        return f"accuracy@1 {found['accuracy@1']:.4f}, loss {found['loss']:.4f}"

    return {"validation": validation, "forward": forward(network, batch)}


def peer(model: str) -> Any:
    """Return MindCV's network, with the same weights in every process."""
    import mindspore as ms

    from tests.peers import mindcv_model

    ms.set_seed(1)
    return mindcv_model(model, num_classes=NUM_CLASSES).set_train(False)


def forward(network: Any, batch: int) -> Callable[[], str]:
    """Return a function that computes a forward pass of one batch."""
    from mindspore import Tensor

    from tests.bench.bench_model import inputs

    images = Tensor(inputs(batch, RESOLUTION)[0])
    return lambda: str(network(images).asnumpy().shape)


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    result.add_argument("--model", default="skresnet18", help="a network of MindCV's")
    result.add_argument("--images", type=int, default=256)
    result.add_argument(
        "--batch",
        type=int,
        default=64,
        help="MindCV's, and of both forward passes",
    )
    result.add_argument("--rounds", type=int, default=7)
    result.add_argument("--threads", type=int, default=os.cpu_count())
    result.set_defaults(resolution=RESOLUTION, iterations=1)
    return result


if __name__ == "__main__":
    sys.exit(main(parser().parse_args()))
