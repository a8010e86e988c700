"""Reads the records of a store for a report, and lists what can't be read instead of raising."""

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from infra.artifacts import ArtifactStore, Manifest, StoreError
from infra.base.records import Record
from sknet.errors import UserError
from sknet.report import Unreadable

MAX_FILE_BYTES = 1 << 28
"""Largest record or log that is read. A log of 300 epochs with a line a step stays far below it."""

RECORDS = (".json", ".jsonl")

T = TypeVar("T")
R = TypeVar("R", bound=Record)


class StoreReader:
    """Reads artifacts of a store, and lists what can't be read instead of raising."""

    def __init__(self, store: ArtifactStore) -> None:
        self.unreadable: list[Unreadable] = []
        self._store = store
        self._directories: dict[str, Path | None] = {}

    def manifests(self, kind: str) -> list[Manifest]:
        """Return the valid manifests of a kind, sorted by key."""
        addresses = {*self._store.addresses(kind, on_unreadable=self._report_unreadable)}
        valid = list(self._store.list(kind, on_unreadable=lambda *_: None))
        for damaged in sorted(addresses - {(m.kind, m.key) for m in valid}):
            self.attempt("/".join(damaged), partial(self._raise_damage, *damaged))
        return valid

    def _report_unreadable(self, path: str, error: OSError) -> None:
        self.report(path, f"can't be read: {error.strerror}")

    def _raise_damage(self, kind: str, key: str) -> None:
        for damage in self._store.verify(kind, key, level="size")[:1]:
            raise StoreError(str(damage))

    def attempt(self, name: str, read: Callable[[], T]) -> T | None:
        """Return what `read` returns; None if it raises, and list the reason under this name."""
        try:
            return read()
        except ValidationError as error:
            first = error.errors()[0]
            self.report(name, f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
        except OSError as error:
            self.report(name, f"can't be read: {error.strerror or error}")
        except (StoreError, UserError, ValueError, LookupError) as error:
            self.report(name, str(error))
        return None

    def report(self, name: str, reason: str) -> None:
        """List something as unreadable, with the reason in one line."""
        self.unreadable.append(Unreadable(artifact=name, reason=" ".join(reason.split())[:400]))

    def record(self, manifest: Manifest, name: str, model: type[R]) -> R | None:
        """Return a record of an artifact; None, and list the reason, if it can't be read."""
        directory = self.directory(manifest)
        if directory is None:
            return None
        return self.attempt(
            f"{name_of(manifest)}/{name}", lambda: _read_record(directory / name, model)
        )

    def directory(self, manifest: Manifest) -> Path | None:
        """Return where an artifact's records and logs are; None, listed once, if it is damaged."""
        artifact = name_of(manifest)
        if artifact not in self._directories:
            names = [entry.path for entry in manifest.files if entry.path.endswith(RECORDS)]
            self._directories[artifact] = self.attempt(
                artifact, lambda: self.bring(manifest, names)
            )
        return self._directories[artifact]

    def bring(self, manifest: Manifest, names: Collection[str]) -> Path:
        """Return the directory of an artifact, with these of its files.

        Raises:
            StoreError: The artifact is damaged, or a file too large.
        """
        artifact = self._store.load(manifest.kind, manifest.key)
        wanted = tuple(entry for entry in manifest.files if entry.path in names)
        for entry in wanted:
            if entry.size > MAX_FILE_BYTES:
                raise StoreError(f"{entry.path} is larger than {MAX_FILE_BYTES} bytes")
        return artifact.fetch(wanted)


def name_of(manifest: Manifest) -> str:
    """Return what an artifact is called: its kind and its key."""
    return f"{manifest.kind}/{manifest.key}"


def _read_record(path: Path, model: type[R]) -> R:
    """Return a record. Its errors leave the path out, as a report names the artifact."""
    try:
        return model.read(path)
    except UserError as error:
        raise UserError(str(error).replace(f"{path} ", "")) from None
