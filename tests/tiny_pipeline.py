"""A data set and a recipe so small that a whole flow takes seconds; the commands that run it."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import numpy as np
from PIL import Image
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import Artifact
from pydantic import TypeAdapter

from flows.train_sknet import train_sknet
from infra.artifacts import open_store
from tasks.results import TaskResult
from tests.processes import ROOT
from tests.waiting import HANG_SECONDS

RESULTS = TypeAdapter(tuple[TaskResult, ...])
TASKS = ["stage", "convert", "train", "validate", "promote", "report"]
COLOURS = {"blue": (40, 60, 200), "green": (40, 190, 60), "red": (210, 50, 40)}

RECIPE = """\
model: tiny
image_resize: 32
crop_pct: 1.0
scale: [0.5, 1.0]
num_parallel_workers: 1
global_batch_size: 8
epoch_size: 2
lr: 0.01
seed: 7
checkpoint_every_steps: 2
log_interval: 2
min_accuracy: 0.0
"""


@dataclass(frozen=True)
class Trained:
    """A run of the whole flow, and what it was made from."""

    store: Path
    recipe: Path
    images: Path
    results: tuple[TaskResult, ...]

    def of(self, task: str) -> TaskResult:
        return next(result for result in self.results if result.task == task)

    @staticmethod
    def write(results: list[TaskResult], directory: Path) -> None:
        (directory / "results.json").write_bytes(RESULTS.dump_json(tuple(results)))

    @classmethod
    def read(cls, directory: Path) -> "Trained":
        return cls(
            store=directory / "store",
            recipe=directory / "tiny.yaml",
            images=directory / "images",
            results=RESULTS.validate_json((directory / "results.json").read_bytes()),
        )


def run_flow_once(recipe: Path, images: Path, store: Path) -> tuple[UUID, list[TaskResult]]:
    """Run the flow in this process with two workers; return its run's id and the tasks' results."""
    state = train_sknet(
        recipe=str(recipe), data=str(images), store=str(store), workers=2, return_state=True
    )
    assert state.state_details.flow_run_id is not None
    return state.state_details.flow_run_id, state.result()


def shown_by(flow_run: UUID) -> dict[str | None, Artifact]:
    """Return what Prefect's pages show of a flow run, by key."""
    of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run]))
    with get_client(sync_client=True) as client:
        return {
            artifact.key: artifact for artifact in client.read_artifacts(artifact_filter=of_run)
        }


def copy_shards(source: Path, store: Path) -> None:
    """Copy what comes before training, so that a test need not build it again."""
    for kind in ("dataset", "shards"):
        shutil.copytree(source / kind, store / kind)


def write_images(root: Path, side: int = 32) -> Path:
    """Write 3 classes of 16 + 6 square images: a colour and noise."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 6)):
        for name, colour in COLOURS.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                noise = rng.integers(-40, 41, (side, side, 3))
                pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{index:02}.png")
    return root


def write_recipe(path: Path, more: str = "", *, epochs: int = 2) -> Path:
    """Write the recipe, and more choices, for a number of epochs."""
    text = RECIPE.replace("epoch_size: 2", f"epoch_size: {epochs}")
    path.write_text(text + more, "utf-8")
    return path


def train_options(recipe: Path, data: Path, store: Path | str, workers: int) -> list[str]:
    options = ["--recipe", recipe, "--data", data, "--store", store, "--workers", workers]
    return [*map(str, options)]


def train_command(
    recipe: Path, data: Path, store: Path | str, workers: int, *more: str
) -> list[str]:
    options = train_options(recipe, data, store, workers)
    return [sys.executable, "-m", "flows.train_sknet", *options, *more]


def run_command(command: list[str], **env: str) -> subprocess.CompletedProcess[str]:
    """Run in the repository's root, where prefect.toml is read."""
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )


def digests(store: Path | str) -> dict[tuple[str, str], str]:
    """Return kind and key → digest of all artifacts that are the same in every execution."""
    return {
        (manifest.kind, manifest.key): manifest.digest
        for manifest in open_store(str(store), create=False).list()
        if manifest.kind not in ("training-log", "report")
    }
