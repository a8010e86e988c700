"""The artifact store in a directory, shared by all processes that reach it.

    <root>/<kind>/<key>/            an artifact: its files and manifest.json
    <root>/refs/<name>.json         refs
    <root>/.work/<kind>/<key>/      a build under way, or to be resumed; <key>.lock beside it
    <root>/.staging/<uuid>/         a commit under way; <uuid>.lock beside it
    <root>/.quarantine/             damaged artifacts; <name>.damage.json beside each
    <root>/.digests/<kind>/<digest> the key of the artifact with this digest: a hint
    <root>/.verified/<kind>/<key>.json   which of its files were read whole: a hint
    <root>/.lock                    held while artifacts and refs change

An artifact appears by one rename of a directory that is already on disk, so a crash at any moment
leaves it whole or absent.
"""

import errno
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from uuid import uuid4

from pydantic import ValidationError

from infra.artifacts.documents import Document, Expected, StoreError, read_document
from infra.artifacts.holdings import Build, Leftover, OnUnreadable, Usage, warn_of_unreadable
from infra.artifacts.inspection import Found, Level, inspect, unreadable
from infra.artifacts.records import (
    MANIFEST,
    Address,
    Artifact,
    ArtifactSpec,
    DamageReport,
    Manifest,
    is_address,
)
from infra.artifacts.staging import stage, staging_directory, sweep
from infra.artifacts.store import ArtifactStore
from infra.base.files import fsync, replace_file, scan, write_durably
from infra.base.locks import exclusive, is_held
from infra.base.shortages import is_disk_full, room

logger = logging.getLogger(__name__)

WORK, STAGING, QUARANTINE, VERIFIED = ".work", ".staging", ".quarantine", ".verified"


@contextmanager
def _changing(root: Path) -> Iterator[None]:
    """Hold the store's lock, which every change of an artifact or a ref needs."""
    root.mkdir(parents=True, exist_ok=True)
    with exclusive(root / ".lock"):
        yield


class LocalDocuments:
    """The documents of a store in a directory; see `Documents`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, path: str) -> Document | None:
        """Return a document. No lock is needed, because documents are replaced whole."""
        file = self._root / path
        try:
            file.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        content = read_document(file)
        return Document(content, hashlib.sha256(content).hexdigest())

    def read_all(self, paths: Iterable[str]) -> Iterator[Callable[[], Document | None]]:
        """Read nothing ahead: a disk gains nothing from it."""
        return (partial(self.read, path) for path in paths)

    def write(self, path: str, content: bytes, *, expected: str | Expected) -> bool:
        """Replace a document, after a comparison under the store's lock."""
        file = self._root / path
        if expected is Expected.ANYTHING:
            file.parent.mkdir(parents=True, exist_ok=True)
            replace_file(file, content)
            return True
        with _changing(self._root):
            present = self.read(path)
            if expected != (present.version if present else Expected.NOTHING):
                return False
            file.parent.mkdir(parents=True, exist_ok=True)
            replace_file(file, content, durable=True)
            fsync(file.parent.parent)  # the directory may be new
        return True

    def remove(self, path: str) -> None:
        """Remove a document, if it is there."""
        (self._root / path).unlink(missing_ok=True)

    def names(self, directory: str) -> list[str]:
        """Return the names of the documents in a directory."""
        names = _names_in(self._root / directory)
        return [n.removesuffix(".json") for n in names if n.endswith(".json") and n[0] != "."]


class LocalStore(ArtifactStore):
    """The artifacts below a directory, for all processes and threads that reach it."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        super().__init__(str(self.root), LocalDocuments(self.root))

    def addresses(
        self, kind: str | None = None, *, on_unreadable: OnUnreadable = warn_of_unreadable
    ) -> Iterator[Address]:
        """Yield kind and key of everything that is named like an artifact, sorted."""
        for each in [kind] if kind is not None else _names_in(self.root):
            if not is_address(each, "0" * 64):
                continue
            try:
                names = _names_in(self.root / each)
            except PermissionError as error:
                on_unreadable(each, error)
                continue
            yield from ((each, name) for name in names if is_address(each, name))

    def _inspect(self, kind: str, key: str, level: Level) -> Found | None:
        directory = self._directory(kind, key)
        while True:
            try:
                version = _identity(directory)
            except PermissionError as error:  # of the directory of its kind
                return Found("", level, None, (unreadable(directory, error),))
            if version is None:
                return None
            try:
                manifest, damages = inspect(
                    directory, kind=kind, key=key, level=level, memory=self._memory(kind, key)
                )
            except FileNotFoundError:
                continue  # it has just been moved away: look at what is there now
            if _identity(directory) == version:  # else manifest and files may be of two builds
                return Found(version, level, manifest, damages)

    def _artifact(self, manifest: Manifest) -> Artifact:
        directory = self._directory(manifest.kind, manifest.key)
        return Artifact(manifest, fetch=lambda _: directory, check_copies=tuple)

    def _publish(self, manifest: Manifest, document: bytes, directory: Path) -> bool:
        try:
            return self._stage_and_rename(manifest, document, directory)
        except OSError as error:
            fault = str(error.strerror)
            if is_disk_full(error):
                fault += f": {room(sum(entry.size for entry in manifest.files), self.root)}"
            raise OSError(
                error.errno,
                f"{manifest.kind}/{manifest.key} can't be committed to {str(self.root)!r} "
                f"({fault}); its files stay where they are for the next try",
            ) from error

    def _stage_and_rename(self, manifest: Manifest, document: bytes, directory: Path) -> bool:
        target = self._directory(manifest.kind, manifest.key)
        sweep(self.root / STAGING)
        with staging_directory(self.root / STAGING) as staging:
            write_durably(staging / MANIFEST, document)
            stage(directory, manifest.files, staging)
            with _changing(self.root):
                if _identity(target) is not None:
                    return False
                target.parent.mkdir(exist_ok=True)
                staging.rename(target)
                fsync(target.parent)
                fsync(self.root)
        return True

    def _quarantine(self, kind: str, key: str, found: Found) -> bool:
        directory, quarantine = self._directory(kind, key), self.root / QUARANTINE
        aside = quarantine / f"{kind}-{key}-{uuid4()}"
        report = DamageReport(kind=kind, key=key, damages=found.damages)
        with _changing(self.root):
            if _identity(directory) != found.version:
                return False
            quarantine.mkdir(exist_ok=True)
            write_durably(aside.with_suffix(".damage.json"), report.encode())
            directory.rename(aside)
            self._forget(kind, key)
            for changed in (quarantine, self.root, directory.parent):
                fsync(changed)
        logger.warning("%s/%s is damaged, moved to %s: %s", kind, key, aside, found.damages[0])
        return True

    def _remove(self, kind: str, key: str) -> None:
        with staging_directory(self.root / STAGING) as going:
            with _changing(self.root), suppress(FileNotFoundError):
                self._directory(kind, key).rename(going / key)
                fsync(self.root / kind)
            self._forget(kind, key)

    def _mark_used(self, kind: str, key: str) -> None:
        with suppress(OSError):  # the store may be read-only, or another user's
            os.utime(self._directory(kind, key))

    def _last_used(self, kind: str, key: str) -> datetime | None:
        try:
            status = self._directory(kind, key).lstat()
        except FileNotFoundError:
            return None
        return datetime.fromtimestamp(status.st_mtime, UTC)

    def usages(self, *, on_unreadable: OnUnreadable = warn_of_unreadable) -> dict[Address, Usage]:
        """Look at the status of all files; see `ArtifactStore`."""
        found: dict[Address, Usage] = {}
        for kind, key in self.addresses(on_unreadable=on_unreadable):
            try:
                used = self._last_used(kind, key)
                sizes = {name: s.st_size for name, s in scan(self._directory(kind, key))}
            except PermissionError as error:
                on_unreadable(f"{kind}/{key}", error)
            except (FileNotFoundError, NotADirectoryError):
                continue  # it has just been removed, or is damaged
            else:
                sizes.pop(MANIFEST, None)
                if used is not None:
                    found[kind, key] = Usage(used, sum(sizes.values()))
        return found

    @contextmanager
    def workspace(self, spec: ArtifactSpec) -> Iterator[Path]:
        """Hold ``.work/<kind>/<key>/``, which all hosts share; see `ArtifactStore`."""
        directory = self.root / WORK / spec.kind / spec.key

        def log_wait() -> None:
            logger.info("waiting for another builder of %s/%s", spec.kind, spec.key)

        lock = _lock_of(directory)
        with ExitStack() as held:
            try:
                directory.parent.mkdir(parents=True, exist_ok=True)
                held.enter_context(exclusive(lock, on_wait=log_wait))
                lock.write_bytes(spec.encode())  # for `held`
                directory.mkdir(exist_ok=True)
                _require_writable(directory)
            except PermissionError as error:
                raise StoreError(
                    f"{error.filename} can't be written by this user: where several users write "
                    "a store, its directories belong to a group that they share and have the "
                    "set-gid bit, and the umask of each is 002"
                ) from None
            yield directory

    @property
    def is_shared_directory(self) -> bool:
        """Whether hosts share workspaces; see `ArtifactStore`."""
        return True

    def is_begun(self, spec: ArtifactSpec) -> bool:
        """Tell whether there is a workspace; see `ArtifactStore`."""
        return (self.root / WORK / spec.kind / spec.key).is_dir()

    def held(self) -> Iterator[Build]:
        """Yield the builds whose workspaces are locked."""
        work = self.root / WORK
        names = ((kind, name) for kind in _names_in(work) for name in _names_in(work / kind))
        for lock in (work / kind / name for kind, name in names if name.endswith(".lock")):
            if is_held(lock):
                # A builder that has just come has yet to write, and has just used its inputs.
                with suppress(StoreError, ValidationError):
                    spec = ArtifactSpec.model_validate_json(read_document(lock))
                    yield Build(spec.kind, spec.key, spec.inputs)

    def leftovers(self, unused_since: datetime) -> Iterator[Leftover]:
        """Yield what lies unlocked in ``.staging/``, ``.work/`` and ``.quarantine/``."""
        for path in sorted(self.root.glob(f"{STAGING}/*")):
            if path.suffix != ".lock" and not is_held(_lock_of(path)):
                yield self._leftover(path, "commit of a dead process")
        for path in sorted(self.root.glob(f"{WORK}/*/*")):
            if path.is_dir() and not is_held(_lock_of(path)) and _changed(path) < unused_since:
                yield self._leftover(path, f"workspace, unchanged since {_changed(path):%Y-%m-%d}")
        for report in sorted(self.root.glob(f"{QUARANTINE}/*.damage.json")):
            if _changed(report) < unused_since:
                path = report.with_name(report.name.removesuffix(".damage.json"))
                yield self._leftover(path, f"damaged, set aside {_changed(report):%Y-%m-%d}")

    def _leftover(self, path: Path, reason: str) -> Leftover:
        num_bytes = 0
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            num_bytes = sum(status.st_size for _, status in scan(path))
        name = path.relative_to(self.root).as_posix()
        return Leftover(name, num_bytes, reason, partial(_remove_unlocked, path))

    def _directory(self, kind: str, key: str) -> Path:
        return self.root / kind / key

    def _memory(self, kind: str, key: str) -> Path:
        return self.root / VERIFIED / kind / f"{key}.json"

    def _forget(self, kind: str, key: str) -> None:
        with suppress(OSError):  # only a hint, which nobody trusts for another artifact
            self._memory(kind, key).unlink()


def _names_in(directory: Path) -> list[str]:
    """Return the sorted names in a directory; none if there is no such directory.

    Raises:
        PermissionError: This user may not list it. (`Path.glob` would find nothing, in silence.)
    """
    try:
        return sorted(path.name for path in directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _remove_unlocked(path: Path) -> None:
    """Remove a directory and what belongs to it, unless somebody holds its lock."""
    with suppress(BlockingIOError), exclusive(_lock_of(path), wait=False):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        for suffix in (".pending.json", ".damage.json"):
            path.with_name(f"{path.name}{suffix}").unlink(missing_ok=True)


def _require_writable(directory: Path) -> None:
    """Check that this user may write a directory and all directories in it.

    Raises:
        PermissionError: One of them can't be written: another user has left it.
    """
    for each, _, _ in os.walk(directory):
        if not os.access(each, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), each)


def _lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _changed(path: Path) -> datetime:
    """Return when a file, or anything in a directory, was changed last."""
    newest = path.lstat().st_mtime
    if path.is_dir():
        for each in path.rglob("*"):
            with suppress(FileNotFoundError):
                newest = max(newest, each.lstat().st_mtime)
    return datetime.fromtimestamp(newest, UTC)


def _identity(directory: Path) -> str | None:
    """Return what tells a directory from a later one of the same name; None if there is none."""
    try:
        status = directory.lstat()
    except FileNotFoundError:
        return None
    return f"{status.st_dev}-{status.st_ino}"
