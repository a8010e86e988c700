"""Trainings of the acceptance: killed or stopped at a step, started again, kept, or refused.

One rank of the tests' tiny network trains here; test_acceptance_miniature.py has the real ones.
"""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import flows.acceptance.bench
from flows.acceptance import trainings
from flows.acceptance.bench import Bench, Scale
from flows.acceptance.checks import CHECKS
from flows.acceptance.figures import Setting, failures
from flows.acceptance.lines import lines_of
from flows.acceptance.trainings import LineError, Start, Training, Trainings
from infra.base.outcomes import Outcome
from infra.launch import Job, JobResult
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

SETTING = Setting(device_target="CPU", cards=1, hosts=1, miniature=True)
LINES = {line.name: line for line in lines_of(SETTING)}


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def bench(
    images: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory, said: list[str]
) -> Iterator[Bench]:
    directory = tmp_path_factory.mktemp("acceptance") / "lines"
    # A training has 12 steps, and a checkpoint after every second one.
    tiny = Scale(str(recipe), ("global_batch_size=4", "jit_level=O2"), 1, 1)
    made = Bench(
        setting=SETTING,
        data=str(images),
        directory=directory,
        ascend=None,
        inputs={"mindspore": "2.10.0"},
        trainings=Trainings(directory, said.append),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flows.acceptance.bench, "MINIATURE", tiny)
        yield made


def judged(bench: Bench, line: str) -> dict[str, float | None]:
    """Run a line, whose figures all hold, and return them."""
    measured = CHECKS[line](bench)
    assert {figure.name for figure in LINES[line].figures} == measured.figures.keys()
    assert failures(LINES[line], measured.figures) == []
    assert measured.log.exists()
    return dict(measured.figures)


@pytest.fixture(scope="module")
def data(bench: Bench) -> dict[str, float | None]:
    return judged(bench, "data")


def test_images_are_converted_and_their_files_verified(
    bench: Bench, data: dict[str, float | None]
) -> None:
    assert data["training images"] == 48
    assert data["validation images"] == 18
    shard = next(bench.shards.glob("val*.mindrecord"))
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        damaged = CHECKS["data"](Bench(**{**vars(bench), "data": str(bench.shards)}))
    finally:
        shard.write_bytes(content)
    assert damaged.figures["missing or damaged files"] == 1
    assert damaged.notes == shard.name


@pytest.mark.long
def test_a_killed_training_resumes_with_the_bytes_of_the_undisturbed_one(
    bench: Bench, data: dict[str, float | None], said: list[str]
) -> None:
    judged(bench, "training")
    figures = judged(bench, "kill")
    assert (figures["processes left"], figures["compared checkpoints"]) == (0, 2)
    assert figures["time from SIGKILL to the end of the job"] is not None
    record = bench.directory / "kill/killed/training.json"
    before = record.read_bytes()
    said.clear()
    assert judged(bench, "kill") == figures
    assert (said, record.read_bytes()) == ([], before)


@pytest.mark.long
def test_bytes_are_left_empty_if_two_undisturbed_trainings_differ(
    bench: Bench, data: dict[str, float | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "failed", {"bits"})
    measured = CHECKS["kill"](bench)
    assert measured.figures["checkpoints that differ from the undisturbed training"] is None
    assert measured.notes == "bytes aren't compared, because the line bits failed"


@pytest.mark.long
def test_a_changed_byte_is_found(bench: Bench, data: dict[str, float | None]) -> None:
    report = bench.undisturbed()
    other = dict(report.checkpoints)
    other[4] = "0" * 64
    changed = report.model_copy(update={"checkpoints": other})
    (bench.directory / "training/undisturbed/training.json").write_bytes(changed.encode())
    try:
        measured = CHECKS["kill"](bench)
    finally:
        (bench.directory / "training/undisturbed/training.json").write_bytes(report.encode())
    assert failures(LINES["kill"], measured.figures) == [
        "checkpoints that differ from the undisturbed training: 1, expected exactly 0"
    ]


@pytest.mark.long
def test_a_diverging_training_names_its_step(bench: Bench, data: dict[str, float | None]) -> None:
    figures = judged(bench, "nan")
    assert figures["steps from the last logged loss to the step that is named"] in (0, 1)


@pytest.mark.parametrize(("hosts", "left"), [(1, 1), (2, None)])
def test_a_process_that_a_job_leaves_is_found_though_it_is_an_orphan(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hosts: int, left: int | None
) -> None:
    """With several hosts, those of the others can't be known."""
    orphans: list[int] = []

    def leave_a_process(job: Job, *_: object, **__: object) -> JobResult:
        shell = subprocess.run(
            ["sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!"],
            env={**os.environ, **job.env},
            stdout=subprocess.PIPE,
            check=True,
        )
        orphans.append(int(shell.stdout))
        return JobResult(status=Outcome.DONE, message="", return_code=0, seconds=1, log_tail=())

    for name in ("run", "run_on_hosts"):
        monkeypatch.setattr(trainings, name, leave_a_process)
    monkeypatch.setattr(trainings, "gang_of", lambda *_: object())
    monkeypatch.setattr(trainings, "LEAVE_SECONDS", 0.1)
    plan = Training(
        name="kill/left",
        recipe="skresnet18_digits",
        overrides=(),
        device_target="CPU",
        cards=1,
        hosts=hosts,
        bind_core=False,
        starts=(Start(action=None, at_step=0, ends=Outcome.DONE),),
    )
    try:
        report = Trainings(tmp_path, lambda _: None).report(plan, tmp_path, {})
    finally:
        for orphan in orphans:
            os.kill(orphan, signal.SIGKILL)
    assert report.starts[0].processes_left == left


def test_a_training_that_ends_otherwise_fails_with_its_reason_and_is_not_tried_twice(
    bench: Bench, data: dict[str, float | None], said: list[str]
) -> None:
    start = Start(action=None, at_step=0, ends=Outcome.NON_FINITE)
    for _ in range(2):
        with pytest.raises(LineError) as caught:
            bench.train("nan/impossible", start, overrides=("num_classes=7",))
        assert str(caught.value) == (
            "start 1 of training nan/impossible ended as user_error, expected non_finite: "
            "num_classes is 7, but the data set has 3 classes"
        )
        assert caught.value.log == bench.directory / "nan/impossible/logs-1/worker_0.log"
    assert said.count("training nan/impossible, start 1 of 1") == 1


@pytest.mark.long
def test_sigusr1_from_outside_interrupts_the_acceptance(
    bench: Bench, data: dict[str, float | None]
) -> None:
    def send() -> None:
        metrics = bench.directory / "stop/by-hand/ckpt/metrics.jsonl"
        wait_for(lambda: metrics.exists() and b'"compile"' in metrics.read_bytes())
        os.kill(os.getpid(), signal.SIGUSR1)

    sender = threading.Thread(target=send)
    sender.start()
    never = Start(action="stop", at_step=1000, ends=Outcome.STOPPED)
    with pytest.raises(KeyboardInterrupt):
        bench.train("stop/by-hand", never, overrides=("epoch_size=200",))
    sender.join()
    assert not (bench.directory / "stop/by-hand/training.json").exists()
    assert psutil.Process().children(recursive=True) == []
