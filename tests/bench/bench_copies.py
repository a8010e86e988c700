"""Copies: how many are found, how many pairs are wrong, and what the search costs.

python -m tests.bench.bench_copies

Tiles of three photographs, without overlap, are joined by a copy of each, of one kind after the
other. A kind's recall is the share of copies that are in one group with their original; false pairs
are those of other images within a group. Then staging and converting photographs is timed with and
without fingerprints, and random fingerprints, of which a hundredth has a planted copy, are matched
in a process of its own.
"""

import argparse
import hashlib
import io
import itertools
import multiprocessing
import multiprocessing.connection
import os
import platform
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import PIL.Image
from PIL.Image import Image, Resampling, Transpose

import sknet.data.sources.source
from sknet.data.conversion.conversion import write_shards
from sknet.data.copies.fingerprint import FINGERPRINT, fingerprint
from sknet.data.copies.matching import find_copies
from sknet.data.sources import open_source
from sknet.data.staging import Staged, stage_source
from tests.bench.bench_convert import REENCODING, write_source
from tests.bench.conversion_memory import warm_up
from tests.photographs import encoded, photographs, tiles
from tests.sknet.conversions import in_this_process


def main(arguments: argparse.Namespace) -> None:
    """Measure recall, time and size in turn."""
    os.environ |= {"GLOG_v": "3", "OMP_NUM_THREADS": "1"}
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, "
        f"Pillow {PIL.__version__}, {os.cpu_count()} cores"
    )
    measure_recall(arguments.sides)
    with tempfile.TemporaryDirectory() as folder:
        measure_time(arguments.images, Path(folder))
    for count in arguments.synthetic:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=measure_size, args=(theirs, count))
        process.start()
        print(ours.recv())
        process.join()


def scaled(image: Image, factor: float, how: Resampling = Resampling.LANCZOS) -> Image:
    """Return the image with sides of `factor` times the length."""
    return image.resize((round(image.width * factor), round(image.height * factor)), how)


def cropped(image: Image, *cuts: float) -> Image:
    """Return the image without these fractions at the left, top, right and bottom."""
    left, top, right, bottom = cuts
    width, height = image.size
    return image.crop(
        (
            round(width * left),
            round(height * top),
            width - round(width * right),
            height - round(height * bottom),
        )
    )


def in_format(image: Image, kind: str) -> bytes:
    """Return the image as a file of another format."""
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def flipped(image: Image) -> Image:
    """Return the image as a mirror shows it."""
    return image.transpose(Transpose.FLIP_LEFT_RIGHT)


KINDS: dict[str, Callable[[Image], bytes]] = {
    "re-encoded, quality 75": lambda image: encoded(image, 75),
    "re-encoded, quality 50": lambda image: encoded(image, 50),
    "re-encoded, quality 30": lambda image: encoded(image, 30),
    "re-encoded as PNG": lambda image: in_format(image, "PNG"),
    "resized to 50 %": lambda image: encoded(scaled(image, 0.5), 90),
    "resized to 75 %, bicubic": lambda image: encoded(scaled(image, 0.75, Resampling.BICUBIC), 75),
    "resized to 130 %, bilinear": lambda image: encoded(
        scaled(image, 1.3, Resampling.BILINEAR), 90
    ),
    "resized to 200 %": lambda image: encoded(scaled(image, 2), 90),
    "squeezed to a square of 50": lambda image: encoded(image.resize((50, 50)), 85),
    "flipped": lambda image: encoded(flipped(image), 90),
    "flipped and resized to 50 %": lambda image: encoded(scaled(flipped(image), 0.5), 90),
    "cropped by 5 %, 2.5 % at each edge": lambda image: encoded(
        cropped(image, 0.025, 0.025, 0.025, 0.025)
    ),
    "cropped by 5 % at two edges": lambda image: encoded(cropped(image, 0.05, 0.05, 0, 0)),
    "cropped by 10 %, 5 % at each edge": lambda image: encoded(
        cropped(image, 0.05, 0.05, 0.05, 0.05)
    ),
    "brighter by 10 %": lambda image: encoded(
        image.point(lambda level: min(255, level * 11 // 10))
    ),
    "made grey": lambda image: encoded(image.convert("L")),
    "turned upside down": lambda image: encoded(image.transpose(Transpose.FLIP_TOP_BOTTOM)),
}


def measure_recall(sides: Sequence[int]) -> None:
    """Print a table of recall and false pairs, over tiles of several sides, in pixels."""
    sets = [
        [tile for photograph in photographs().values() for tile in tiles(photograph, side)]
        for side in sides
    ]
    print(f"\n{' + '.join(str(len(each)) for each in sets)} tiles of {sides} pixels\n")
    print("| copy | recall | false pairs | of pairs |\n|---|---:|---:|---:|")
    for kind, make in KINDS.items():
        found, false, pairs = 0, 0, 0
        for originals in sets:
            number = len(originals)
            contents = [encoded(each) for each in originals] + [make(each) for each in originals]
            digests = [hashlib.sha256(each).hexdigest() for each in contents]
            groups = find_copies(digests, [fingerprint(each) for each in contents]).groups
            for one, other in itertools.chain.from_iterable(
                itertools.combinations(group, 2) for group in groups
            ):
                is_copy = other == one + number
                found += is_copy
                # A copy of another image's copy is one mistake, which counts four times.
                false += one % number != other % number
            pairs += 2 * number * (2 * number - 1) // 2
        recall = found / sum(len(each) for each in sets)
        print(f"| {kind} | {recall:.1%} | {false} | {pairs} |")


def measure_time(count: int, folder: Path) -> None:
    """Print what fingerprints and matching take of the CPU time of staging and conversion."""
    source = str(write_source(folder / "images", count))
    warm_up()
    stage_source(open_source(source))

    def staged(**options: object) -> tuple[Staged, float]:
        began = time.process_time()
        result = stage_source(open_source(source), **options)
        return result, time.process_time() - began

    def converted(data: Staged, **options: object) -> float:
        out = folder / "out"
        out.mkdir()
        began = time.process_time()
        write_shards(data, source, out, num_shards=4, parallel_map=in_this_process, **options)
        seconds = time.process_time() - began
        shutil.rmtree(out)
        return seconds

    data, with_copies = min((staged() for _ in range(3)), key=lambda each: each[1])
    with without_fingerprints():
        without = min(staged()[1] for _ in range(3))
    number, share = len(data.index), with_copies - without
    print(f"\n{number} photographs of 500 x 375 pixels; CPU time of an image:")
    print(f"staging {1e3 * without / number:.2f} ms, copies {1e3 * share / number:.2f} ms more")
    for name, options in (
        ("original bytes", {}),
        ("--shorter-side 256", {"reencoding": REENCODING}),
    ):
        rest = without + min(converted(data, **options) for _ in range(3))
        print(
            f"staging and converting, {name}: {1e3 * rest / number:.2f} ms; "
            f"copies: {share / rest:.0%} of that"
        )


@contextmanager
def without_fingerprints() -> Iterator[None]:
    """Stage as if no image had a fingerprint."""
    module = sknet.data.sources.source
    real, module.fingerprint = module.fingerprint, lambda _: b""
    try:
        yield
    finally:
        module.fingerprint = real


def measure_size(pipe: multiprocessing.connection.Connection, count: int) -> None:
    """Match random fingerprints, and send a line on time and memory."""
    random = np.random.default_rng(0)
    prints = np.zeros(count, FINGERPRINT)
    for field in ("hash", "mirrored"):
        prints[field] = random.integers(0, 1 << 64, count, dtype=np.uint64)
    # Mean and deviation of the brightness of ImageNet's images.
    prints["brightness"] = np.clip(random.normal(118, 35, count), 0, 255) * 256
    prints["contrast"] = 50
    prints["coefficients"] = random.integers(-127, 128, (count, 63))
    planted = count // 100
    prints[-planted:] = prints[:planted]
    for bit in random.integers(0, 64, (5, planted), dtype=np.uint64):
        prints["hash"][-planted:] ^= np.uint64(1) << bit
    fingerprints = [each.tobytes() for each in prints]
    digests = [f"{number:064x}" for number in range(count)]
    before, began = peak_mib(), time.process_time()
    groups = find_copies(digests, fingerprints).groups
    seconds = time.process_time() - began
    expected = tuple((each, count - planted + each) for each in range(planted))
    pipe.send(
        f"\n{count} random fingerprints: {len(set(groups) & set(expected))} of {planted} planted "
        f"copies, {len(set(groups) - set(expected))} other groups, {seconds:.1f} s of CPU, "
        f"{peak_mib() - before:.0f} MiB more than before"
    )


def peak_mib() -> float:
    """Return the largest amount of memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    result.add_argument("--sides", type=int, nargs="*", default=[48, 64, 96, 150])
    result.add_argument("--images", type=int, default=2000)
    result.add_argument("--synthetic", type=int, nargs="*", default=[100_000, 1_000_000])
    return result


if __name__ == "__main__":
    sys.exit(main(parser().parse_args()))
