"""The artifact store in a directory against plain copying and hashing, in one run.

python -m tests.bench.bench_store [--mib 1024] [--artifacts 10000] [--files 10000] [--rounds 5]

put, get and fetch of one artifact of four files take turns with a plain copy, which does not wait
for the disk, and the sha256 of the same bytes; the files are in the page cache. Ratios are computed
within each round, and printed as median and range. Then a lookup among few and among many artifacts
is measured, and an artifact of many small files. Prints Markdown tables; it checks no limits.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from infra.artifacts import ArtifactSpec, LocalStore
from infra.artifacts.transfer import copy_files
from infra.base.files import file_sha256, fsync

MIB = 2**20
GOAL = 0.8
FEW = 10
NUM_PARTS = 4


def main(arguments: argparse.Namespace) -> None:
    """Measure large files, lookups, and many files."""
    with tempfile.TemporaryDirectory(dir=arguments.dir) as folder:
        large(Path(folder), arguments.mib, arguments.rounds)
        lookups(Path(folder), arguments.artifacts, arguments.rounds)
        many(Path(folder), arguments.files, arguments.rounds)


def spec(number: int, kind: str = "bench") -> ArtifactSpec:
    """Return the spec of an artifact that differs from all others."""
    return ArtifactSpec(kind=kind, format_version=1, params={"number": number}, inputs={})


def timed(work: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def large(root: Path, mib: int, rounds: int) -> None:
    """Measure put, get and fetch of `mib` MiB against copy + sha256."""
    source = root / "source"
    source.mkdir()
    for part in range(NUM_PARTS):
        with (source / f"{part}.bin").open("wb") as file:
            for _ in range(mib // NUM_PARTS):
                file.write(os.urandom(MIB))
            os.fsync(file.fileno())
    ratios: dict[str, list[float]] = {"put": [], "get, every byte": [], "fetch": []}
    seconds: dict[str, list[float]] = {"copy + sha256": [], **{name: [] for name in ratios}}
    for number in range(rounds):
        store = LocalStore(root / "store")
        ready = root / "ready"
        copy_and_hash(source, ready)
        for path in ready.iterdir():
            fsync(path)

        def put(store: LocalStore = store, number: int = number, ready: Path = ready) -> None:
            store.put(spec(number), ready, stats={}, provenance={})

        def get(store: LocalStore = store, number: int = number) -> None:
            assert store.get(spec(number), level="full")

        def fetched(store: LocalStore = store, number: int = number) -> None:
            copy_files(store.load("bench", spec(number).key), root / "fetched")

        plain = timed(lambda: copy_and_hash(source, root / "copy"))
        seconds["copy + sha256"].append(plain)
        for name, work in (("put", put), ("get, every byte", get), ("fetch", fetched)):
            seconds[name].append(timed(work))
            ratios[name].append(plain / seconds[name][-1])
        for used in ("copy", "fetched", "ready", "store"):
            shutil.rmtree(root / used)
    shutil.rmtree(source)
    print(f"\n{mib} MiB in {NUM_PARTS} files\n\n| | s | times copy + sha256 (goal {GOAL}) |")
    print("|---|---:|---:|")
    for name, measured in seconds.items():
        shown = ratio(ratios[name]) if name in ratios else ""
        print(f"| {name} | {statistics.median(measured):.2f} | {shown} |")


def copy_and_hash(source: Path, target: Path) -> None:
    """Copy and hash, as a careful script would."""
    target.mkdir()
    for path in source.iterdir():
        shutil.copyfile(path, target / path.name)
        file_sha256(target / path.name)


def lookups(root: Path, num_artifacts: int, rounds: int) -> None:
    """Measure one lookup, by key and by digest, in stores of two sizes."""
    stores = {count: filled(root / f"store-{count}", count) for count in (FEW, num_artifacts)}
    print("\n| artifacts | lookup, ms | find by digest, ms | file operations |")
    print("|---:|---:|---:|---:|")
    digest = stores[FEW].load("bench", spec(0).key).digest
    medians = {}
    for count, store in stores.items():
        by_key = [timed(lambda s=store: s.get(spec(0))) for _ in range(20 * rounds)]
        by_digest = [timed(lambda s=store: s.find("bench", digest)) for _ in range(20 * rounds)]
        medians[count] = statistics.median(by_key)
        found = 1000 * statistics.median(by_digest)
        operations = num_operations(lambda s=store: s.get(spec(0)))
        print(f"| {count} | {1000 * medians[count]:.3f} | {found:.3f} | {operations} |")
    print(f"\nlookup: {medians[num_artifacts] / medians[FEW]:.2f} times as long beside many")


def filled(root: Path, count: int) -> LocalStore:
    """Make a store of `count` artifacts, which are copies of one under their own keys."""
    store = LocalStore(root)
    source = root.with_name(f"{root.name}-source")
    source.mkdir()
    (source / "a").write_bytes(b"a")
    first = store.put(spec(0), source, stats={}, provenance={})
    for number in range(1, count):
        other = spec(number)
        directory = root / "bench" / other.key
        directory.mkdir()
        (directory / "a").write_bytes(b"a")
        manifest = type(first.manifest).describe(
            other, first.manifest.files, stats={}, provenance={}
        )
        (directory / "manifest.json").write_bytes(manifest.encode())
    return store


_counted = 0


def _count(event: str, _: object) -> None:
    global _counted
    _counted += event == "open" or event.startswith("os.")


def num_operations(work: Callable[[], object]) -> int:
    """Count the files and directories that Python opens, lists or changes."""
    before = _counted
    work()
    return _counted - before


def many(root: Path, num_files: int, rounds: int) -> None:
    """Measure commit and verification of an artifact of many small files."""
    seconds: dict[str, list[float]] = {"commit": [], "verify changed": [], "verify full": []}
    opened = 0
    for number in range(min(rounds, 3)):
        source = root / f"many-{number}"
        for file in range(num_files):
            path = source / f"{file // 100:04}" / f"{file:06}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{file}".encode())
        os.sync()
        store, key = LocalStore(root / f"store-many-{number}"), spec(number).key

        def verify(level: str, store: LocalStore = store, key: str = key) -> None:
            assert store.verify("bench", key, level=level) == ()  # type: ignore[arg-type]

        def put(store: LocalStore = store, number: int = number, source: Path = source) -> None:
            store.put(spec(number), source, stats={}, provenance={})

        seconds["commit"].append(timed(put))
        before = _counted
        seconds["verify changed"].append(timed(lambda: verify("changed")))
        opened = _counted - before
        seconds["verify full"].append(timed(lambda: verify("full")))
    print(f"\n{num_files} files\n\n| | s | ms a file |\n|---|---:|---:|")
    for name, measured in seconds.items():
        median = statistics.median(measured)
        print(f"| {name} | {median:.2f} | {1000 * median / num_files:.3f} |")
    print(f"\nverify changed: {opened} files and directories opened, listed or changed")


def ratio(values: list[float]) -> str:
    """Format the median with the range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    result.add_argument("--mib", type=int, default=1024)
    result.add_argument("--artifacts", type=int, default=10_000)
    result.add_argument("--files", type=int, default=10_000)
    result.add_argument("--rounds", type=int, default=5)
    result.add_argument("--dir", help="directory on the disk to measure (default: a temporary one)")
    return result


if __name__ == "__main__":
    sys.addaudithook(_count)
    main(parser().parse_args())
