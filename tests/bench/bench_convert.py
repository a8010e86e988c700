"""Conversion against a bare loop that reads, hashes and writes the same images.

python -m tests.bench.bench_convert

The images are 500 x 375 crops of two photographs as JPEG of quality 95 with 4:2:0 chroma; the
contestants take turns in one run. The processes of our conversion are started and MindSpore is
imported before the clock runs; how long that takes is printed apart. Every contestant syncs what
it wrote to the disk. CPU time is printed too: it says more where others share the machine. Then
the same for images stored smaller, beside a plain loop, and the peak memory of both sides of a
conversion of few and of many samples.
"""

import argparse
import hashlib
import multiprocessing
import multiprocessing.connection
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from PIL import Image

import sknet.data.conversion.converter
from sknet.data.conversion.conversion import write_shards
from sknet.data.conversion.converter import ConvertedShard, reencode, reencoding_to
from sknet.data.conversion.plan import ShardPlan, shard_counts
from sknet.data.sources import open_source
from sknet.data.staging import Staged, stage_source
from tests.bench.conversion_memory import measure_memory, warm_up

SIZE = (500, 375)
QUALITY = 95
NUM_CLASSES = 4
REENCODING = reencoding_to(256, 92)
GOALS = {"1 worker": 0.8, "2 workers": 1.7}


Seconds = tuple[float, float]  # of wall time, and of the CPU


@dataclass
class Measured:
    """One contestant."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def main(arguments: argparse.Namespace) -> None:
    """Measure all of it."""
    os.environ |= {"GLOG_v": "3", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory(dir=arguments.directory) as folder:
        source = write_source(Path(folder) / "images", arguments.images)
        staged = stage_source(open_source(str(source)))
        print_conditions(arguments, staged)
        measure_speed(source, staged, Path(folder), arguments)
    for count in arguments.memory:
        with tempfile.TemporaryDirectory(dir=arguments.directory) as folder:
            measure_memory(count, Path(folder))


def write_source(root: Path, count: int) -> Path:
    """Class folders of `count` training images; a validation split of one per class."""
    from sklearn.datasets import load_sample_image

    numbers = np.random.default_rng(0)
    photographs = [Image.fromarray(load_sample_image(n)) for n in ("china.jpg", "flower.jpg")]
    for split, number in (("train", count), ("val", NUM_CLASSES)):
        for index in range(number):
            folder = root / split / f"class{index % NUM_CLASSES}"
            folder.mkdir(parents=True, exist_ok=True)
            photograph = photographs[index % len(photographs)]
            x = int(numbers.integers(photograph.width - SIZE[0] + 1))
            y = int(numbers.integers(photograph.height - SIZE[1] + 1))
            crop = photograph.crop((x, y, x + SIZE[0], y + SIZE[1]))
            crop.save(folder / f"{index:06}.jpg", quality=QUALITY, subsampling="4:2:0")
    return root


def measure_speed(
    source: Path, staged: Staged, folder: Path, arguments: argparse.Namespace
) -> None:
    """Contestants in turns, then their table and ratios."""
    with Processes(1) as one, Processes(2) as two:
        print(f"start of the processes: {one.seconds:.1f} s for 1, {two.seconds:.1f} s for 2")

        def ours(processes: Processes, **options: object) -> Callable[[Path], Seconds]:
            def convert(out: Path) -> Seconds:
                cpu, begun = processes.cpu_seconds(), time.perf_counter()
                write_shards(
                    *(staged, str(source), out),
                    num_shards=arguments.shards,
                    parallel_map=processes,
                    **options,
                )
                wall = time.perf_counter() - begun
                return wall, processes.cpu_seconds() - cpu

            return convert

        def unchecked(out: Path) -> Seconds:
            with one.unchecked():
                return ours(one)(out)

        contestants = {
            "bare loop": lambda out: bare_loop(source, staged, out, again=False),
            "bare loop, read back and hashed": lambda out: bare_loop(
                source, staged, out, again=True
            ),
            "1 worker": ours(one),
            "1 worker, unchecked": unchecked,
            "2 workers": ours(two),
            "re-encoding, 1 worker": ours(one, reencoding=REENCODING),
            "re-encoding, plain loop": lambda out: plain_reencoding(source, staged, out),
        }
        measured = {name: Measured() for name in contestants}
        for number in range(arguments.rounds):
            turns = list(contestants.items())
            for name, contestant in turns if number % 2 == 0 else reversed(turns):
                out = folder / "out"
                out.mkdir()
                wall, cpu = contestant(out)
                measured[name].wall.append(wall)
                measured[name].cpu.append(cpu)
                shutil.rmtree(out)
                # What one has left to be written is not for the next one to wait for.
                os.sync()
    print_table(measured, len(staged.index))
    for pair in (
        ("1 worker", "bare loop"),
        ("1 worker", "bare loop, read back and hashed"),
        ("1 worker, unchecked", "bare loop"),
        ("2 workers", "1 worker"),
        ("re-encoding, 1 worker", "re-encoding, plain loop"),
    ):
        print_ratio(*pair, measured)


class Processes:
    """Warm processes, as a conversion would have after its start."""

    def __init__(self, count: int) -> None:
        begun = time.perf_counter()
        context = multiprocessing.get_context("spawn")
        self.count = count
        self._pool = ProcessPoolExecutor(count, mp_context=context, initializer=warm_up)
        self.cpu_seconds()
        self.seconds = time.perf_counter() - begun

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def __call__(
        self,
        function: Callable[[ShardPlan], ConvertedShard],
        items: Iterable[ShardPlan],
        *,
        on_tick: Callable[[], None],
    ) -> Iterator[ConvertedShard]:
        del on_tick
        futures = [self._pool.submit(function, item) for item in items]
        for future in as_completed(futures):
            yield future.result()

    def on_each(self, function: Callable[[], float]) -> list[float]:
        """Call a function once in every process; it must take long enough to occupy it."""
        return list(self._pool.map(call_slowly, [function] * self.count))

    def cpu_seconds(self) -> float:
        """Of all processes so far, without the time in which they do nothing."""
        return sum(self.on_each(time.process_time))

    def unchecked(self) -> "Unchecked":
        """A context in which images are stored without a look at them."""
        return Unchecked(self)


@dataclass
class Unchecked:
    """Set and taken back in every process."""

    processes: Processes

    def __enter__(self) -> None:
        self.processes.on_each(skip_check)

    def __exit__(self, *_: object) -> None:
        self.processes.on_each(restore_check)


def accept_unseen(content: bytes) -> None:
    """In the place of the check."""


_check = sknet.data.conversion.converter.undecodable


def skip_check() -> float:
    """In a worker process."""
    sknet.data.conversion.converter.undecodable = accept_unseen
    return 0


def restore_check() -> float:
    """In a worker process."""
    sknet.data.conversion.converter.undecodable = _check
    return 0


def call_slowly(function: Callable[[], float]) -> float:
    """So that each process gets one of as many calls."""
    time.sleep(0.2)
    return function()


def bare_loop(source: Path, staged: Staged, out: Path, *, again: bool) -> Seconds:
    """Read, hash, compare, write; with `again`, hash what was written as well."""
    cpu, begun = time.process_time(), time.perf_counter()
    with (out / "all").open("wb") as file:
        for key, sha256 in zip(staged.index["key"], staged.index["sha256"], strict=True):
            content = (source / key).read_bytes()
            if hashlib.sha256(content).hexdigest() != sha256:
                raise ValueError(key)
            file.write(content)
        file.flush()
        os.fsync(file.fileno())
    if again:
        with (out / "all").open("rb") as file:
            hashlib.file_digest(file, "sha256")
    return time.perf_counter() - begun, time.process_time() - cpu


def plain_reencoding(source: Path, staged: Staged, out: Path) -> Seconds:
    """Nothing but Pillow and a file."""
    cpu, begun = time.process_time(), time.perf_counter()
    with (out / "all").open("wb") as file:
        for key in staged.index["key"]:
            file.write(reencode((source / key).read_bytes(), REENCODING))
        file.flush()
        os.fsync(file.fileno())
    return time.perf_counter() - begun, time.process_time() - cpu


def print_conditions(arguments: argparse.Namespace, staged: Staged) -> None:
    """What the figures depend on."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    size = staged.index["size"]
    num_shards = sum(shard_counts(staged, arguments.shards).values())
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {os.cpu_count()} cores"
    )
    print(
        f"{len(size)} JPEGs of {size.mean() / 1e3:.0f} kB in {num_shards} shards, "
        f"{arguments.rounds} rounds; load before {load}"
    )


def print_table(measured: dict[str, Measured], count: int) -> None:
    """A row for each contestant."""
    print("\n| | images/s | min-max | CPU µs an image |\n|---|---:|---:|---:|")
    for name, one in measured.items():
        rates = sorted(count / seconds for seconds in one.wall)
        cpu = 1e6 * statistics.median(one.cpu) / count
        spread = f"{rates[0]:.0f}-{rates[-1]:.0f}"
        print(f"| {name} | {statistics.median(rates):.0f} | {spread} | {cpu:.0f} |")


def print_ratio(ours: str, theirs: str, measured: dict[str, Measured]) -> None:
    """How many times as fast, formed within each round; and by CPU time."""
    pairs = list(zip(measured[theirs].wall, measured[ours].wall, strict=True))
    ratios = sorted(other / mine for other, mine in pairs)
    cpu = statistics.median(measured[theirs].cpu) / statistics.median(measured[ours].cpu)
    goal = f"; goal {GOALS[ours]}x" if ours in GOALS and theirs in ("bare loop", "1 worker") else ""
    print(
        f"{ours}: {statistics.median(ratios):.2f}x {theirs} "
        f"({ratios[0]:.2f}-{ratios[-1]:.2f}{goal}), by CPU time {cpu:.2f}x"
    )


def parser() -> argparse.ArgumentParser:
    """The options."""
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    result.add_argument("--images", type=int, default=4000)
    result.add_argument("--shards", type=int, default=4, help="of each split")
    result.add_argument("--rounds", type=int, default=5)
    result.add_argument("--memory", type=int, nargs="*", default=[10_000, 1_000_000])
    result.add_argument("--directory", type=Path, help="on the disk that is to be measured")
    return result


if __name__ == "__main__":
    sys.exit(main(parser().parse_args()))
