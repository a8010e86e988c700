"""Killed in any task and started again, a run ends with the bytes of an uninterrupted one."""

import json
import signal
from pathlib import Path

import pytest

from infra.artifacts import open_store
from tests.flow_runs import AT_WORK, CommandRun
from tests.tiny_pipeline import Trained, copy_shards, digests, train_command

pytestmark = pytest.mark.slow


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
        assert run.signal_in(task, store, signal.SIGKILL) == -signal.SIGKILL

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


def test_sigterm_while_training_leaves_no_process_and_no_server(
    trained: Trained, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    copy_shards(trained.store, store)
    command = train_command(trained.recipe, trained.images, store, 2)
    run = CommandRun(command, tmp_path / "run.log")  # with a temporary server of its own
    try:
        assert run.signal_in("train", store, signal.SIGTERM) == 1
        assert "error: interrupted; the same command resumes from here" in run.output()
        assert not any(store.glob("checkpoint/*"))
    finally:
        run.end()


def test_ctrl_c_while_training_saves_a_checkpoint(
    run: CommandRun, trained: Trained, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    copy_shards(trained.store, store)
    assert run.signal_in("train", store, signal.SIGINT, to_process_group=True) == 1
    assert "error: interrupted; the same command resumes from here" in run.output()
    assert any(store.glob(AT_WORK["train"]))
    assert not any(store.glob("checkpoint/*"))
