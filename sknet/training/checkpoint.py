"""Checkpoints as directories: `step-00001234/{model.ckpt, state.json}`, whole or absent.

Written beside its place, synced, and renamed, with `state.json` holding the size and SHA-256 of
every other file: what is damaged is recognised, named and skipped.
"""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import mindspore as ms
from mindspore import nn

from sknet.data.verification import file_sha256
from sknet.errors import UserError
from sknet.models.weight_files import read_weights
from sknet.models.weights import set_exactly
from sknet.records import Checkpoint, CheckpointFile, Run

MODEL_FILE = "model.ckpt"
STATE_FILE = "state.json"
_NAME = re.compile(r"step-\d{8}")


def save(step_cell: nn.Cell, directory: Path, describe: Callable[..., Checkpoint]) -> Path:
    """Save the whole training step: weights, statistics, optimizer.

    `describe(files=…)` gives the state to write beside them. Returns the checkpoint's directory,
    `directory/step-<step>`.
    """
    staging = directory / ".saving"
    if staging.exists():
        shutil.rmtree(staging)
    staging.mkdir(parents=True)
    model = staging / MODEL_FILE
    ms.save_checkpoint(step_cell, str(model), crc_check=True)
    file = CheckpointFile(name=MODEL_FILE, size=model.stat().st_size, sha256=file_sha256(model))
    state = describe(files=(file,))
    state.write(staging / STATE_FILE)
    for path in (model, staging / STATE_FILE, staging):
        _sync(path)
    final = directory / f"step-{state.step:08}"
    if final.exists():
        shutil.rmtree(final)
    staging.rename(final)
    _sync(directory)
    return final


def read_state(checkpoint: Path) -> Checkpoint:
    """The state of a checkpoint directory, its files verified. Raises UserError naming a fault."""
    state = Checkpoint.read(checkpoint / STATE_FILE)
    for file in state.files:
        path = checkpoint / file.name
        if not path.is_file():
            raise UserError(f"checkpoint file {path} is missing")
        if path.stat().st_size != file.size or file_sha256(path) != file.sha256:
            raise UserError(f"checkpoint file {path} is damaged (SHA-256 differs)")
    return state


def newest_valid(
    directory: Path, run: Run, on_skip: Callable[[str], None]
) -> tuple[Path, Checkpoint] | None:
    """The newest sound checkpoint of the run; `on_skip` gets a line for each that is not.

    Raises UserError for a checkpoint of another run: continuing it would mix two trainings.
    """
    if not directory.is_dir():
        return None
    for path in sorted(directory.iterdir(), reverse=True):
        if not _NAME.fullmatch(path.name):
            continue
        try:
            state = read_state(path)
        except UserError as error:
            on_skip(f"skipping {path.name}: {error}")
            continue
        if state.run != run:
            changed = [
                name for name in Run.model_fields if getattr(state.run, name) != getattr(run, name)
            ]
            raise UserError(
                f"{directory} holds checkpoints of another run (other {', '.join(changed)}): "
                "give another --ckpt_save_dir or remove them"
            )
        return path, state
    return None


def restore(step_cell: nn.Cell, checkpoint: Path) -> None:
    """Load everything that `save` saved. Raises UserError if the file has another content."""
    file = checkpoint / MODEL_FILE
    set_exactly(step_cell, read_weights(file), file)


def remove_old(directory: Path, keep: int) -> None:
    """Keep the newest `keep` checkpoints."""
    paths = sorted(path for path in directory.iterdir() if _NAME.fullmatch(path.name))
    for path in paths[:-keep]:
        shutil.rmtree(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
