"""What is left in a local store beside its artifacts, and who builds there."""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from infra.artifacts.errors import StoreError
from infra.base.files import read_document, scan
from infra.base.locks import exclusive, is_held
from infra.artifacts.records import ArtifactSpec
from infra.artifacts.store import Build, Leftover

WORK, STAGING, QUARANTINE = ".work", ".staging", ".quarantine"


def held_builds(root: Path) -> Iterator[Build]:
    """Yield what living builders have written into the locks of their workspaces."""
    for lock in sorted(root.glob(f"{WORK}/*/*.lock")):
        if is_held(lock):
            # A builder that has only just come has yet to write; it has used its inputs just now.
            with suppress(StoreError, ValidationError):
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
