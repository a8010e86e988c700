"""Reuse or build: one step of a DAG that any retry, run or host resumes."""

import platform
import shutil
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

from pydantic import JsonValue

from infra.artifacts.inspection import Level, compare
from infra.artifacts.records import Artifact, ArtifactSpec, Damage, FilePath, Manifest
from infra.artifacts.staging import describe, gather
from infra.artifacts.store import ArtifactStore
from infra.base.records import RecordError, SealedRecord, read_document


class Pending(SealedRecord):
    """What is to be committed, and where in the workspace it is."""

    output: FilePath | Literal["."]
    manifest: Manifest

    @classmethod
    def find(cls, spec: ArtifactSpec, workspace: Path) -> Self | None:
        """Return what a former build of this spec has left whole in the workspace."""
        try:
            pending = cls.decode(read_document(_document(workspace)))
            left = compare(workspace / pending.output, pending.manifest, "full")
        except (RecordError, OSError):
            return None
        return pending if pending.manifest.spec == spec and not left.damages else None

    def keep(self, workspace: Path) -> None:
        """Write it beside the workspace; torn by a crash, it counts for nothing."""
        _document(workspace).write_bytes(self.encode())


def discard(workspace: Path) -> None:
    """Remove a workspace and what is beside it."""
    _document(workspace).unlink(missing_ok=True)
    shutil.rmtree(workspace)


def _document(workspace: Path) -> Path:
    return workspace.with_name(f"{workspace.name}.pending.json")


@dataclass(frozen=True)
class BuildOutput:
    """What a build made."""

    directory: Path
    """Holds the artifact's files and no others: the workspace, or a directory in it."""
    stats: Mapping[str, JsonValue]
    provenance: Mapping[str, JsonValue]


@dataclass(frozen=True)
class Resolution:
    """An artifact, and how it came about."""

    artifact: Artifact
    status: Literal["reused", "built", "rebuilt"]
    """``rebuilt``: a damaged one was set aside first."""
    seconds: float
    """From the call to the answer, with waiting and verification."""
    damages: tuple[Damage, ...]
    """What was wrong with an artifact that was set aside."""


def resolve(
    store: ArtifactStore,
    spec: ArtifactSpec,
    build: Callable[[Path], BuildOutput],
    *,
    level: Level = "size",
) -> Resolution:
    """Return the artifact of a spec, building it if the store has no sound one.

    Builders of one key wait for each other. `build` gets the workspace, with whatever an
    interrupted build left in it; when it raises, the workspace stays and the error goes on. When
    the commit fails, the next call commits what was built, if it still is what it was.

    Raises:
        DigestConflictError: the key is there with another digest.
        StoreError: what was built can't be committed.
    """
    start = time.perf_counter()

    def resolution(
        artifact: Artifact,
        status: Literal["reused", "built", "rebuilt"],
        damages: tuple[Damage, ...],
    ) -> Resolution:
        return Resolution(artifact, status, time.perf_counter() - start, damages)

    first = store.lookup(spec, level=level)
    if first.artifact is not None:
        return resolution(first.artifact, "reused", first.damages)
    with store.workspace(spec) as workspace:
        # Another builder may have finished while this one waited.
        second = store.lookup(spec, level=level)
        damages = first.damages + second.damages
        if second.artifact is not None:
            discard(workspace)
            return resolution(second.artifact, "reused", damages)
        built = Pending.find(spec, workspace) or _build(spec, build, workspace)
        artifact = store.commit(built.manifest, workspace / built.output)
        discard(workspace)
    return resolution(artifact, "rebuilt" if damages else "built", damages)


def _build(spec: ArtifactSpec, build: Callable[[Path], BuildOutput], workspace: Path) -> Pending:
    start = time.perf_counter()
    output = build(workspace)
    provenance: dict[str, JsonValue] = {
        **output.provenance,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - start, 3),
        "host": socket.gethostname(),
        "python": platform.python_version(),
    }
    entries = describe(output.directory, gather(output.directory, None))
    manifest = Manifest.describe(spec, entries, stats=output.stats, provenance=provenance)
    built = Pending(
        output=output.directory.relative_to(workspace).as_posix(),
        manifest=manifest,
    )
    built.keep(workspace)
    return built
