"""Tiny artifacts, and processes that die while they make them."""

import hashlib
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from infra.artifacts import Artifact, ArtifactSpec, LocalStore

FILES = {"index.json": b"[]", "shards/0.bin": b"zero", "shards/1.bin": b"one"}


def make_spec(seed: int = 0, *, kind: str = "shards") -> ArtifactSpec:
    return ArtifactSpec(
        kind=kind, format_version=1, params={"seed": seed}, inputs={"dataset": "0" * 64}
    )


def write_files(directory: Path, files: Mapping[str, bytes] = FILES) -> Path:
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    return directory


def read_files(artifact: Artifact) -> dict[str, bytes]:
    return {entry.path: artifact.path(entry.path).read_bytes() for entry in artifact.manifest.files}


def commit(
    store: LocalStore,
    spec: ArtifactSpec | None = None,
    files: Mapping[str, bytes] = FILES,
) -> Artifact:
    """Put files through a directory beside the store's root."""
    source = write_files(store.root.parent / f"source-{uuid4()}", files)
    return store.put(spec or make_spec(), source, stats={"num_files": len(files)}, provenance={})


def reseal(document: bytes, **change: Any) -> bytes:
    """The document with other values, and the checksum that they should have."""
    fields = {**json.loads(document), **change}
    fields.pop("checksum")
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    fields["checksum"] = hashlib.sha256(canonical.encode()).hexdigest()
    text = json.dumps(fields, indent=1, sort_keys=True, ensure_ascii=False)
    return text.encode() + b"\n"


OPERATIONS = {
    "open",
    "os.link",
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "fcntl.flock",
    "fsync",
}


# Forking the test process itself would copy the threads' locks of whatever else it has loaded.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["infra.artifacts", "infra.artifacts.s3", "artifact_examples"])


def run_and_die_at(operation: int, work: Callable[..., Any], *arguments: Any) -> bool:
    """Run work in a child that SIGKILLs itself before its n-th file operation; tell if it did."""
    process = CONTEXT.Process(target=_work_and_die_at, args=(operation, work, arguments))
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def _work_and_die_at(operation: int, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    remaining = operation

    def count(event: str, _: Any) -> None:
        nonlocal remaining
        if event in OPERATIONS:
            remaining -= 1
            if remaining == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    fsync = os.fsync

    def counted_fsync(descriptor: int) -> None:
        count("fsync", ())
        fsync(descriptor)

    os.fsync = counted_fsync
    sys.addaudithook(count)
    work(*arguments)
    os._exit(0)  # what the interpreter does at its end is none of the work
