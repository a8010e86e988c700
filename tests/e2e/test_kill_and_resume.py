"""Killed in any task and started again, a run ends with the bytes of an uninterrupted one.

In the ordinary suite, test_s3_store.py kills a run in its training.
"""

import json
from pathlib import Path

import pytest

from infra.artifacts import open_store
from tests.flow_runs import AT_WORK, CommandRun
from tests.tiny_pipeline import Trained, digests

pytestmark = pytest.mark.long


def losses(store: Path) -> list[tuple[str, int, float]]:
    """What the training log holds of each step and evaluation of two ranks."""
    (log,) = store.glob("training-log/*/metrics.jsonl")
    lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    return [
        (line["type"], line["step"], line[key])
        for line in lines
        for key in ("loss", "loss_sum")
        if key in line
    ]


def test_a_run_killed_in_three_tasks_ends_like_an_uninterrupted_one(
    trained: Trained, run: CommandRun, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    for task in AT_WORK:
        run.kill_in(task, store)

    run.start()
    assert run.wait() == 0, run.output()

    output = run.output()
    assert "resuming from step-" in output
    assert "built       validate, promote, report" in output
    assert "reused      stage, convert, train" in output
    assert digests(store) == digests(trained.store)
    assert len(losses(trained.store)) > 6
    assert losses(store) == losses(trained.store)
    assert list((store / ".staging").glob("*")) == []
    assert [path for path in store.glob(".work/*/*") if path.is_dir()] == []
    promoted = open_store(str(store)).refs.get("production")
    assert promoted is not None
    assert promoted.digest == trained.of("train").digest
    assert run.living() == []
