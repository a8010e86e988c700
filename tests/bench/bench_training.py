"""What the training loop costs beside its steps, and how it compares with MindCV's own.

python -m tests.bench.bench_training [--images 600] [--batch 16] [--rounds 5] [--parts loop peer …]

| part | what is measured |
|---|---|
| loop | a step within our loop, against the bare step; from one batch in memory |
| checkpoint | how long training stands still for a checkpoint, against writing it then and there |
| resume | from SIGKILL to the first new step: detect, start, data, compile, first step |
| ranks | images/s of 1 and 2 ranks, each with one thread |
| peer | an epoch (train, evaluate, save) of ours from shards and of MindCV's `Model.train` with its
  `StateMonitor`, as its train.py calls them, from the same images in folders |

`resume` starts twice, with an empty and with a filled cache of compiled graphs. Contestants take
turns in an order that turns round with every round; a ratio is formed within each round. Prints
Markdown tables and promises nothing.
"""

import argparse
import itertools
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import psutil

from tests.bench.bench_input import Data, print_conditions

# Read when MindSpore is imported.
os.environ.setdefault("GLOG_v", "3")
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")

MODEL = "skresnet18"
NUM_CLASSES = 4
PARTS = ("loop", "checkpoint", "resume", "ranks", "peer")
ROOT = Path(__file__).parents[2]


def main(arguments: argparse.Namespace) -> None:
    """Measure the parts that are asked for."""
    print_conditions(arguments)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), arguments)
        for part in arguments.parts:
            getattr(bench, f"measure_{part}")()


class Bench:
    """Images, their shards, and a recipe for all parts."""

    def __init__(self, root: Path, arguments: argparse.Namespace) -> None:
        self.root, self.options = root, arguments
        self.data = Data(root / "data", arguments.images)
        self.shards, self.shards_dir = self.data.shards["ours"]
        self.keys = {
            "model": MODEL,
            "image_resize": arguments.resolution,
            "global_batch_size": arguments.batch,
            "color_jitter": None,
            "epoch_size": 1,
            "lr": 0.05,
            "log_interval": 1 << 20,
            "num_parallel_workers": 2,
        }
        self._attempt = itertools.count()

    def measure_loop(self) -> None:
        """Ours and the bare step take turns on one compiled step."""
        import mindspore as ms
        from mindspore import Tensor

        from sknet.training import loop

        training = InProcess(self, epoch_size=1)
        batch = training.batch()
        images, labels = (Tensor(array) for array in batch)
        count = self.options.steps
        training.run_for(count)

        def bare() -> list[float]:
            training.reset()
            training.network.step_cell.set_train(True)
            times = [time.perf_counter()]
            for _ in range(count):
                float(training.network.step_cell(images, labels).asnumpy())
                times.append(time.perf_counter())
            return list(np.diff(times))

        def ours() -> list[float]:
            times: list[float] = []
            training.reset()
            with mock.patch.object(loop, "batches_of", lambda *_: itertools.repeat(batch)):
                training.train(on_step=lambda: times.append(time.perf_counter()))
            return list(np.diff(times))

        assert ms.get_context("mode") == ms.GRAPH_MODE
        print_ratio(
            "loop: ms a step",
            take_turns({"ours": ours, "the bare step": bare}, self.options.rounds),
            "goal at most 1.02",
        )

    def measure_checkpoint(self) -> None:
        """The longest stall that a save causes, and the share of a training with many."""
        from sknet.training import checkpoint

        training = InProcess(self, epoch_size=1, checkpoint_every_steps=self.options.interval)
        training.run_for(training.run.total_steps)
        rows = []
        for _ in range(self.options.rounds):
            training.reset()
            began = time.perf_counter()
            directory = training.train()
            seconds = time.perf_counter() - began
            end = lines_of(directory)[-1]
            saves = training.run.total_steps // self.options.interval
            snapshot = checkpoint.Snapshot(checkpoint.parameters_of(training.network.step_cell))
            state = checkpoint.read_state(checkpoint.list_checkpoints(directory)[-1])
            began = time.perf_counter()
            checkpoint.write(snapshot, self.root / "written", state)
            written = time.perf_counter() - began
            stalled = end["checkpoint_seconds"]
            rows.append((1000 * stalled / saves, 1000 * written, stalled / seconds))
        stall, write, share = (statistics.median(column) for column in zip(*rows, strict=True))
        print("\n| a checkpoint | ms |\n|---|---:|")
        print(f"| training stands still | {stall:.1f} |\n| written then and there | {write:.1f} |")
        print(
            f"checkpoint: {share:.2%} of the time with one every {self.options.interval} steps "
            "(goal at most 1 %)"
        )

    def measure_resume(self) -> None:
        """Killed as soon as the first checkpoint is there."""
        rows: dict[str, dict[str, float]] = {}
        for cached in ("empty", "filled"):
            keep = self.root / "cache" if cached == "filled" else None
            directory = self.root / f"killed-{cached}"
            kill = Kill(directory)
            if keep:
                self.program(self.root / "filling", cache=keep)
            self.program(directory, on_line=kill, checkpoint_every_steps=1, cache=keep)
            ended = time.time()
            before = len(lines_of(directory))
            first: list[float] = []
            started = time.time()
            self.program(directory, on_line=note_step(first), checkpoint_every_steps=1, cache=keep)
            lines = lines_of(directory)[before:]
            compiled = next(line for line in lines if line["type"] == "compile")
            row = {
                "detect": ended - kill.at,
                "data": compiled["first_batch_seconds"],
                "compile and first step": compiled["compile_seconds"],
            }
            row["start"] = first[0] - started - sum(list(row.values())[1:])
            rows[cached] = row | {"all": row["detect"] + first[0] - started}
        names = ("detect", "start", "data", "compile and first step", "all")
        print(f"\n| from SIGKILL to the first new step, s | {' | '.join(names)} |")
        print("|---|" + "---:|" * len(names))
        for cached, row in rows.items():
            print(f"| cache {cached} | {' | '.join(f'{row[name]:.1f}' for name in names)} |")
        name = "compile and first step"
        print(
            f"resume: the cached graph takes {rows['filled'][name] / rows['empty'][name]:.0%} of "
            "the first compile (goal at most 30 %)"
        )

    def measure_ranks(self) -> None:
        """Images per second of whole jobs, as their metrics say, the first step apart."""

        def job(workers: int) -> Callable[[], list[float]]:
            def run() -> list[float]:
                directory = self.root / f"ranks-{next(self._attempt)}"
                self.program(directory, workers=workers, cache=self.root / "cache")
                return [1 / lines_of(directory)[-1]["images_per_second"]]

            return run

        rates = take_turns({"2 ranks": job(2), "1 rank": job(1)}, self.options.rounds)
        print_ratio("ranks: ms an image", rates, "0.5 would be perfect")

    def measure_peer(self) -> None:
        """An epoch of each, on one compiled step."""
        ours = InProcess(self, epoch_size=1)
        peer = MindCV(self)
        contestants = {"MindCV": peer.epoch, "ours": ours.epoch}
        print_ratio(
            "peer: s an epoch",
            take_turns(contestants, self.options.rounds, warm_up=True),
            "goal at least 1.5",
            unit=1.0,
        )

    def program(
        self,
        directory: Path,
        *,
        workers: int = 1,
        on_line: Callable[[str], None] = lambda _line: None,
        cache: Path | None = None,
        **changes: Any,
    ) -> None:
        """The training program as a job, each rank with one thread; an empty cache if None."""
        from infra.launch import Job, run

        attempt = self.root / f"attempt-{next(self._attempt)}"
        attempt.mkdir()
        recipe = attempt / "recipe.yaml"
        # JSON is YAML.
        recipe.write_text(json.dumps(self.keys | {"log_interval": 1} | changes))
        job = Job(
            program=ROOT / "sknet/train.py",
            args=(
                *("--config", str(recipe), "--data_dir", str(self.shards_dir)),
                *("--ckpt_save_dir", str(directory)),
                *("--outcome_file", str(attempt / "outcome.json")),
            ),
            workers=workers,
            log_dir=attempt / "logs",
            outcome_file=attempt / "outcome.json",
            cwd=attempt,
            env={
                "PYTHONPATH": str(ROOT),
                "OMP_NUM_THREADS": "1",
                "SKNET_CACHE": str(cache or attempt / "cache"),
            },
            deadline=None,
            silence=None,
        )
        run(job, on_line=on_line)


class InProcess:
    """Our loop over one step that is compiled once."""

    def __init__(self, bench: Bench, **changes: Any) -> None:
        from sknet.models import create_model
        from sknet.recipe import parse_recipe
        from sknet.training.checkpoint import parameters_of
        from sknet.training.device import World, set_device
        from sknet.training.loop import Network
        from sknet.training.planning import plan_run
        from sknet.training.schedule import learning_rates
        from sknet.training.step import TrainStep

        set_device("CPU")
        recipe = parse_recipe(bench.keys | changes, where="bench")
        self._bench, self._world = bench, World(0, 1)
        self.run = plan_run(recipe, bench.shards, 1, "CPU")
        model = create_model(MODEL, num_classes=NUM_CLASSES)
        rates = learning_rates(self.run)
        self.network = Network(model, TrainStep(model, recipe, rates, 1), rates)
        self._fresh = parameters_of(self.network.step_cell)

    def reset(self) -> None:
        """To the state before the first step, the counter of steps included."""
        from mindspore import Tensor

        for parameter in self.network.step_cell.get_parameters():
            parameter.set_data(Tensor(self._fresh[parameter.name]))

    def batch(self) -> Any:
        """The first one."""
        from sknet.data.segments import batches_of, segments_from

        bench = self._bench
        place = (self.run, bench.shards, bench.shards_dir, 0, 1)
        return next(iter(batches_of(segments_from(self.run, 0), *place)))

    def run_for(self, count: int) -> None:
        """Compile, and check that there are as many steps to measure."""
        if self.run.total_steps < count:
            raise SystemExit(f"{self.run.total_steps} steps are too few: give more --images")
        self.train()

    def epoch(self) -> list[float]:
        """Seconds of one, its evaluation and its checkpoint included."""
        self.reset()
        began = time.perf_counter()
        self.train()
        return [time.perf_counter() - began]

    def train(self, on_step: Callable[[], None] = lambda: None) -> Path:
        """All steps, into a new directory, which is returned."""
        from sknet.training.loop import Loop
        from sknet.training.metrics import MetricsLog
        from sknet.training.planning import with_layout
        from sknet.training.progress import Progress
        from sknet.training.saver import Saver
        from sknet.training.stopping import StopRequest
        from sknet.training.watchdog import Watchdog

        class Observed(Progress):
            def step_done(self, step: int, loss: float, *, wait: float, compute: float) -> None:
                super().step_done(step, loss, wait=wait, compute=compute)
                on_step()

        bench = self._bench
        directory = Path(tempfile.mkdtemp(dir=bench.root))
        log = MetricsLog(directory / "metrics.jsonl", 0, quiet)
        watchdog = Watchdog()
        with Saver(directory, 2, quiet) as saver:
            Loop(
                self.run,
                bench.shards,
                bench.shards_dir,
                self._world,
                network=self.network,
                layouts=with_layout((), 0, 1),
                evaluations=(),
                progress=Observed(self.run, self.network.rates, 0, log, quiet),
                saver=saver,
                watchdog=watchdog,
                stop=StopRequest(),
                say=quiet,
            ).train(0)
        watchdog.end()
        log.close()
        return directory


class MindCV:
    """Its network, loss, optimizer, loader, Model and StateMonitor, as in its train.py."""

    def __init__(self, bench: Bench) -> None:
        from mindspore import nn

        from tests.peers import mindcv_data, mindcv_model, mindcv_module

        data, self._utils = mindcv_data(), mindcv_module("mindcv.utils")
        loss = mindcv_module("mindcv.loss").create_loss("CE")
        options = bench.options
        self._loaders = {}
        for split in ("train", "val"):
            training = split == "train"
            dataset = data.create_dataset(
                name="",
                root=str(bench.data.folders),
                split=split,
                shuffle=training,
                num_parallel_workers=2,
            )
            transforms = data.create_transforms("", options.resolution, is_training=training)
            self._loaders[split] = data.create_loader(
                dataset,
                options.batch,
                drop_remainder=training,
                is_training=training,
                num_classes=NUM_CLASSES,
                transform=transforms,
                num_parallel_workers=2,
            )
        network = mindcv_model(MODEL, num_classes=NUM_CLASSES)
        optimizer = mindcv_module("mindcv.optim").create_optimizer(
            network.trainable_params(), opt="momentum", lr=0.05, momentum=0.9, weight_decay=0.0
        )
        self._model = self._utils.create_trainer(
            network, loss, optimizer, {"acc": nn.Accuracy()}, "O0", None, "fixed"
        )
        self._directory = bench.root / "mindcv"

    def epoch(self) -> list[float]:
        """Seconds of one, its evaluation and its checkpoint included."""
        monitor = self._utils.StateMonitor(
            self._model,
            model_name=MODEL,
            dataset_sink_mode=False,
            dataset_val=self._loaders["val"],
            metric_name=["acc"],
            ckpt_save_dir=str(self._directory),
            summary_dir=str(self._directory),
            rank_id=0,
            device_num=1,
        )
        began = time.perf_counter()
        self._model.train(1, self._loaders["train"], callbacks=[monitor], dataset_sink_mode=False)
        return [time.perf_counter() - began]


class Kill:
    """SIGKILL to the training below this process once there is a checkpoint."""

    def __init__(self, directory: Path) -> None:
        self._directory, self.at = directory, 0.0

    def __call__(self, _line: str) -> None:
        """At a line of the job."""
        if self.at or not list(self._directory.glob("step-*")):
            return
        for process in psutil.Process().children(recursive=True):
            if any("train.py" in word for word in process.cmdline()) and not process.children():
                self.at = time.time()
                process.send_signal(signal.SIGKILL)


def note_step(times: list[float]) -> Callable[[str], None]:
    """Takes the time of lines that tell of a step."""

    def note(line: str) -> None:
        if " step " in line and " loss " in line:
            times.append(time.time())

    return note


def quiet(_line: str) -> None:
    """Nothing is said."""


def lines_of(directory: Path) -> list[dict[str, Any]]:
    """Of metrics.jsonl."""
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def take_turns(
    contestants: dict[str, Callable[[], list[float]]], rounds: int, *, warm_up: bool = False
) -> dict[str, list[float]]:
    """The median of what each one returns, in every round."""
    with quiet_stdout():
        if warm_up:
            for contestant in contestants.values():
                contestant()
        medians: dict[str, list[float]] = {name: [] for name in contestants}
        for number in range(rounds):
            turns = list(contestants.items())
            for name, contestant in turns if number % 2 == 0 else reversed(turns):
                medians[name].append(statistics.median(contestant()))
    return medians


@contextmanager
def quiet_stdout() -> Iterator[None]:
    """MindCV's callbacks print."""
    with Path(os.devnull).open("w") as nowhere, mock.patch.object(sys, "stdout", nowhere):
        yield


def print_ratio(
    what: str, medians: dict[str, list[float]], goal: str, *, unit: float = 1000.0
) -> None:
    """A row for each contestant, then the first as a multiple of the second."""
    print(f"\n| {what} | median | min-max |\n|---|---:|---:|")
    for name, values in medians.items():
        low, middle, high = (unit * f(values) for f in (min, statistics.median, max))
        print(f"| {name} | {middle:.1f} | {low:.1f}-{high:.1f} |")
    first, second = medians
    ratios = sorted(a / b for a, b in zip(medians[first], medians[second], strict=True))
    print(
        f"{what.split(':')[0]}: {first} takes {statistics.median(ratios):.3f} times as long as "
        f"{second} ({ratios[0]:.3f}-{ratios[-1]:.3f}; {goal})"
    )


def parser() -> argparse.ArgumentParser:
    """The options."""
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    result.add_argument("--images", type=int, default=600)
    result.add_argument("--batch", type=int, default=16)
    result.add_argument("--resolution", type=int, default=224)
    result.add_argument("--rounds", type=int, default=5)
    result.add_argument("--steps", type=int, default=20, help="of a round of the part loop")
    result.add_argument("--interval", type=int, default=10, help="steps between checkpoints")
    result.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    return result


if __name__ == "__main__":
    sys.exit(main(parser().parse_args()))
