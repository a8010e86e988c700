"""Conversion against a bare loop that reads, hashes and writes the same images.

python -m tests.bench.bench_convert

The images are 500 x 375 crops of two photographs as JPEG of quality 95 with 4:2:0 chroma. The
contestants take turns in one run. Our worker processes start and import MindSpore before the clock
runs; that time is printed separately. Every contestant syncs its files to the disk. CPU time is
printed too, because it says more on a shared machine. Then the same is measured for re-encoded
images, against a plain loop, and the peak memory of parent and worker for few and many samples.
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
    """The measurements of one contestant."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def main(arguments: argparse.Namespace) -> None:
    """Measure both conversions, then memory."""
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
    """Write class folders of `count` training images and one validation image per class."""
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
    """Let the contestants take turns, then print their table and ratios."""
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
                # Otherwise the next contestant would wait for what this one has left to write.
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
    """Worker processes that have imported everything, as in a conversion after its start."""

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
        """Call a function once in every process; it must occupy the process long enough."""
        return list(self._pool.map(call_slowly, [function] * self.count))

    def cpu_seconds(self) -> float:
        """Return the CPU seconds of all processes so far."""
        return sum(self.on_each(time.process_time))

    def unchecked(self) -> "Unchecked":
        """A context in which images are stored without being checked."""
        return Unchecked(self)


@dataclass
class Unchecked:
    """Switch the check off in every process, and on again."""

    processes: Processes

    def __enter__(self) -> None:
        self.processes.on_each(skip_check)

    def __exit__(self, *_: object) -> None:
        self.processes.on_each(restore_check)


def accept_unseen(content: bytes) -> None:
    """Accept every image; replaces the check."""


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
    """Occupy a process, so that each one gets one call of as many as there are processes."""
    time.sleep(0.2)
    return function()


def bare_loop(source: Path, staged: Staged, out: Path, *, again: bool) -> Seconds:
    """Read, hash, compare and write; with `again`, also hash the written files."""
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
    """Re-encode with Pillow and write to a plain file."""
    cpu, begun = time.process_time(), time.perf_counter()
    with (out / "all").open("wb") as file:
        for key in staged.index["key"]:
            file.write(reencode((source / key).read_bytes(), REENCODING))
        file.flush()
        os.fsync(file.fileno())
    return time.perf_counter() - begun, time.process_time() - cpu


def print_conditions(arguments: argparse.Namespace, staged: Staged) -> None:
    """Print the conditions on which the figures depend."""
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
    """Print a table with a row for each contestant."""
    print("\n| | images/s | min-max | CPU µs an image |\n|---|---:|---:|---:|")
    for name, one in measured.items():
        rates = sorted(count / seconds for seconds in one.wall)
        cpu = 1e6 * statistics.median(one.cpu) / count
        spread = f"{rates[0]:.0f}-{rates[-1]:.0f}"
        print(f"| {name} | {statistics.median(rates):.0f} | {spread} | {cpu:.0f} |")


def print_ratio(ours: str, theirs: str, measured: dict[str, Measured]) -> None:
    """Print ratios of speed, computed within each round, by wall and by CPU time."""
    pairs = list(zip(measured[theirs].wall, measured[ours].wall, strict=True))
    ratios = sorted(other / mine for other, mine in pairs)
    cpu = statistics.median(measured[theirs].cpu) / statistics.median(measured[ours].cpu)
    goal = f"; goal {GOALS[ours]}x" if ours in GOALS and theirs in ("bare loop", "1 worker") else ""
    print(
        f"{ours}: {statistics.median(ratios):.2f}x {theirs} "
        f"({ratios[0]:.2f}-{ratios[-1]:.2f}{goal}), by CPU time {cpu:.2f}x"
    )


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    result.add_argument("--images", type=int, default=4000)
    result.add_argument("--shards", type=int, default=4, help="shards per split (default 4)")
    result.add_argument("--rounds", type=int, default=5)
    result.add_argument("--memory", type=int, nargs="*", default=[10_000, 1_000_000])
    result.add_argument("--directory", type=Path, help="directory on the disk to measure")
    return result


if __name__ == "__main__":
    sys.exit(main(parser().parse_args()))
