"""The artifact store on S3 against boto3's own transfers and hashing, in one run.

python -m tests.bench.bench_store_s3 [--mib 1024] [--artifacts 10000] [--files 10000] [--rounds 5]
                                     [--collected 1000]

The server (SeaweedFS) runs on this machine during the benchmark. put and get of one artifact of
four files take turns with boto3's upload_file and download_file and the sha256 of the same bytes;
ratios are computed within each round, and printed as median and range. Then the requests of a
lookup among few and among many artifacts are counted, and those of an artifact of many small files.
At last, the survey of a garbage collection takes turns with one that asks for each artifact by
itself, as it once did: first where everything is new, then where nothing is. Prints Markdown
tables; it checks no limits.
"""

import argparse
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import boto3

from infra.artifacts import ArtifactSpec, Manifest
from infra.artifacts.gc import survey
from infra.artifacts.s3 import S3Store
from infra.base.files import file_sha256
from infra.s3 import Bucket
from infra.s3.server import serving, start
from tests.bench.bench_store import FEW, MIB, NUM_PARTS, ratio, spec, timed
from tests.fault_proxy import FaultProxy, running_proxy

GOAL = 0.9
BUCKET = "bench"
WRITERS = 16


def main(arguments: argparse.Namespace) -> None:
    """Measure large files, lookups, and many files."""
    with (
        tempfile.TemporaryDirectory(dir=arguments.dir) as folder,
        serving(Path(folder) / "server") as server,
    ):
        start(Path(folder) / "server", bucket=BUCKET)
        os.environ.update(server.environment)
        large(Path(folder), arguments.mib, arguments.rounds)
        collections(Path(folder), arguments.collected, arguments.rounds)
        with running_proxy(server.port) as proxy:
            os.environ["AWS_ENDPOINT_URL_S3"] = f"http://127.0.0.1:{proxy.port}"
            lookups(Path(folder), proxy, arguments.artifacts)
            many(Path(folder), proxy, arguments.files)


def store_of(folder: Path, name: str, host: str) -> S3Store:
    """Return an empty store with its own prefix and cache."""
    return S3Store(Bucket(f"s3://{BUCKET}/{name}"), folder / f"cache-{host}")


def large(folder: Path, mib: int, rounds: int) -> None:
    """Measure put and get of `mib` MiB against boto3 + sha256."""
    source = folder / "source"
    source.mkdir()
    for part in range(NUM_PARTS):
        with (source / f"{part}.bin").open("wb") as file:
            for _ in range(mib // NUM_PARTS):
                file.write(os.urandom(MIB))
    client = boto3.session.Session().client("s3")
    names = ["boto3 upload + sha256", "put", "boto3 download + sha256", "get"]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    ratios: dict[str, list[float]] = {"put": [], "get": []}
    for number in range(rounds):
        prefix = f"round-{number}"
        ready = shutil.copytree(source, folder / "ready")
        writer, reader = (store_of(folder, prefix, host) for host in ("writer", "reader"))
        works: dict[str, Callable[[], object]] = {
            names[0]: partial(plain_upload, client, source, f"plain-{number}"),
            "put": partial(writer.put, spec(number), ready, stats={}, provenance={}),
            names[2]: partial(plain_download, client, f"plain-{number}", folder / "plain"),
            "get": partial(get, reader, number),
        }
        # Each of a pair is first in every other round; uploads come before downloads.
        uploads, downloads = names[:2], names[2:]
        turn = 1 if number % 2 == 0 else -1
        for name in uploads[::turn] + downloads[::turn]:
            seconds[name].append(timed(works[name]))
        for name, plain in (("put", names[0]), ("get", names[2])):
            ratios[name].append(seconds[plain][-1] / seconds[name][-1])
        remove_all(client, prefix, f"plain-{number}")
        for used in ("ready", "plain", "cache-writer", "cache-reader"):
            shutil.rmtree(folder / used, ignore_errors=True)
    shutil.rmtree(source)
    print(f"\n{mib} MiB in {NUM_PARTS} files\n\n| | s | times boto3 + sha256 (goal {GOAL}) |")
    print("|---|---:|---:|")
    for name, measured in seconds.items():
        shown = ratio(ratios[name]) if name in ratios else ""
        print(f"| {name} | {statistics.median(measured):.2f} | {shown} |")


def get(store: S3Store, number: int) -> Path:
    """Fetch all files of an artifact to this host."""
    return store.load("bench", spec(number).key).directory


def plain_upload(client: Any, source: Path, prefix: str) -> None:
    """Upload and hash, as a careful script would."""
    for path in source.iterdir():
        file_sha256(path)
        client.upload_file(str(path), BUCKET, f"{prefix}/{path.name}")


def plain_download(client: Any, prefix: str, target: Path) -> None:
    """Download and hash."""
    target.mkdir()
    for part in range(NUM_PARTS):
        path = target / f"{part}.bin"
        client.download_file(BUCKET, f"{prefix}/{path.name}", str(path))
        file_sha256(path)


def remove_all(client: Any, *prefixes: str) -> None:
    """Sync the disk, which the server shares with this process."""
    for prefix in prefixes:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{prefix}/")
        for page in pages:
            for item in page.get("Contents", []):
                client.delete_object(Bucket=BUCKET, Key=item["Key"])


def lookups(folder: Path, proxy: FaultProxy, num_artifacts: int) -> None:
    """Count the requests of one lookup, by key and by digest, in stores of two sizes."""
    print("\n| artifacts | requests of a lookup | of find by digest |\n|---:|---:|---:|")
    for count in (FEW, num_artifacts):
        # Scenes are told apart by a name within the request: none may begin like another.
        name = f"{count}-lookups"
        store = store_of(folder, name, "lookups")
        first = filled(store, folder, name, count)
        by_key = num_requests(proxy, name, partial(store.get, spec(0)))
        by_digest = num_requests(proxy, name, partial(store.find, "bench", first.digest))
        print(f"| {count} | {by_key} | {by_digest} |")


def filled(store: S3Store, folder: Path, name: str, count: int) -> Manifest:
    """Make a store of `count` artifacts, which are copies of one under their own keys."""
    source = folder / f"source-{name}"
    source.mkdir()
    (source / "a").write_bytes(b"a")
    first = store.put(spec(0), source, stats={}, provenance={}).manifest
    bucket = boto3.session.Session().resource("s3").Bucket(BUCKET)

    def copy(number: int) -> None:
        other: ArtifactSpec = spec(number)
        manifest = Manifest.describe(other, first.files, stats={}, provenance={})
        prefix = f"{name}/bench/{other.key}"
        bucket.put_object(Key=f"{prefix}/a", Body=b"a")
        bucket.put_object(Key=f"{prefix}/manifest.json", Body=manifest.encode())

    with ThreadPoolExecutor(WRITERS) as writers:
        for _ in writers.map(copy, range(1, count)):
            pass
    return first


def num_requests(proxy: FaultProxy, name: str, work: Callable[[], object]) -> int:
    """Count the requests that reach the server."""
    injection = proxy.inject(name)
    work()
    return len(injection.requests)


def collections(folder: Path, num_artifacts: int, rounds: int) -> None:
    """Measure the survey before a garbage collection against one request after the other."""
    store = store_of(folder, "collections", "collections")
    filled(store, folder, "collections", num_artifacts)
    now = datetime.now(UTC)
    names = {"everything is new": now - timedelta(days=30), "nothing is new": now + timedelta(1)}
    print(f"\n{num_artifacts} artifacts\n\n| survey | s | one after the other, s | times |")
    print("|---|---:|---:|---:|")
    for name, unused_since in names.items():
        works: list[Callable[[], object]] = [
            partial(survey, store, unused_since=unused_since),
            partial(one_after_the_other, store),
        ]
        seconds: list[list[float]] = [[], []]
        for number in range(rounds):
            for which in (0, 1)[:: 1 if number % 2 == 0 else -1]:
                seconds[which].append(timed(works[which]))
        times = [plain / ours for ours, plain in zip(*seconds, strict=True)]
        ours, plain = map(statistics.median, seconds)
        print(f"| {name} | {ours:.2f} | {plain:.2f} | {ratio(times)} |")


def one_after_the_other(store: S3Store) -> None:
    """Read each manifest, for the plan and for the sizes, and look twice when it was used."""
    addresses = [*store.addresses()]
    for kind, key in addresses * 2:
        store._documents.read(f"{kind}/{key}/manifest.json")
    for kind, key in addresses:
        store.last_used(kind, key)


def many(folder: Path, proxy: FaultProxy, num_files: int) -> None:
    """Count the requests of an artifact of many small files."""
    source = folder / "many"
    for file in range(num_files):
        path = source / f"{file // 100:04}" / f"{file:06}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"{file}".encode())
    store = store_of(folder, "many", "many")
    works: dict[str, Callable[[], object]] = {
        "commit": partial(store.put, spec(0), source, stats={}, provenance={}),
        "lookup": partial(store.get, spec(0)),
        "get": partial(get, store_of(folder, "many", "other"), 0),
    }
    counts = {name: num_requests(proxy, "many", work) for name, work in works.items()}
    print(f"\n{num_files} files\n\n| | requests | beyond the files |\n|---|---:|---:|")
    for name, count in counts.items():
        beyond = count if name == "lookup" else count - num_files
        print(f"| {name} | {count} | {beyond} |")


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    result.add_argument("--mib", type=int, default=1024)
    result.add_argument("--artifacts", type=int, default=10_000)
    result.add_argument("--files", type=int, default=10_000)
    result.add_argument("--collected", type=int, default=1000)
    result.add_argument("--rounds", type=int, default=5)
    result.add_argument("--dir", help="directory on the disk to measure (default: a temporary one)")
    return result


if __name__ == "__main__":
    main(parser().parse_args())
