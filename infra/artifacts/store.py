"""The artifact store: what it does, wherever its files are, and what a backend has to provide."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TypeVar

from pydantic import JsonValue

from infra.artifacts.documents import MAX_DOCUMENT_BYTES, Documents, Expected, StoreError
from infra.artifacts.holdings import (
    Build,
    Leftover,
    Lookup,
    OnUnreadable,
    Usage,
    warn_of_unreadable,
)
from infra.artifacts.inspection import UNREADABLE, Found, Level, parse_manifest
from infra.artifacts.records import (
    MANIFEST,
    Address,
    Artifact,
    ArtifactSpec,
    Damage,
    DamagedArtifactError,
    DigestConflictError,
    Manifest,
    UnreadableArtifactError,
    check_address,
    is_address,
)
from infra.artifacts.refs import Refs
from infra.artifacts.staging import describe, gather
from infra.base.uploads import Uploads

logger = logging.getLogger(__name__)

DIGESTS = ".digests"
"""The index: ``.digests/<kind>/<digest>`` holds the key of an artifact with this digest. It is a
hint that saves reading all manifests."""


T = TypeVar("T")


class ArtifactStore(ABC):
    """Immutable artifacts under ``<kind>/<key>``, and refs that point to them.

    A backend provides the small documents, and the abstract methods below: those that make an
    artifact appear and vanish at once, and those that know who else is at work.
    """

    def __init__(self, location: str, documents: Documents) -> None:
        """Open a store; `location` names it in messages."""
        self.location = location
        self.refs = Refs(documents)
        self._documents = documents

    # Finding artifacts

    def lookup(self, spec: ArtifactSpec, *, level: Level = "size") -> Lookup:
        """Find the artifact of a spec. A damaged one is set aside, and is gone from then on."""
        found = self._inspect_or_set_aside(spec.kind, spec.key, level)
        if found is None:
            return Lookup(None)
        if found.sound is None:
            return Lookup(None, found.damages)
        self._mark_used(spec.kind, spec.key)
        return Lookup(self._artifact(found.sound))

    def get(self, spec: ArtifactSpec, *, level: Level = "size") -> Artifact | None:
        """Return the artifact of a spec, or None; like `lookup`, set a damaged one aside."""
        return self.lookup(spec, level=level).artifact

    def load(self, kind: str, key: str, *, level: Level = "size") -> Artifact:
        """Return an artifact that has to be there, such as the target of a ref.

        Raises:
            DamagedArtifactError: It is damaged. It stays where it is.
            StoreError: There is none, or kind or key has the wrong form.
        """
        return self._loaded(kind, key, self._required(kind, key, level))

    def find(self, kind: str, digest: str) -> Artifact:
        """Return an artifact of a kind with this digest.

        This costs one lookup, unless the index has been lost: then all manifests are read.

        Raises:
            DamagedArtifactError: It is damaged. It stays where it is.
            StoreError: There is none.
        """
        check_address(kind, digest)
        key = self._indexed(kind, digest)
        if key is not None and (found := self._inspect(kind, key, "size")) is not None:
            artifact = self._loaded(kind, key, found)
            if artifact.digest == digest:
                return artifact
        for manifest in self.list(kind):
            if manifest.digest == digest:
                self._index(manifest)
                return self.load(kind, manifest.key)
        raise StoreError(f"the store holds no {kind} with digest {digest}: run the pipeline again")

    def list(
        self, kind: str | None = None, *, on_unreadable: OnUnreadable = warn_of_unreadable
    ) -> Iterator[Manifest]:
        """Yield the manifests sorted by kind and key; log a warning for each invalid one.

        Args:
            kind: Only those of this kind.
            on_unreadable: Called for each that this user can't read; by default, a warning.
        """
        found = [*self.addresses(kind, on_unreadable=on_unreadable)]
        documents = self._documents.read_all(f"{kind}/{key}/{MANIFEST}" for kind, key in found)
        for (found_kind, key), read in zip(found, documents, strict=True):
            try:
                stored = read()
                if stored is None:
                    raise StoreError(f"{MANIFEST!r} is missing")
                yield parse_manifest(stored.content, kind=found_kind, key=key)
            except StoreError as error:
                logger.warning("%s/%s has no valid manifest: %s", found_kind, key, error)
            except OSError as error:
                if error.errno not in UNREADABLE:
                    raise
                on_unreadable(f"{found_kind}/{key}", error)

    def use(self, kind: str, key: str) -> bool:
        """Note that an artifact is used now, and return whether it is there.

        `lookup` does so by itself. `load` and `find` don't, because reports look at every artifact.
        """
        check_address(kind, key)
        if self._last_used(kind, key) is None:
            return False
        self._mark_used(kind, key)
        return True

    def last_used(self, kind: str, key: str) -> datetime:
        """Return when an artifact was committed, or last used if that was later; see `use`.

        Raises:
            StoreError: There is none, or kind or key has the wrong form.
        """
        check_address(kind, key)
        time = self._last_used(kind, key)
        if time is None:
            raise self._absent(kind, key)
        return time

    # Checking artifacts

    def verify(self, kind: str, key: str, *, level: Level = "full") -> tuple[Damage, ...]:
        """Return all that is wrong with an artifact, changing nothing.

        Raises:
            StoreError: There is none, or kind or key has the wrong form.
        """
        return self._required(kind, key, level).damages

    def set_aside(self, kind: str, key: str, *, level: Level = "full") -> tuple[Damage, ...]:
        """Move an artifact to quarantine if it is damaged, and return all that is wrong with it.

        Raises:
            StoreError: There is none, or kind or key has the wrong form.
        """
        check_address(kind, key)
        found = self._inspect_or_set_aside(kind, key, level)
        if found is None:
            raise self._absent(kind, key)
        return found.damages

    # Changing the store

    def put(
        self,
        spec: ArtifactSpec,
        directory: Path,
        *,
        files: Iterable[str] | None = None,
        stats: Mapping[str, JsonValue],
        provenance: Mapping[str, JsonValue],
    ) -> Artifact:
        """Commit the files of a directory as the artifact of a spec: all of them, or none.

        The files move into the store: once committed, they are gone from the directory. If the
        store has the key with the same digest already, that artifact is returned.

        Args:
            spec: What the files were made from.
            directory: Where they are.
            files: Their paths in the directory (default: all files in it).
            stats: Counts and measures of the content.
            provenance: Times, versions, host; never a secret.

        Raises:
            DigestConflictError: The store has the key with another digest.
            StoreError: There is nothing to commit, or a symbolic link or special file, or a name
                that a manifest can't hold.
        """
        entries = describe(directory, gather(directory, files))
        manifest = Manifest.describe(spec, entries, stats=stats, provenance=provenance)
        return self.commit(manifest, directory)

    def commit(self, manifest: Manifest, directory: Path) -> Artifact:
        """Commit the files of a directory that have just been described by this manifest.

        Files that other hosts have put into the store (`uploads`) need not be in the directory.
        Apart from that, it does the same as `put`.

        Raises:
            DigestConflictError: The store has the key with another digest.
            StoreError: A file has changed since, or the manifest is too large.
        """
        kind, key = manifest.kind, manifest.key
        document = manifest.encode()
        if len(document) > MAX_DOCUMENT_BYTES:
            raise StoreError(
                f"the manifest of {kind}/{key} has {len(document)} bytes, "
                f"expected at most {MAX_DOCUMENT_BYTES}"
            )
        # What can't be read back must not be committed.
        parse_manifest(document, kind=kind, key=key)
        committed = manifest
        while not self._publish(manifest, document, directory):
            found = self._inspect_or_set_aside(kind, key, "size")
            if found is not None and found.sound is not None:
                require_same_digest(found.sound, manifest)
                committed = found.sound
                break
        self._index(committed)
        for entry in manifest.files:
            # Links in the directory would be second names of the artifact's files.
            (directory / entry.path).unlink(missing_ok=True)
        return self._artifact(committed)

    def remove(self, kind: str, key: str) -> None:
        """Remove an artifact. If this process is killed, the artifact is either whole or gone.

        Raises:
            StoreError: There is none, or kind or key has the wrong form.
        """
        self.remove_listed(kind, key, self._required(kind, key, "size").manifest)

    def remove_listed(self, kind: str, key: str, manifest: Manifest | None) -> None:
        """Remove an artifact as `remove` does, given its manifest, if that is valid."""
        self._remove(kind, key)
        if manifest is not None and self._indexed(kind, manifest.digest) == key:
            self._documents.remove(f"{DIGESTS}/{kind}/{manifest.digest}")

    # What a backend provides

    @abstractmethod
    def addresses(
        self, kind: str | None = None, *, on_unreadable: OnUnreadable = warn_of_unreadable
    ) -> Iterator[Address]:
        """Yield kind and key of all artifacts, damaged ones too, sorted."""

    @abstractmethod
    def usages(self, *, on_unreadable: OnUnreadable = warn_of_unreadable) -> dict[Address, Usage]:
        """Return when each artifact was last used, and its size, without reading any."""

    @abstractmethod
    def _inspect(self, kind: str, key: str, level: Level) -> Found | None:
        """Compare an artifact with its manifest; return None if there is no such artifact."""

    @abstractmethod
    def _artifact(self, manifest: Manifest) -> Artifact:
        """Return the artifact of a manifest in this store."""

    @abstractmethod
    def _publish(self, manifest: Manifest, document: bytes, directory: Path) -> bool:
        """Make an artifact appear as a whole, unless there is something under its key.

        Args:
            manifest: Describes the files.
            document: The manifest as it is to be stored.
            directory: Where the files are that are not in the store yet. They stay there.

        Returns:
            Whether the artifact has appeared.

        Raises:
            StoreError: A file differs from the manifest.
        """

    @abstractmethod
    def _quarantine(self, kind: str, key: str, found: Found) -> bool:
        """Move a damaged artifact to quarantine, if it still is the one that was found.

        Returns:
            Whether it has been moved.
        """

    @abstractmethod
    def _remove(self, kind: str, key: str) -> None:
        """Remove an artifact, if it is there: at once for all who look."""

    @abstractmethod
    def _mark_used(self, kind: str, key: str) -> None:
        """Note that an artifact is used now."""

    @abstractmethod
    def _last_used(self, kind: str, key: str) -> datetime | None:
        """Return when an artifact was committed or last marked as used; None if there is none."""

    @abstractmethod
    def workspace(self, spec: ArtifactSpec) -> AbstractContextManager[Path]:
        """Hold the directory in which a spec is built; wait while another builder holds it.

        The directory outlives a crash, so that the next builder can resume.
        """

    @abstractmethod
    def is_begun(self, spec: ArtifactSpec) -> bool:
        """Tell whether a builder of a spec has left something from which the next one resumes."""

    @contextmanager
    def parallel(self) -> Iterator[Callable[[Callable[[T], None], Iterable[T]], Iterable[None]]]:
        """Provide what works like `map`, with as many calls at a time as the store is faster by."""
        yield map

    @property
    @abstractmethod
    def is_shared_directory(self) -> bool:
        """Whether hosts work on one build in one workspace, which they have to share.

        Otherwise they share nothing but the store itself: each needs a workspace of its own.
        """

    def uploading_parts(
        self, spec: ArtifactSpec, workspace: Path, directory: Path, *, is_only_copy: bool
    ) -> AbstractContextManager[None]:
        """Let builders on other hosts resume a build, as far as its parts are finished.

        A part is a directory that has been renamed to its final name in `directory`. While the
        context is open, finished parts are uploaded; `download_parts` brings them to other hosts.
        Meanwhile, faults of the store don't disturb the build. Where hosts share the workspace
        there is nothing to do.

        Args:
            spec: What is built.
            workspace: The workspace of the build on this host.
            directory: A directory of the workspace.
            is_only_copy: Whether the workspace vanishes with the context, so that what can't be
                uploaded at the end is an error.

        Raises:
            StoreError: This host may not write the store.
            OSError: The store can't be reached.
        """
        del spec, workspace, directory, is_only_copy
        return nullcontext()

    def download_parts(self, spec: ArtifactSpec, workspace: Path) -> None:
        """Bring the newest uploaded parts of a build here, unless what is there is as new.

        In place of a damaged one an older one comes. `workspace` does this by itself.

        Raises:
            OSError: The store can't be reached.
        """
        del spec, workspace

    def uploads(self, spec: ArtifactSpec) -> Uploads | None:
        """Return what lets other hosts put files of a build into the store before its commit.

        Whoever holds the workspace of the build calls it. Where hosts share the workspace, there is
        nothing to upload: None.
        """
        del spec
        return None

    @abstractmethod
    def held(self) -> Iterator[Build]:
        """Yield the builds that living builders have under way."""

    @abstractmethod
    def leftovers(self, unused_since: datetime) -> Iterator[Leftover]:
        """Yield the remains of dead commits; and workspaces and damaged artifacts that are older.

        Args:
            unused_since: Workspaces and damaged artifacts that changed later are left out.
        """

    # What the methods above share

    def _inspect_or_set_aside(self, kind: str, key: str, level: Level) -> Found | None:
        """Return what was found under a key; by then, a damaged artifact has been set aside.

        Raises:
            UnreadableArtifactError: It can't be read, so that it isn't known whether it is damaged.
        """
        while True:
            found = self._inspect(kind, key, level)
            if found is not None and found.is_unreadable:
                raise _unreadable(kind, key, found)
            if found is None or not found.damages or self._quarantine(kind, key, found):
                return found

    def _required(self, kind: str, key: str, level: Level) -> Found:
        check_address(kind, key)
        found = self._inspect(kind, key, level)
        if found is None:
            raise self._absent(kind, key)
        return found

    def _absent(self, kind: str, key: str) -> StoreError:
        return StoreError(f"{self.location!r} has no artifact {kind}/{key}")

    def _loaded(self, kind: str, key: str, found: Found) -> Artifact:
        if found.is_unreadable:
            raise _unreadable(kind, key, found)
        if found.sound is None:
            raise DamagedArtifactError(
                f"{kind}/{key} is damaged in {len(found.damages)} ways, first {found.damages[0]}"
            )
        return self._artifact(found.sound)

    def _indexed(self, kind: str, digest: str) -> str | None:
        try:
            stored = self._documents.read(f"{DIGESTS}/{kind}/{digest}")
        except StoreError:
            return None
        key = stored.content.decode("ascii", "replace") if stored is not None else ""
        return key if is_address(kind, key) else None

    def _index(self, manifest: Manifest) -> None:
        with suppress(OSError):  # the disk may be full or read-only
            self._documents.write(
                f"{DIGESTS}/{manifest.kind}/{manifest.digest}",
                manifest.key.encode(),
                expected=Expected.ANYTHING,
            )


def _unreadable(kind: str, key: str, found: Found) -> UnreadableArtifactError:
    first = next(damage for damage in found.damages if damage.problem == "unreadable")
    return UnreadableArtifactError(
        f"{kind}/{key} can't be read by this user, first {first.path!r} ({first.detail}): "
        "its owner can allow it, `chmod -R g+rX`"
    )


def require_same_digest(present: Manifest, other: Manifest) -> None:
    """Compare two builds of a key.

    Raises:
        DigestConflictError: They differ; the message names the first files that do.
    """
    if present.digest == other.digest:
        return
    differing = sorted({entry.path for entry in set(present.files) ^ set(other.files)})
    shown = ", ".join(map(repr, islice(differing, 3)))
    raise DigestConflictError(
        f"{present.kind}/{present.key} is in the store with digest {present.digest}, and was "
        f"built again with digest {other.digest}: {len(differing)} files differ, first {shown}"
    )
