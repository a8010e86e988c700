"""Unit costs of metadata per sample, file, shard and byte, measured with the real code.

python -m tests.bench.scale_units [--samples 1000000] [--shards 200] [--json OUT]

No image is read. A source of generated names goes through staging, the scan cache, the plan and the
order; manifests and records of many files are written and read; training's code opens shards of
tiny rows. Each part runs in its own process, to have its own peak of memory. Prints JSON.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path

from tests.bench.scale_generated import NUM_CLASSES, Generated, file_sha256, shards_of

Figures = dict[str, float]
MIB = 2**20
ROWS_PER_SHARD = 2500


def measure(num_samples: int, num_shards: int) -> Figures:
    """Return all unit costs for a number of samples, and a hundredth as many files."""
    with tempfile.TemporaryDirectory() as folder:
        # The user's own cache is neither read nor written.
        os.environ["SKNET_CACHE"] = f"{folder}/cache"
        found: Figures = {}
        found |= _alone(hashing, Path(folder), 256)
        found |= _alone(staging, Path(folder), num_samples)
        found |= _alone(restaging, Path(folder), num_samples)
        found |= _alone(ordering, Path(folder), num_samples)
        found |= _alone(manifests, Path(folder), max(100, num_samples // 100))
        if num_shards:
            found |= _alone(opening, Path(folder), num_shards)
        return found


def _alone(part: Callable[[Path, int], Figures], folder: Path, count: int) -> Figures:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_report, args=(theirs, part, folder, count))
    process.start()
    theirs.close()
    try:
        figures: Figures = ours.recv()
    except EOFError:
        raise SystemExit(f"{part.__name__} ended without figures") from None
    finally:
        process.join()
    return figures


def _report(pipe: Connection, part: Callable[[Path, int], Figures], folder: Path, n: int) -> None:
    os.environ.setdefault("GLOG_v", "3")
    pipe.send(part(folder, n))


def hashing(folder: Path, mib: int) -> Figures:
    """Return the seconds of SHA-256 per byte on one core."""
    content = os.urandom(MIB)
    began = time.process_time()
    for _ in range(mib):
        hashlib.sha256(content)
    return {"hash_seconds_per_byte": (time.process_time() - began) / (mib * MIB)}


def staging(folder: Path, count: int) -> Figures:
    """Stage a source for the first time, then write the artifact's files."""
    import pandas  # noqa: F401 (so that its import is not measured)

    from sknet.data.scan_cache import ScanCache
    from sknet.data.staging import stage_source

    source = Generated(count)
    before, began = _peak_bytes(), time.process_time()
    cache = ScanCache(source)
    staged = stage_source(source, cache)
    seconds = time.process_time() - began
    peak = _peak_bytes() - before
    index = int(staged.index.memory_usage(deep=True).sum())
    began = time.process_time()
    (folder / "dataset").mkdir()
    staged.write(folder / "dataset")
    written = time.process_time() - began
    (cache_file,) = (folder / "cache/ledgers").iterdir()
    return {
        "stage_seconds_per_sample": seconds / count,
        "stage_peak_bytes_per_sample": peak / count,
        "index_memory_bytes_per_sample": index / count,
        "index_write_seconds_per_sample": written / count,
        "index_file_bytes_per_sample": (folder / "dataset/samples.parquet").stat().st_size / count,
        "scan_cache_bytes_per_sample": cache_file.stat().st_size / count,
    }


def restaging(folder: Path, count: int) -> Figures:
    """Stage the unchanged source again; then do what conversion does before its first image."""
    import pandas  # noqa: F401 (so that its import is not measured)

    from sknet.data.conversion.plan import plan_shards, shard_counts
    from sknet.data.index import open_staged
    from sknet.data.scan_cache import ScanCache
    from sknet.data.staging import stage_source

    source = Generated(count)
    before, began = _peak_bytes(), time.process_time()
    staged = stage_source(source, ScanCache(source))
    again = time.process_time() - began
    if staged.num_files_read:
        raise ValueError(f"{staged.num_files_read} files were read again")
    peak = _peak_bytes() - before
    del staged
    began = time.process_time()
    known = open_staged(folder / "dataset")
    read = time.process_time() - began
    began = time.process_time()
    counts = shard_counts(known, max(1, count // 2500))
    planned = sum(len(shard.rows) for shard in plan_shards(known, counts, folder))
    if planned != count:
        raise ValueError(f"{planned} samples are planned")
    return {
        "restage_seconds_per_sample": again / count,
        "restage_peak_bytes_per_sample": peak / count,
        "index_read_seconds_per_sample": read / count,
        "plan_seconds_per_sample": (time.process_time() - began) / count,
    }


def ordering(folder: Path, count: int) -> Figures:
    """Compute a slice of an epoch's order, for `count` samples and for a billion."""
    from sknet.data.order import order_slice

    figures = {}
    order_slice(1000, 0, 0, 0, 1000)
    for name, total in (("", count), ("_of_a_billion", 10**9)):
        before, began = _peak_bytes(), time.process_time()
        order_slice(total, 0, 1, 0, count)
        figures[f"order_seconds_per_position{name}"] = (time.process_time() - began) / count
        figures[f"order_peak_bytes_per_position{name}"] = (_peak_bytes() - before) / count
    # MindSpore's SubsetSampler takes a list of Python integers.
    listed = order_slice(count, 0, 1, 0, count).tolist()
    size = sys.getsizeof(listed) + sum(map(sys.getsizeof, listed))
    return {**figures, "sampler_bytes_per_index": size / count}


def manifests(folder: Path, count: int) -> Figures:
    """Write and read a manifest of `count` files; write `shards.json` of as many shards."""
    from infra.artifacts import ArtifactSpec, Manifest
    from infra.artifacts.records import FileEntry

    entries = [
        FileEntry(
            path=f"train-{number:05}-of-{count:05}.mindrecord",
            size=1 << 28,
            sha256=file_sha256(number),
        )
        for number in range(count)
    ]
    spec = ArtifactSpec(kind="shards", format_version=1, params={}, inputs={})
    began = time.process_time()
    document = Manifest.describe(spec, entries, stats={}, provenance={}).encode()
    written = time.process_time() - began
    marks = sum(document.count(mark) for mark in (b",", b"[", b"{"))
    began = time.process_time()
    Manifest.decode(document)
    read = time.process_time() - began
    path = folder / "shards.json"
    shards_of(count).write(path)
    return {
        "manifest_bytes_per_file": len(document) / count,
        "manifest_values_per_file": marks / count,
        "manifest_write_seconds_per_file": written / count,
        "manifest_read_seconds_per_file": read / count,
        "shards_record_bytes_per_shard": path.stat().st_size / count,
    }


def opening(folder: Path, count: int) -> Figures:
    """Open a pipeline over `count` shards of tiny rows: count open files, time, memory."""
    from mindspore.dataset import MindDataset, SubsetSampler

    from sknet.data.reading.threads import read_pipeline
    from sknet.data.shards import Row, write_shard
    from tests.sknet.conversions import sizes_for

    (folder / "shards").mkdir()
    layout = sizes_for([8] * ROWS_PER_SHARD, 40 * ROWS_PER_SHARD)
    paths = []
    for number in range(count):
        path = folder / "shards" / f"train-{number:05}-of-{count:05}.mindrecord"
        rows = (
            Row(b"x" * 8, row % NUM_CLASSES, f"train/n{row:08}/n{row:08}_{number:05}.JPEG")
            for row in range(ROWS_PER_SHARD)
        )
        write_shard(path, "train", rows, layout)
        paths.append(str(path))

    def first_row(files: list[str], threads: int) -> tuple[float, float, float]:
        held, before, began = _open_files(), _peak_bytes(), time.perf_counter()
        rows = read_pipeline(
            lambda: MindDataset(
                files,
                columns_list=["image", "label"],
                sampler=SubsetSampler(list(range(ROWS_PER_SHARD))),
                num_parallel_workers=threads,
            ).create_tuple_iterator(num_epochs=1, output_numpy=True)
        )
        next(rows)
        took, held = time.perf_counter() - began, _open_files() - held
        peak = _peak_bytes() - before
        for _ in rows:
            pass
        return took, held, peak

    first_row(paths[:1], 1)
    took, of_one, peak = first_row(paths, 1)
    _, of_two, _ = first_row(paths, 2)
    return {
        "open_seconds_per_shard": took / count,
        "open_files_per_shard_and_thread": (of_two - of_one) / count,
        "open_files_per_shard": (2 * of_one - of_two) / count,
        "open_peak_bytes_per_row": peak / (count * ROWS_PER_SHARD),
    }


def _open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def conditions(num_samples: int, num_shards: int) -> dict[str, str]:
    """Return the conditions on which the figures depend."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "python": platform.python_version(),
        "cores": str(os.cpu_count()),
        "load": f"{os.getloadavg()[0]:.1f}",
        "samples": str(num_samples),
        "shards": str(num_shards),
    }


def rounded(figures: Figures) -> Figures:
    """Return the figures sorted by name, with four significant digits."""
    return {name: float(f"{value:.4g}") for name, value in sorted(figures.items())}


def main(arguments: argparse.Namespace) -> None:
    """Measure, print, and write to a file if asked to."""
    figures = measure(arguments.samples, arguments.shards)
    measured = {
        "conditions": conditions(arguments.samples, arguments.shards),
        "units": rounded(figures),
    }
    text = json.dumps(measured, indent=1) + "\n"
    print(text, end="")
    if arguments.json:
        arguments.json.write_text(text, "utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument(
        "--shards", type=int, default=200, help="number of shards to open (default 200; 0 for none)"
    )
    parser.add_argument("--json", type=Path, help="file to write as well")
    main(parser.parse_args())
