"""Reuse or build an artifact, so that any retry, run or host resumes where another ended."""

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

from infra.artifacts.documents import SealedRecord, StoreError, read_document
from infra.artifacts.inspection import Level, compare_directory
from infra.artifacts.records import (
    Artifact,
    ArtifactSpec,
    Damage,
    DamagedArtifactError,
    FileEntry,
    FilePath,
    Manifest,
    content_digest,
)
from infra.artifacts.staging import describe, gather
from infra.artifacts.store import ArtifactStore

Status = Literal["reused", "built", "rebuilt"]
"""How an artifact came about. ``rebuilt``: a damaged one was set aside first."""


@dataclass(frozen=True)
class BuildOutput:
    """The output of a build."""

    directory: Path
    """Holds the artifact's files and no others, but not those that are uploaded already. It is the
    workspace, or a directory in it."""
    stats: Mapping[str, JsonValue]
    provenance: Mapping[str, JsonValue]
    uploaded: tuple[FileEntry, ...] = ()
    """Files that hosts have put into the store already; see `ArtifactStore.uploads`."""


@dataclass(frozen=True)
class Resolution:
    """An artifact, and how it came about."""

    artifact: Artifact
    status: Status
    seconds: float
    """Time from the call to the answer, including waiting and verification."""
    damages: tuple[Damage, ...]
    """What was wrong with the artifact that was set aside."""


Outlook = Literal["reused", "built", "rebuilt", "resumed", "awaited"]
"""What `resolve` would do. resumed: go on with what an interrupted build has left; awaited: wait
for another process, which builds it now."""


def foresee(store: ArtifactStore | None, spec: ArtifactSpec) -> tuple[Outlook, Artifact | None]:
    """Return what `resolve` would do now, and the artifact if it is there. Nothing is changed.

    Args:
        store: The store; None if it is yet to be made.
        spec: What the artifact is made from.
    """
    if store is None:
        return "built", None
    address = (spec.kind, spec.key)
    if address in store.addresses(spec.kind):
        try:
            return "reused", store.load(*address)
        except DamagedArtifactError:
            return "rebuilt", None
    if any((build.kind, build.key) == address for build in store.held()):
        return "awaited", None
    return ("resumed" if store.is_begun(spec) else "built"), None


def digest_of(directory: Path) -> str:
    """Return the digest that an artifact of the files in a directory has."""
    return content_digest(describe(directory, gather(directory, None)))


def resolve(
    store: ArtifactStore,
    spec: ArtifactSpec,
    build: Callable[[Path], BuildOutput],
    *,
    level: Level = "size",
) -> Resolution:
    """Return the artifact of a spec, and build it first if the store has no sound one.

    Builders of one key wait for each other. If the commit fails, the next call commits what was
    built, unless it has changed meanwhile.

    Args:
        store: Where to look the artifact up, and to commit it.
        spec: What the artifact is made from.
        build: Gets the workspace, with whatever an interrupted build has left in it. If it raises
            an error, the workspace stays and the error is passed on.
        level: How much of a present artifact to verify.

    Raises:
        DigestConflictError: The store has the key with another digest.
        StoreError: What was built can't be committed.
    """
    start = time.perf_counter()

    def resolution(artifact: Artifact, status: Status, damages: tuple[Damage, ...]) -> Resolution:
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
        built = Pending.find(spec, workspace, store) or _build(spec, build, workspace)
        artifact = store.commit(built.manifest, workspace / built.output)
        discard(workspace)
    return resolution(artifact, "rebuilt" if damages else "built", damages)


class Pending(SealedRecord):
    """A finished build that is yet to be committed."""

    output: FilePath | Literal["."]
    """The directory of its files, relative to the workspace."""
    manifest: Manifest

    @classmethod
    def find(cls, spec: ArtifactSpec, workspace: Path, store: ArtifactStore) -> Self | None:
        """Return the build of this spec that is whole; None if there is none.

        Its files are in the workspace, but for those that hosts have put into the store.
        """
        try:
            pending = cls.decode(read_document(_document(workspace)))
            output = workspace / pending.output
            damages, _ = compare_directory(output, pending.manifest, "full")
        except (StoreError, OSError):
            return None
        if pending.manifest.spec != spec or any(d.problem != "missing" for d in damages):
            return None
        absent = {damage.path for damage in damages}
        files = [(e.path, e.size, e.sha256) for e in pending.manifest.files if e.path in absent]
        if files and ((uploads := store.uploads(spec)) is None or uploads.missing(files)):
            return None
        return pending

    def save(self, workspace: Path) -> None:
        """Write it beside the workspace. Torn by a crash, it isn't valid and counts for nothing."""
        _document(workspace).write_bytes(self.encode())


def discard(workspace: Path) -> None:
    """Remove a workspace and what is pending in it."""
    _document(workspace).unlink(missing_ok=True)
    shutil.rmtree(workspace)


def _document(workspace: Path) -> Path:
    return workspace.with_name(f"{workspace.name}.pending.json")


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
    entries = (*describe(output.directory, gather(output.directory, None)), *output.uploaded)
    manifest = Manifest.describe(spec, entries, stats=output.stats, provenance=provenance)
    built = Pending(
        output=output.directory.relative_to(workspace).as_posix(),
        manifest=manifest,
    )
    built.save(workspace)
    return built
