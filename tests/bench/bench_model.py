"""A training step and an evaluation forward against MindCV and timm, in one run.

python -m tests.bench.bench_model [--models skresnet18 skresnet50] [--rounds 7]

Every contestant runs in its own process. They take turns, in reversed order every other round, so
that all meet the same noise; ratios are computed within each round. Prints a Markdown table for
each model and the ratios; it checks no limits. Other work on the machine slows eager torch more
than compiled graphs: the load is printed, and above 1 the ratios to timm flatter us.

All MindSpore contestants are limited to AVX2 (`sknet.world` says why); torch chooses for itself.
MindCV's network runs in the same step as ours, timm's in torch's usual eager loop.
"""

import argparse
import importlib.metadata
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any

import numpy as np

CONTESTANTS = {
    "step": ("ours", "MindCV", "timm"),
    "forward": ("ours", "MindCV", "timm", "timm folded"),
}
# What each ratio should reach.
GOALS = {"step": {"MindCV": 1.5, "timm": 1.0}, "forward": {"MindCV": 2.0, "timm": 1.0}}
NUM_CLASSES = 1000
LR, MOMENTUM, WEIGHT_DECAY, LABEL_SMOOTHING = 0.1, 0.9, 4e-5, 0.1


@dataclass
class Measured:
    """The measurements of one contestant in one mode, in seconds."""

    first: float
    """Duration of the first call, which compiles a graph."""
    peak_mib: float = 0.0
    rounds: list[float] = field(default_factory=list)


def main(arguments: argparse.Namespace) -> None:
    """Measure one model after the other."""
    print_conditions(arguments)
    for model in arguments.models:
        results = {mode: measure(model, mode, arguments) for mode in CONTESTANTS}
        print_table(model, results, arguments.batch)
        for mode, measured in results.items():
            print_ratios(mode, measured)
        if arguments.cache:
            print_cache(model, arguments)


def measure(model: str, mode: str, arguments: argparse.Namespace) -> dict[str, Measured]:
    """Measure all contestants in one mode, taking turns."""
    options = (model, mode, arguments.batch, arguments.resolution, arguments.threads)
    measured = {}
    with children({name: (name, *options) for name in CONTESTANTS[mode]}) as pipes:
        for name, pipe in pipes.items():
            measured[name] = Measured(first=pipe.recv())
        for number in range(arguments.rounds):
            turns = list(pipes.items())
            for name, pipe in turns if number % 2 == 0 else reversed(turns):
                pipe.send(arguments.iterations)
                measured[name].rounds.append(pipe.recv())
        for name, pipe in pipes.items():
            pipe.send(0)
            measured[name].peak_mib = pipe.recv()
    return measured


@contextmanager
def children(
    options: dict[str, tuple[Any, ...]], run: Callable[..., None] | None = None
) -> Iterator[dict[str, Connection]]:
    """Processes of the contestants, started one after the other; yields a pipe to each.

    Each process calls `run`, or else `contestant`, with its end of the pipe and its options.
    Reading from the pipe of a process that failed raises EOFError.
    """
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for name, option in options.items():
        pipes[name], theirs = context.Pipe()
        process = context.Process(target=run or contestant, args=(theirs, *option), daemon=True)
        process.start()
        # Otherwise reading would not notice the end of the process.
        theirs.close()
        processes.append(process)
        # It is warm before the next one starts.
        pipes[name].poll(None)
    yield pipes
    for process in processes:
        process.join(timeout=30)


def contestant(
    pipe: Connection, name: str, model: str, mode: str, batch: int, resolution: int, threads: int
) -> None:
    """Warm up; then answer each number of iterations with the median seconds of one."""
    os.environ |= {"OMP_NUM_THREADS": str(threads), "GLOG_v": "3"}
    run = contender(name, model, mode, *inputs(batch, resolution), threads)
    began = time.perf_counter()
    run()
    first = time.perf_counter() - began
    run()
    pipe.send(first)
    while iterations := pipe.recv():
        pipe.send(statistics.median(seconds(run) for _ in range(iterations)))
    pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    # MindSpore's threads sometimes keep an interpreter from ending.
    os._exit(0)


def seconds(run: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def inputs(batch: int, resolution: int) -> tuple[Any, Any]:
    """Return images (N, 3, R, R) float32 and labels (N,) int32."""
    numbers = np.random.default_rng(0)
    images = numbers.standard_normal((batch, 3, resolution, resolution)).astype(np.float32)
    return images, numbers.integers(0, NUM_CLASSES, batch).astype(np.int32)


def contender(
    name: str, model: str, mode: str, images: Any, labels: Any, threads: int
) -> Callable[[], object]:
    """Return a function that does one step or forward pass of the contestant."""
    if name.startswith("timm"):
        return timm(model, mode, images, labels, threads, folded=name == "timm folded")
    from sknet.models import create_model, fold
    from sknet.world import set_device
    from tests.peers import mindcv_model

    set_device("CPU")
    if name == "MindCV":
        peer = mindcv_model(model)
        return in_mindspore(trainable(peer) if mode == "step" else peer, mode, images, labels)
    network = create_model(model)
    return in_mindspore(network if mode == "step" else fold(network), mode, images, labels)


def trainable(network: Any) -> Any:
    """MindCV's network with the interface of ours, which takes factors of stochastic depth."""
    from mindspore import nn

    class WithoutStochasticDepth(nn.Cell):
        def __init__(self) -> None:
            super().__init__(auto_prefix=False)
            self.network = network
            self.architecture = SimpleNamespace(depths=())

        def construct(self, images: Any, factors: Any) -> Any:  # noqa: ARG002 (as ours has them)
            return self.network(images)

    return WithoutStochasticDepth()


def in_mindspore(network: Any, mode: str, images: Any, labels: Any) -> Callable[[], object]:
    """Return the training step, which is the same for both MindSpore contestants."""
    from mindspore import Tensor

    from sknet.recipe import Recipe
    from sknet.training.inputs import InputMaker
    from sknet.training.step import TrainStep
    from sknet.world import ALONE

    if mode == "forward":
        network.set_train(False)
        x = Tensor(images)
        return lambda: network(x).asnumpy()
    recipe = Recipe(
        model="skresnet18",
        epoch_size=1,
        global_batch_size=len(images),
        lr=LR,
        momentum=MOMENTUM,
        weight_decay=WEIGHT_DECAY,
        weight_decay_filter="disable",
        label_smoothing=LABEL_SMOOTHING,
    )
    step = TrainStep(network, recipe, [LR] * 10_000)
    step.set_train(True)
    inputs = InputMaker(network, recipe, ALONE)((images, labels), 0)
    return lambda: step(inputs).asnumpy()


def timm(
    model: str, mode: str, images: Any, labels: Any, threads: int, *, folded: bool
) -> Callable[[], object]:
    """Return timm's eager step; channels_last and fused SGD made no difference."""
    import torch

    from tests.peers import fold_timm, timm_model

    torch.set_num_threads(threads)
    network = fold_timm(timm_model(model)) if folded else timm_model(model)
    x, y = torch.from_numpy(images), torch.from_numpy(labels).long()
    if mode == "forward":
        network.eval()

        def forward() -> object:
            with torch.inference_mode():
                return network(x).numpy()

        return forward
    network.train()
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=LABEL_SMOOTHING)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )

    def step() -> object:
        optimizer.zero_grad()
        loss = criterion(network(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def print_conditions(arguments: argparse.Namespace) -> None:
    """Print the conditions on which the figures depend."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    packages = ("mindspore", "mindcv", "torch", "timm")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    print(f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {versions}")
    print(
        f"{os.cpu_count()} cores, {arguments.threads} threads, batch {arguments.batch}, "
        f"{arguments.resolution}x{arguments.resolution}, fp32, {arguments.rounds} rounds of "
        f"{arguments.iterations}; load before {load}"
    )


def print_table(model: str, results: dict[str, dict[str, Measured]], batch: int) -> None:
    """Print a table with a row for each contestant and mode."""
    print(f"\n| {model} | | median ms | min-max | images/s | peak MiB | first call s |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for mode, measured in results.items():
        for name, one in measured.items():
            median = statistics.median(one.rounds)
            print(
                f"| {mode} | {name} | {1e3 * median:.0f} | "
                f"{1e3 * min(one.rounds):.0f}-{1e3 * max(one.rounds):.0f} | {batch / median:.1f} | "
                f"{one.peak_mib:.0f} | {one.first:.1f} |"
            )


def print_ratios(mode: str, measured: dict[str, Measured]) -> None:
    """Print how many times as fast ours is, computed within each round."""
    for name in CONTESTANTS[mode][1:]:
        pairs = zip(measured[name].rounds, measured["ours"].rounds, strict=True)
        ratios = sorted(theirs / mine for theirs, mine in pairs)
        goal = f"; goal {GOALS[mode][name]}x" if name in GOALS[mode] else ""
        print(
            f"{mode}: {statistics.median(ratios):.2f}x {name} "
            f"({ratios[0]:.2f}-{ratios[-1]:.2f}{goal})"
        )


def print_cache(model: str, arguments: argparse.Namespace) -> None:
    """Print the time of our first step without MindSpore's compile cache, filling and using it."""
    options = ("ours", model, "step", arguments.batch, arguments.resolution, arguments.threads)
    firsts = []
    with tempfile.TemporaryDirectory() as folder:
        for enabled in ("0", "1", "1"):
            os.environ |= {"MS_COMPILER_CACHE_ENABLE": enabled, "MS_COMPILER_CACHE_PATH": folder}
            with children({"ours": options}) as pipes:
                firsts.append(pipes["ours"].recv())
                pipes["ours"].send(0)
    del os.environ["MS_COMPILER_CACHE_ENABLE"], os.environ["MS_COMPILER_CACHE_PATH"]
    print(
        "first call: {:.1f} s; filling the compile cache {:.1f} s, from it {:.1f} s".format(*firsts)
    )


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    result.add_argument("--models", nargs="+", default=["skresnet18", "skresnet50"])
    result.add_argument("--batch", type=int, default=16)
    result.add_argument("--resolution", type=int, default=224)
    result.add_argument("--rounds", type=int, default=7)
    result.add_argument("--iterations", type=int, default=3, help="calls in one turn (default 3)")
    result.add_argument("--threads", type=int, default=os.cpu_count())
    result.add_argument("--cache", action="store_true", help="measure the compile cache too")
    return result


if __name__ == "__main__":
    sys.exit(main(parser().parse_args()))
