"""The artifact store in a directory.

    <root>/<kind>/<key>/            an artifact: its files and manifest.json
    <root>/refs/<name>.json         refs
    <root>/.work/<kind>/<key>/      a build under way, or to be resumed; <key>.lock beside
    <root>/.staging/<uuid>/         a commit under way; <uuid>.lock beside
    <root>/.quarantine/             damaged artifacts; <name>.damage.json beside each
    <root>/.digests/<kind>/<digest> the key of the artifact with this digest: a hint
    <root>/.verified/<kind>/<key>.json   which of its files were read whole: a hint
    <root>/.lock                    held while what is visible changes

An artifact appears by one rename of a directory that is already on disk, so a crash at any moment
leaves it whole or absent.
"""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from pydantic import ValidationError

from infra.artifacts.inspection import (
    Level,
    inspect,
    read_manifest,
)
from infra.artifacts.local_refs import LocalRefs
from infra.artifacts.records import (
    MANIFEST,
    Artifact,
    ArtifactSpec,
    Damage,
    DamagedArtifactError,
    DamageReport,
    Manifest,
    StoreError,
    check_address,
    is_address,
)
from infra.artifacts.staging import stage, staging_directory, sweep
from infra.artifacts.store import ArtifactStore, Build, Leftover, Lookup, require_same_digest
from infra.base.files import fsync, fsync_tree, scan, write_durably
from infra.base.locks import exclusive, is_held
from infra.base.records import RecordError, read_document
from infra.base.shortages import is_disk_full, room

WORK, STAGING, QUARANTINE = ".work", ".staging", ".quarantine"


def held_builds(root: Path) -> Iterator[Build]:
    """Yield what living builders have written into the locks of their workspaces."""
    for lock in sorted(root.glob(f"{WORK}/*/*.lock")):
        if is_held(lock):
            # A builder that has only just come has yet to write; it has used its inputs just now.
            with suppress(RecordError, ValidationError):
                spec = ArtifactSpec.model_validate_json(read_document(lock))
                yield Build(spec.kind, spec.key, spec.inputs)


def find_leftovers(root: Path, unused_since: datetime) -> Iterator[Leftover]:
    """Yield what nobody holds: dead commits, and older workspaces and damaged artifacts."""
    for place in sorted(root.glob(f"{STAGING}/*")):
        if place.suffix != ".lock" and not is_held(_lock_of(place)):
            yield _leftover(root, place, "commit of a dead process")
    for place in sorted(root.glob(f"{WORK}/*/*")):
        if place.is_dir() and not is_held(_lock_of(place)) and _changed(place) < unused_since:
            yield _leftover(root, place, f"workspace, unchanged since {_changed(place):%Y-%m-%d}")
    for report in sorted(root.glob(f"{QUARANTINE}/*.damage.json")):
        if _changed(report) < unused_since:
            place = report.with_name(report.name.removesuffix(".damage.json"))
            yield _leftover(root, place, f"damaged, set aside {_changed(report):%Y-%m-%d}")


def clear_leftover(root: Path, leftover: Leftover) -> None:
    """Remove it, unless somebody holds it by now."""
    place = root / leftover.name
    with suppress(BlockingIOError), exclusive(_lock_of(place), wait=False):
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)
        for beside in (".pending.json", ".damage.json"):
            place.with_name(f"{place.name}{beside}").unlink(missing_ok=True)


def _leftover(root: Path, place: Path, reason: str) -> Leftover:
    num_bytes = 0
    with suppress(FileNotFoundError, NotADirectoryError):
        num_bytes = sum(status.st_size for _, status in scan(place))
    return Leftover(place.relative_to(root).as_posix(), num_bytes, reason)


def _lock_of(place: Path) -> Path:
    return place.with_name(f"{place.name}.lock")


def _changed(place: Path) -> datetime:
    """When anything in it was changed last."""
    newest = place.lstat().st_mtime
    if place.is_dir():
        for path in place.rglob("*"):
            with suppress(FileNotFoundError):
                newest = max(newest, path.lstat().st_mtime)
    return datetime.fromtimestamp(newest, UTC)


logger = logging.getLogger(__name__)

KEY_LENGTH = 64


class LocalStore(ArtifactStore):
    """Artifacts under a local directory, shared by all processes and threads that reach it."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._refs = LocalRefs(self.root / "refs", self._visible_change)

    @property
    def refs(self) -> LocalRefs:
        """The refs under ``refs/``."""
        return self._refs

    def lookup(self, spec: ArtifactSpec, *, level: Level = "size") -> Lookup:
        """Find a sound artifact, or move a damaged one to ``.quarantine/``; see `ArtifactStore`."""
        kind, key = spec.kind, spec.key
        directory = self._directory(kind, key)
        while (seen := _identity(directory)) is not None:
            try:
                manifest, damages = self._compare(kind, key, level)
            except FileNotFoundError:
                continue  # another process has set it aside: look at what is there now
            if manifest is not None and not damages:
                self._touch(kind, key)
                return Lookup(self._artifact(manifest))
            with self._visible_change():
                if _identity(directory) == seen:
                    self._set_aside(kind, key, damages)
                    return Lookup(None, damages)
        return Lookup(None)

    def load(self, kind: str, key: str, *, level: Level = "size") -> Artifact:
        """Return the artifact in ``<kind>/<key>``; see `ArtifactStore`."""
        manifest, damages = self._inspect(kind, key, level)
        if manifest is None or damages:
            raise DamagedArtifactError(
                f"{kind}/{key} is damaged in {len(damages)} ways, first {damages[0]}"
            )
        return self._artifact(manifest)

    @contextmanager
    def workspace(self, spec: ArtifactSpec) -> Iterator[Path]:
        """Hold ``.work/<kind>/<key>/``; see `ArtifactStore`."""
        directory = self.root / WORK / spec.kind / spec.key
        directory.parent.mkdir(parents=True, exist_ok=True)

        def say_so() -> None:
            logger.info("waiting for another builder of %s/%s", spec.kind, spec.key)

        lock = directory.with_suffix(".lock")
        with exclusive(lock, on_wait=say_so):
            lock.write_bytes(spec.encode())  # for `held`
            directory.mkdir(exist_ok=True)
            yield directory

    def keeping(self, spec: ArtifactSpec, directory: Path) -> AbstractContextManager[None]:
        """Do nothing: who reaches this store reaches its workspaces; see `ArtifactStore`."""
        del spec, directory
        return nullcontext()

    def commit(self, manifest: Manifest, directory: Path) -> Artifact:
        """Stage the files, then rename the staging directory to its place; see `ArtifactStore`."""
        try:
            return self._commit(manifest, directory)
        except OSError as error:
            fault = str(error.strerror)
            if is_disk_full(error):
                fault += f": {room(sum(entry.size for entry in manifest.files), self.root)}"
            raise OSError(
                error.errno,
                f"{manifest.kind}/{manifest.key} can't be committed to {str(self.root)!r} "
                f"({fault}); its files stay where they are for the next try",
            ) from error

    def _commit(self, manifest: Manifest, directory: Path) -> Artifact:
        kind, key = manifest.kind, manifest.key
        sweep(self.root / STAGING)
        with staging_directory(self.root / STAGING) as staging:
            stage(directory, manifest.files, staging)
            write_durably(staging / MANIFEST, manifest.encode())
            # What can't be read back, such as a manifest too big, must not be committed.
            read_manifest(staging, kind=kind, key=key)
            fsync_tree(staging)
            self._index(manifest)
            with self._visible_change():
                artifact = self._publish(staging, manifest)
        for entry in manifest.files:
            # Left in place, they would be second names of the artifact's files, open to change.
            (directory / entry.path).unlink(missing_ok=True)
        return artifact

    def verify(self, kind: str, key: str, *, level: Level = "full") -> tuple[Damage, ...]:
        """Compare ``<kind>/<key>`` with its manifest; see `ArtifactStore`."""
        _, damages = self._inspect(kind, key, level)
        return damages

    def check_copies(self, artifact: Artifact) -> tuple[Damage, ...]:
        """Do nothing: files are read where they are; see `ArtifactStore`."""
        del artifact
        return ()

    def addresses(self, kind: str | None = None) -> Iterator[tuple[str, str]]:
        """Yield what is called ``<kind>/<key>``; see `ArtifactStore`."""
        found = [(path.parent.name, path.name) for path in self.root.glob("*/*")]
        yield from sorted(
            address for address in found if is_address(*address) and kind in (None, address[0])
        )

    def list(self, kind: str | None = None) -> Iterator[Manifest]:
        """Yield the manifests in ``<kind>/<key>``; see `ArtifactStore`."""
        for found, key in self.addresses(kind):
            try:
                yield read_manifest(self._directory(found, key), kind=found, key=key)
            except StoreError as error:
                logger.warning("%s/%s has no valid manifest: %s", found, key, error)

    def set_aside(self, kind: str, key: str, *, level: Level = "full") -> tuple[Damage, ...]:
        """Move it to ``.quarantine/`` if it is damaged; see `ArtifactStore`."""
        with self._visible_change():
            _, damages = self._inspect(kind, key, level)
            if damages:
                self._set_aside(kind, key, damages)
        return damages

    def last_used(self, kind: str, key: str) -> datetime:
        """Return the time of the directory's last change; see `ArtifactStore`."""
        try:
            status = self._directory(kind, key).lstat()
        except FileNotFoundError:
            raise self._absent(kind, key) from None
        return datetime.fromtimestamp(status.st_mtime, UTC)

    def held(self) -> Iterator[Build]:
        """Yield the specs in the held locks of ``.work/``; see `ArtifactStore`."""
        return held_builds(self.root)

    def leftovers(self, unused_since: datetime) -> Iterator[Leftover]:
        """Look into ``.staging/``, ``.work/`` and ``.quarantine/``; see `ArtifactStore`."""
        return find_leftovers(self.root, unused_since)

    def clear(self, leftover: Leftover) -> None:
        """Remove it under its lock; see `ArtifactStore`."""
        clear_leftover(self.root, leftover)

    def remove(self, kind: str, key: str) -> None:
        """Rename the directory away, then remove it; see `ArtifactStore`."""
        check_address(kind, key)
        with staging_directory(self.root / STAGING) as going:
            with self._visible_change():
                try:
                    self._directory(kind, key).rename(going / key)
                except FileNotFoundError:
                    raise self._absent(kind, key) from None
                fsync(self.root / kind)
            self._record(kind, key).unlink(missing_ok=True)

    def _touch(self, kind: str, key: str) -> None:
        with suppress(OSError):  # the store may not be ours to write
            os.utime(self._directory(kind, key))

    def _absent(self, kind: str, key: str) -> StoreError:
        return StoreError(f"{str(self.root)!r} has no artifact {kind}/{key}")

    def _indexed(self, kind: str, digest: str) -> str | None:
        try:
            with (self.root / ".digests" / kind / digest).open("rb") as file:
                return file.read(KEY_LENGTH).decode("ascii", "replace")
        except OSError:
            return None

    def _index(self, manifest: Manifest) -> None:
        path = self.root / ".digests" / manifest.kind / manifest.digest
        with suppress(OSError):  # the store may be full, or not ours to write
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(manifest.key.encode())

    def _has(self, kind: str, key: str) -> bool:
        return _identity(self._directory(kind, key)) is not None

    def _artifact(self, manifest: Manifest) -> Artifact:
        directory = self._directory(manifest.kind, manifest.key)
        return Artifact(manifest, lambda _entries: directory)

    def _directory(self, kind: str, key: str) -> Path:
        return self.root / kind / key

    def _record(self, kind: str, key: str) -> Path:
        return self.root / ".verified" / kind / f"{key}.json"

    def _inspect(
        self, kind: str, key: str, level: Level
    ) -> tuple[Manifest | None, tuple[Damage, ...]]:
        check_address(kind, key)
        try:
            return self._compare(kind, key, level)
        except FileNotFoundError:
            raise self._absent(kind, key) from None

    def _compare(
        self, kind: str, key: str, level: Level
    ) -> tuple[Manifest | None, tuple[Damage, ...]]:
        directory, record = self._directory(kind, key), self._record(kind, key)
        return inspect(directory, kind=kind, key=key, level=level, record=record)

    @contextmanager
    def _visible_change(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        with exclusive(self.root / ".lock"):
            yield

    def _publish(self, staging: Path, manifest: Manifest) -> Artifact:
        kind, key = manifest.kind, manifest.key
        directory = self._directory(kind, key)
        if _identity(directory) is not None:
            present, damages = self._compare(kind, key, "size")
            if present is not None and not damages:
                require_same_digest(present, manifest)
                return self._artifact(present)
            self._set_aside(kind, key, damages)
        directory.parent.mkdir(exist_ok=True)
        staging.rename(directory)
        fsync(directory.parent)
        fsync(self.root)
        return self._artifact(manifest)

    def _set_aside(self, kind: str, key: str, damages: tuple[Damage, ...]) -> None:
        quarantine = self.root / QUARANTINE
        quarantine.mkdir(exist_ok=True)
        place = quarantine / f"{kind}-{key}-{uuid4()}"
        report = DamageReport(kind=kind, key=key, damages=damages)
        write_durably(place.with_suffix(".damage.json"), report.encode())
        self._directory(kind, key).rename(place)
        self._record(kind, key).unlink(missing_ok=True)
        fsync(quarantine)
        fsync(self.root)
        fsync(self.root / kind)
        logger.warning("%s/%s is damaged, moved to %s: %s", kind, key, place, damages[0])


def _identity(directory: Path) -> tuple[int, int] | None:
    """Tell this directory from a later one of the same name."""
    try:
        status = directory.lstat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
