"""Runs of a store as MLflow shows them: parameters, metrics, tags and files."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from infra.artifacts import Artifact, ArtifactStore
from sknet.records.evaluation import CHECKS_FILE, EVALUATION_FILE
from sknet.report.contents import TrainedRun
from tasks.catalog.passports import passports_of
from tasks.catalog.runs import evaluation_of

KEY_TAG = "sknet.key"
"""Key of the run's checkpoint, by which an export finds what it has exported."""

EVALUATION_FILES = (EVALUATION_FILE, "classes.csv", "confusion.csv", CHECKS_FILE)

STEP_METRICS = ("loss", "lr", "images_per_second", "data_wait_share", "host_memory_mib")
MAX_PARAM = 6000
"""Characters of a parameter that MLflow stores."""

MAX_TAG = 5000
"""Characters of a tag that MLflow stores."""


class Point(NamedTuple):
    """A value of a metric."""

    metric: str
    value: float
    step: int


@dataclass(frozen=True)
class MlflowRun:
    """A run as MLflow shows it."""

    key: str
    name: str
    began_ms: int
    """Milliseconds since 1970. Logs have no times, so that all values have that of the end."""
    ended_ms: int
    params: Mapping[str, str]
    points: tuple[Point, ...]
    tags: Mapping[str, str]
    files: tuple[tuple[str, Path], ...]
    """Directory in MLflow's artifacts, and the file that goes there."""


def mlflow_run(store: ArtifactStore, run: TrainedRun) -> MlflowRun:
    """Return a run of a store as MLflow shows it."""
    ended = datetime.fromisoformat(run.created).timestamp() if run.created else 0.0
    passport = next(iter(passports_of(store, run.checkpoint_digest)), None)
    files = list(_files(evaluation_of(store, run), "evaluation")) if run.evaluation else []
    if passport:
        files += _files(store.load("passport", passport.key), "passport")
    return MlflowRun(
        key=run.key,
        name=run.title,
        began_ms=round(1000 * (ended - (run.train_seconds or 0.0))),
        ended_ms=round(1000 * ended),
        params=_params(run),
        points=tuple(
            point for point in (*_logged(run), *_results(run)) if math.isfinite(point.value)
        ),
        tags={name: value[:MAX_TAG] for name, value in _tags(run).items()},
        files=tuple(files),
    )


def _files(artifact: Artifact, directory: str) -> Iterator[tuple[str, Path]]:
    for entry in artifact.manifest.files:
        if directory == "passport" or entry.path in EVALUATION_FILES:
            yield directory, artifact.path(entry.path)


def _params(run: TrainedRun) -> dict[str, str]:
    """Return the recipe, and what of the run is no choice of it."""
    told: dict[str, Any] = {
        **run.recipe.choices(),
        "world_size": run.world_size,
        "global_batch_size": run.global_batch_size,
        "device": run.device_target,
        "num_params": run.params,
    }
    return {name: str(value)[:MAX_PARAM] for name, value in sorted(told.items())}


def _logged(run: TrainedRun) -> Iterator[Point]:
    """Yield what the training logged; of steps that were done twice, what counts."""
    steps = {each.step for each in run.history.steps}
    lines = {
        int(line["step"]): line
        for line in run.log
        if line.get("type") == "step" and line.get("step") in steps
    }
    for step, line in sorted(lines.items()):
        for name in STEP_METRICS:
            value = line.get(name)
            if isinstance(value, int | float):
                yield Point(f"train/{name}", float(value), step)
    for epoch in run.history.epochs:
        if epoch.train_loss is not None:
            yield Point("epoch/train_loss", epoch.train_loss, epoch.step)
        if epoch.validation_loss is not None:
            yield Point("epoch/validation_loss", epoch.validation_loss, epoch.step)
        if epoch.correct_top1 is not None and epoch.seen:
            yield Point("epoch/accuracy_top1", epoch.correct_top1 / epoch.seen, epoch.step)


def _results(run: TrainedRun) -> Iterator[Point]:
    """Yield the results of the evaluations, with the ends of their 95 % intervals."""
    for counts in run.evaluations:
        where = f"evaluation_{counts.resolution}"
        low, high = counts.interval_top1
        values: dict[str, float | None] = {
            "accuracy_top1": counts.accuracy_top1,
            "accuracy_top1_low": low,
            "accuracy_top1_high": high,
            "accuracy_top5": counts.accuracy_top5 if counts.is_top5_telling else None,
            "loss": counts.loss,
            "calibration_error": counts.calibration_error,
        }
        if without := counts.without_leaked:
            values["accuracy_top1_without_leaked"] = without[0] / without[1]
        for mean, interval in counts.means.items():
            metric = re.sub(r"\W", "_", mean.lower())
            values[metric] = interval.value if interval else None
        for name, value in values.items():
            if value is not None:
                yield Point(f"{where}/{name}", value, run.steps)


def _tags(run: TrainedRun) -> dict[str, str]:
    """Return the digests by which the run is found again, and what became of it."""
    promotion = run.promotion
    granted = {True: "granted", False: "refused"}
    return {
        KEY_TAG: run.key,
        "sknet.checkpoint": run.checkpoint_digest,
        "sknet.samples": run.data.digest if run.data else "",
        "sknet.source": run.data.source if run.data else "",
        "sknet.promotion": granted[promotion.granted] if promotion else "",
        "sknet.production": str(run.is_production).lower(),
        "sknet.suspect": run.suspect,
        # No parameters, which MLflow never changes: a later evaluation may have other versions.
        **{f"version.{name}": value for name, value in run.software.items()},
    }
