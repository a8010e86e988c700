"""Which failures are retried, and how a task's result becomes its state."""

import pytest
from prefect import flow

import tasks.results
from infra.artifacts import DamagedArtifactError, StoreError
from sknet.errors import DiskFullError, NonFiniteLossError, UserError
from tasks.errors import (
    JobFailedError,
    JobStoppedError,
    LostWorkerError,
    OutOfMemoryError,
    is_worth_retrying,
)
from tasks.results import TaskResult, completed, pipeline_task

RESULT = TaskResult(
    task="train", status="rebuilt", seconds=1.5, kind="checkpoint", key="k", digest="d"
)


@pytest.mark.parametrize(
    "error",
    [
        LostWorkerError("rank 1 was killed"),
        OutOfMemoryError("the kernel killed rank 1"),
        DiskFullError("needs 3 MB, 1 MB is free"),
        OSError("disk full"),
        ConnectionError("reset"),
    ],
)
def test_lost_workers_and_io_errors_are_retried(error: Exception) -> None:
    assert is_worth_retrying(error)


@pytest.mark.parametrize(
    "error",
    [
        UserError("no such class"),
        StoreError("no such artifact"),
        DamagedArtifactError("bytes differ"),
        NonFiniteLossError("loss is nan"),
        JobFailedError("exit code 1"),
        JobStoppedError("at step 7"),
        MemoryError("of the flow's own process"),
        KeyError("a bug"),
        None,
    ],
)
def test_failures_that_would_repeat_are_not_retried(error: Exception | None) -> None:
    assert not is_worth_retrying(error)


@pytest.mark.usefixtures("flow_harness")
@pytest.mark.parametrize(
    ("error", "num_tries"), [(UserError("no such class"), 1), (LostWorkerError("rank 1"), 3)]
)
def test_a_task_is_tried_as_often_as_its_error_is_worth(
    error: Exception, num_tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.results, "RETRY_SECONDS", [0.0, 0.0])
    calls = []

    @pipeline_task("failing")
    def failing() -> None:
        calls.append(1)
        raise error

    @flow(name="failing")
    def run() -> None:
        failing()

    with pytest.raises(type(error), match=str(error)):
        run()
    assert len(calls) == num_tries


def test_the_final_state_is_named_after_the_status_and_holds_the_result() -> None:
    state = completed(RESULT)
    assert (state.type, state.name) == ("COMPLETED", "Rebuilt")
    assert state.result() == RESULT


def test_a_result_is_unchanged_by_json() -> None:
    assert TaskResult.model_validate_json(RESULT.model_dump_json()) == RESULT
