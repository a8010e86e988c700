"""The whole flow with its artifacts on S3, started on one host and ended on another one."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.artifacts import open_store
from tests.flow_runs import CommandRun, harness_api
from tests.store_roots import S3Root
from tests.tiny_pipeline import TASKS, Trained, digests, train_command
from tests.waiting import wait_for

pytestmark = pytest.mark.long


@pytest.fixture
def root(s3_server: object, tmp_path: Path) -> S3Root:
    return S3Root(tmp_path / "hosts")


@pytest.fixture
def runs(trained: Trained, root: S3Root, tmp_path: Path) -> Iterator[list[CommandRun]]:
    """The same command on two hosts, which share nothing but the store and compiled graphs."""
    command = train_command(trained.recipe, trained.images, root.uri, 2)
    result = [
        CommandRun(command, tmp_path / f"{name}.log", {**harness_api(), **root.environment(name)})
        for name in ("one", "other")
    ]
    yield result
    for run in result:
        run.end()


def test_a_run_started_on_one_host_ends_on_another_like_an_uninterrupted_local_one(
    trained: Trained, root: S3Root, runs: list[CommandRun]
) -> None:
    one, other = runs
    one.start()
    wait_for(
        lambda: one.is_over() or any(root.cache("one").glob("work/*/checkpoint/*/*/step-*")),
        one.output,
    )
    for rank in one.ranks().values():
        rank.send_signal(signal.SIGSTOP)
    wait_for(
        lambda: one.is_over() or lists_a_checkpoint(root),
        one.output,
    )
    assert not one.is_over(), one.output()
    one.process.kill()
    one.wait_until_gone()
    assert root.paths("checkpoint/") == []

    other.start()
    assert other.wait() == 0, other.output()
    output = other.output()
    assert "uploaded by another host" in output
    assert "resuming from step-" in output
    assert "reused      stage, convert" in output
    check_lines(output)
    assert digests(root.uri) == digests(trained.store)
    promoted = open_store(root.uri).refs.get("production")
    assert promoted is not None
    assert promoted.digest == trained.of("train").digest
    assert root.paths(".work/") == []
    assert other.living() == []


def lists_a_checkpoint(root: S3Root) -> bool:
    """Tell whether a checkpoint of a training under way is in the store."""
    lists = [path for path in root.paths(".work/") if path.endswith("/kept.json")]
    return any(b'"newest":"step-' in root.read(path).replace(b" ", b"") for path in lists)


def check_lines(output: str) -> None:
    """Check what a run prints into a file: plain lines, and each result where it belongs."""
    assert "\x1b" not in output
    news, summary = output.split("\ntask       status")
    for line in news.splitlines():
        assert re.match(rf"\d\d:\d\d:\d\d (start|{'|'.join(TASKS)}): ", line), line
    assert re.search(
        r"train: epoch 2/2: train loss \d+\.\d{4}, validation loss \d+\.\d{4}, accuracy@1 "
        r"\d+\.\d\d% \((\d+/18)\), lr \S+, \d+\.\d s\n",
        news,
    )
    # Besides the training's own lines, the evaluation and the summary say the accuracy once each.
    said = re.findall(r"^\S+ (\w+): .*\(\d+/18\)", news, re.MULTILINE)
    assert said == ["train"] * said.count("train") + ["validate"]
    assert len(re.findall(r"\(\d+/18\)", summary)) == 1
