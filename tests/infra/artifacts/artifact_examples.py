"""Tiny artifacts, and processes that use their store."""

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any
from uuid import uuid4

from infra.artifacts import Artifact, ArtifactSpec, LocalStore

FILES = {"index.json": b"[]", "shards/0.bin": b"zero", "shards/1.bin": b"one"}


class KilledError(Exception):
    """Stands for the death of a builder during its work."""


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
    """Commit files, by way of a directory beside the store's root."""
    source = write_files(store.root.parent / f"source-{uuid4()}", files)
    return store.put(spec or make_spec(), source, stats={"num_files": len(files)}, provenance={})


def reseal(document: bytes, **change: Any) -> bytes:
    """Return the document with other values, and with their checksum."""
    fields = {**json.loads(document), **change}
    fields.pop("checksum")
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    fields["checksum"] = hashlib.sha256(canonical.encode()).hexdigest()
    text = json.dumps(fields, indent=1, sort_keys=True, ensure_ascii=False)
    return text.encode() + b"\n"


# Forking the test process itself would copy locks that threads of other libraries hold.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["infra.artifacts", "infra.artifacts.s3", "artifact_examples"])


def another_process(work: Callable[..., None], *arguments: object) -> ForkServerProcess:
    """Return a process, not yet started, with the environment of this one.

    Without that, it would have the environment that the fork server was started with.
    """
    return CONTEXT.Process(target=_work_with, args=(dict(os.environ), work, arguments), daemon=True)


def _work_with(
    settings: dict[str, str], work: Callable[..., None], arguments: tuple[object, ...]
) -> None:
    os.environ.update(settings)
    work(*arguments)
