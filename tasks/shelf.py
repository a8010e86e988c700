"""What a report reads of a store: manifests and records, and a row for whatever is unsound."""

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from infra.artifacts import ArtifactStore, Manifest, StoreError
from sknet.errors import UserError
from sknet.report import Unreadable

T = TypeVar("T")

# A log of 300 epochs with a line a step stays far below this.
MAX_FILE_BYTES = 1 << 28
RECORDS = (".json", ".jsonl")


class Shelf:
    """The artifacts of a store by kind; what can't be read becomes a fault, and is left out."""

    def __init__(self, store: ArtifactStore) -> None:
        self.faults: list[Unreadable] = []
        self._store = store
        self._places: dict[str, Path | None] = {}

    def list(self, kind: str) -> list[Manifest]:
        """Those with a valid manifest, by key."""
        sound = list(self._store.list(kind))
        for place in sorted({*self._store.addresses(kind)} - {(m.kind, m.key) for m in sound}):
            self.attempt("/".join(place), partial(self._say_damage, *place))
        return sound

    def _say_damage(self, kind: str, key: str) -> None:
        for damage in self._store.verify(kind, key, level="size")[:1]:
            raise StoreError(str(damage))

    def attempt(self, what: str, read: Callable[[], T]) -> T | None:
        """What `read` returns, or None and a row that says why not."""
        try:
            return read()
        except ValidationError as error:
            first = error.errors()[0]
            self.fault(what, f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
        except OSError as error:
            self.fault(what, f"can't be read: {error.strerror or error}")
        except (StoreError, UserError, ValueError, LookupError) as error:
            self.fault(what, str(error))
        return None

    def fault(self, what: str, reason: str) -> None:
        """Say in a row of the report what is wrong, in one line."""
        self.faults.append(Unreadable(artifact=what, reason=" ".join(reason.split())[:400]))

    def records(self, manifest: Manifest) -> Path | None:
        """Where an artifact's records and logs are; None, and one row, if it is unsound."""
        what = address(manifest)
        if what not in self._places:
            names = [entry.path for entry in manifest.files if entry.path.endswith(RECORDS)]
            self._places[what] = self.attempt(what, lambda: self.files(manifest, names))
        return self._places[what]

    def files(self, manifest: Manifest, names: Collection[str]) -> Path:
        """Where these files of an artifact are. Raises StoreError if it is unsound."""
        artifact = self._store.load(manifest.kind, manifest.key)
        wanted = tuple(entry for entry in manifest.files if entry.path in names)
        for entry in wanted:
            if entry.size > MAX_FILE_BYTES:
                raise StoreError(f"{entry.path} is larger than {MAX_FILE_BYTES} bytes")
        return artifact.bring(wanted)


def address(manifest: Manifest) -> str:
    """As people name an artifact."""
    return f"{manifest.kind}/{manifest.key}"


def num_bytes(manifest: Manifest) -> int:
    """Of its files."""
    return sum(entry.size for entry in manifest.files)
