"""Killed at any stage and started again, a run ends with the bytes of an undisturbed one."""

import json
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from prefect.settings import PREFECT_API_URL

from infra.artifacts import open_store
from tests.tiny_pipeline import ROOT, Trained, digests, processes_marked, train_command

pytestmark = pytest.mark.slow

# When is a stage at work? Its program runs, and has written the first of this.
AT_WORK = {
    "convert": ".work/shards/*/logs/convert-*/*",
    "train": ".work/checkpoint/*/checkpoints/step-*",
    "validate": ".work/evaluation/*/logs/validate-*/*",
}
MARK = "SKNET_TEST_ID"
SECONDS_TO_VANISH = 15
# No promise: what must come may come late where other tests run beside.
PATIENCE = 300


class Runs:
    """Starts one command again and again, each time in a session of its own, marked."""

    def __init__(self, command: list[str], log: Path) -> None:
        self.mark = uuid.uuid4().hex
        self._command = command
        self._log = log

    def start(self, *, own_server: bool = False) -> subprocess.Popen[bytes]:
        """With the harness's server, which is there already, or with a temporary one as at home."""
        env = {**os.environ, MARK: self.mark}
        if not own_server:
            api = PREFECT_API_URL.value()
            assert api, "the flow harness has no server"
            env["PREFECT_API_URL"] = api
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=env,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def living(self) -> list[psutil.Process]:
        return processes_marked(MARK, self.mark)

    def programs(self) -> set[str]:
        """Names of the files that the processes run."""
        names = set()
        for process in self.living():
            try:
                names |= {Path(word).name for word in process.cmdline()}
            except psutil.Error:
                continue
        return names

    def signal_in(self, stage: str, store: Path, number: int, *, own_server: bool = False) -> int:
        """Run until the stage is at work, signal the flow's process alone, return its exit code."""
        process = self.start(own_server=own_server)
        wait_for(
            lambda: (
                process.poll() is not None
                or (any(store.glob(AT_WORK[stage])) and f"{stage}.py" in self.programs())
            ),
            PATIENCE,
            self.said,
        )
        assert process.poll() is None, f"ended before it could be stopped:\n{self.said()}"
        process.send_signal(number)
        code = process.wait(SECONDS_TO_VANISH)
        wait_for(lambda: not self.living(), SECONDS_TO_VANISH, lambda: str(self.living()))
        return code

    def said(self) -> str:
        return self._log.read_text("utf-8")


def wait_for(condition: Callable[[], bool], seconds: float, explain: Callable[[], str]) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s:\n{explain()}"
        time.sleep(0.05)


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
    for process in result.living():
        process.kill()


def test_a_run_killed_in_three_stages_ends_like_an_undisturbed_one(
    trained: Trained, runs: Runs, store: Path
) -> None:
    for stage in AT_WORK:
        assert runs.signal_in(stage, store, signal.SIGKILL) == -signal.SIGKILL

    last = runs.start()
    assert last.wait(PATIENCE) == 0, runs.said()

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
    for kind in ("dataset", "shards"):
        shutil.copytree(trained.store / kind, store / kind)
    assert runs.signal_in("train", store, signal.SIGTERM, own_server=True) == 1
    assert "error: interrupted; the same command goes on from here" in runs.said()
    assert not any(store.glob("checkpoint/*"))
