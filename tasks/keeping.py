"""Records that are kept as artifacts of their own."""

import tempfile
from datetime import UTC, datetime
from pathlib import Path

from infra.artifacts import ArtifactSpec, ArtifactStore
from sknet.records import Record


def put_record(store: ArtifactStore, spec: ArtifactSpec, record: Record, name: str) -> None:
    """Commit a record as the one file of an artifact."""
    with tempfile.TemporaryDirectory(prefix=f"{spec.kind}-") as place:
        record.write(Path(place) / name)
        created = datetime.now(UTC).isoformat(timespec="seconds")
        store.put(spec, Path(place), stats={}, provenance={"created": created})
