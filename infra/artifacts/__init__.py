"""The artifact store: immutable outputs of tasks, found by what they were made from.

    store = open_store("file:///data/store")
    spec = ArtifactSpec(kind="shards", format_version=1, params={...}, inputs={...})
    artifact = resolve(store, spec, build).artifact

The command ``python -m infra.artifacts --help`` looks into a store.
"""

from infra.artifacts.documents import StoreError
from infra.artifacts.holdings import Lookup
from infra.artifacts.inspection import Level
from infra.artifacts.local import LocalStore
from infra.artifacts.opening import absolute_uri, default_store, open_store
from infra.artifacts.records import (
    Artifact,
    ArtifactSpec,
    Damage,
    DamagedArtifactError,
    DigestConflictError,
    FileEntry,
    LostLeaseError,
    Manifest,
    RefConflictError,
)
from infra.artifacts.refs import Ref, Refs
from infra.artifacts.resolution import BuildOutput, Outlook, Resolution, digest_of, foresee, resolve
from infra.artifacts.store import ArtifactStore
from infra.artifacts.transfer import replace_damaged

__all__ = [
    "Artifact",
    "ArtifactSpec",
    "ArtifactStore",
    "BuildOutput",
    "Damage",
    "DamagedArtifactError",
    "DigestConflictError",
    "FileEntry",
    "Level",
    "LocalStore",
    "Lookup",
    "LostLeaseError",
    "Manifest",
    "Outlook",
    "Ref",
    "RefConflictError",
    "Refs",
    "Resolution",
    "StoreError",
    "absolute_uri",
    "default_store",
    "digest_of",
    "foresee",
    "open_store",
    "replace_damaged",
    "resolve",
]
