"""Changed copies of artifacts, such as other checkpoints and evaluations, in a trained store."""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from infra.artifacts import Artifact, ArtifactSpec, ArtifactStore
from sknet.evaluation.predictions import Predictions, read_predictions, write_predictions
from sknet.records import Evaluation
from tasks.results import TaskResult


def put_changed(
    store: ArtifactStore,
    original: Artifact,
    change: Callable[[Path], None],
    *,
    params: Mapping[str, JsonValue] | None = None,
    inputs: Mapping[str, str] | None = None,
    provenance: Mapping[str, JsonValue] | None = None,
    created: str = "2026-01-01T00:00:00+00:00",
) -> Artifact:
    """Store a changed copy of an artifact under the key of other params or inputs."""
    manifest = original.manifest
    spec = ArtifactSpec(
        kind=manifest.kind,
        format_version=manifest.format_version,
        params={**manifest.params, **(params or {})},
        inputs={**manifest.inputs, **(inputs or {})},
    )
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory) / "copy"
        shutil.copytree(original.directory, copy, ignore=shutil.ignore_patterns("manifest.json"))
        for path in copy.iterdir():
            path.chmod(0o644)
        change(copy)
        made = {**manifest.provenance, **(provenance or {}), "created": created, "seconds": 1.0}
        return store.put(spec, copy, stats={}, provenance=made)


def with_note(text: str) -> Callable[[Path], None]:
    """Return a change that adds a file: the digest differs, and nothing that is read does."""

    def change(directory: Path) -> None:
        (directory / "note").write_text(text, "utf-8")

    return change


def with_wrong(*positions: int) -> Callable[[Path], None]:
    """Return a change of an evaluation: only these samples are predicted wrongly."""

    def change(directory: Path) -> None:
        file = directory / "predictions.parquet"
        kept = read_predictions(file)
        num_classes = int(kept.labels.max()) + 1
        first = kept.labels.copy()
        first[list(positions)] = (first[list(positions)] + 1) % num_classes
        rest = [(first + offset) % num_classes for offset in range(1, kept.top.shape[1])]
        top = np.stack([first, *rest], axis=1).astype(np.int32)
        loss = np.zeros_like(kept.probability)
        changed = Predictions(labels=kept.labels, top=top, probability=kept.probability, loss=loss)
        write_predictions(file, kept.keys, changed)
        counts = Evaluation.read(directory / "evaluation.json")
        correct = np.bincount(kept.labels[changed.correct], minlength=num_classes)
        predicted = np.bincount(changed.predicted, minlength=num_classes)
        counts.model_copy(
            update={
                "correct_top1": int(correct.sum()),
                "class_correct": tuple(correct.tolist()),
                "class_predicted": tuple(predicted.tolist()),
            }
        ).write(directory / "evaluation.json")

    return change


def result_of(artifact: Artifact, task: str) -> TaskResult:
    """Return the result that the task would have returned."""
    manifest = artifact.manifest
    return TaskResult(
        task=task,
        status="built",
        seconds=0.0,
        kind=manifest.kind,
        key=manifest.key,
        digest=manifest.digest,
    )


def remove_all(store: ArtifactStore, kind: str) -> None:
    """Remove all artifacts of a kind."""
    for manifest in list(store.list(kind)):
        store.remove(kind, manifest.key)


def flip_a_bit(path: Path) -> bytes:
    """Flip a bit in the middle of a file of a store, and return the new content."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    return bytes(content)
