"""Killed at any stage and started again, a run ends with the bytes of an undisturbed one."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.artifacts import open_store
from tests.runs import AT_WORK, Runs
from tests.tiny_pipeline import Trained, copy_shards, digests, train_command

pytestmark = pytest.mark.slow


def losses(store: Path) -> list[tuple[str, int, float]]:
    """What the training logged of each step and evaluation, by two ranks."""
    (log,) = store.glob("training-log/*/metrics.jsonl")
    lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    return [
        (line["type"], line["step"], line[key])
        for line in lines
        for key in ("loss", "loss_sum")
        if key in line
    ]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def runs(trained: Trained, store: Path, tmp_path: Path) -> Iterator[Runs]:
    command = train_command(trained.recipe, trained.images, store, 2)
    result = Runs(command, tmp_path / "runs.log")
    yield result
    result.end()


def test_a_run_killed_in_three_stages_ends_like_an_undisturbed_one(
    trained: Trained, runs: Runs, store: Path
) -> None:
    for stage in AT_WORK:
        assert runs.signal_in(stage, store, signal.SIGKILL) == -signal.SIGKILL

    last = runs.start()
    assert last.wait(120) == 0, runs.said()

    said = runs.said()
    assert "resuming from step-" in said
    assert "built       validate, promote, report" in said
    assert "reused      stage, convert, train" in said
    assert digests(store) == digests(trained.store)
    assert len(losses(trained.store)) > 6
    assert losses(store) == losses(trained.store)
    assert list((store / ".staging").glob("*")) == []
    assert [path for path in store.glob(".work/*/*") if path.is_dir()] == []
    promoted = open_store(str(store)).refs.get("production")
    assert promoted is not None
    assert promoted.digest == trained.of("train").digest
    assert runs.living() == []


def test_sigterm_while_training_leaves_no_process_and_no_server(
    runs: Runs, trained: Trained, store: Path
) -> None:
    copy_shards(trained.store, store)
    assert runs.signal_in("train", store, signal.SIGTERM, own_server=True) == 1
    assert "error: interrupted; the same command goes on from here" in runs.said()
    assert not any(store.glob("checkpoint/*"))


def test_ctrl_c_while_training_saves_and_the_same_command_goes_on(
    runs: Runs, trained: Trained, store: Path
) -> None:
    copy_shards(trained.store, store)
    assert runs.signal_in("train", store, signal.SIGINT, as_terminal=True) == 1
    assert "error: interrupted; the same command goes on from here" in runs.said()
    assert any(store.glob(AT_WORK["train"]))
    assert not any(store.glob("checkpoint/*"))
    assert runs.start().wait(120) == 0, runs.said()
    assert "resuming from step-" in runs.said()
    assert digests(store) == digests(trained.store)
