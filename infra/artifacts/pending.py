"""The output of a build that is yet to be committed: described beside the workspace it is in.

A commit fails where no build is to blame: the disk is full, a remote store is down. The next try
then finds what was built, reads it whole, and commits it.
"""

import shutil
from pathlib import Path
from typing import Literal, Self

from infra.base.records import SealedRecord
from infra.artifacts.errors import StoreError
from infra.artifacts.fields import FilePath
from infra.base.files import read_document
from infra.artifacts.inspection import compare
from infra.artifacts.records import ArtifactSpec, Manifest


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
        except (StoreError, OSError):
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
