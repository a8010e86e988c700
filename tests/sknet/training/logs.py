"""What a training leaves behind besides its checkpoints."""

import json
from pathlib import Path
from typing import Any


def output(directory: Path) -> str:
    """Return what the last forked training in a directory printed."""
    return directory.with_suffix(".log").read_text()


def metrics(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def losses(directory: Path) -> list[tuple[str, int, float | None, float | None]]:
    """Return the losses of steps and of evaluations.

    An epoch's train_loss is not among them: it covers the steps since the program was started.
    """
    return [
        (line["type"], line["step"], line.get("loss"), line.get("loss_sum"))
        for line in metrics(directory)
        if line["type"] in ("step", "epoch")
    ]
