"""Which failures are tried again, and how a stage's result becomes its task's state."""

from uuid import uuid4

import pytest
from prefect import flow, task
from prefect.client.schemas.objects import TaskRun
from prefect.states import Completed, exception_to_failed_state

from infra.artifacts import DamagedArtifactError, StoreError
from sknet.errors import DiskFullError, NonFiniteLossError, UserError
from tasks.results import (
    JobFailedError,
    JobStoppedError,
    LostWorkerError,
    OutOfMemoryError,
    StageResult,
    completed,
    results_of,
    worth_retrying,
)

RUN = TaskRun(flow_run_id=uuid4(), task_key="stage", dynamic_key="0")
RESULT = StageResult(
    stage="train", status="rebuilt", seconds=1.5, kind="checkpoint", key="k", digest="d"
)


@task
def nothing() -> None: ...


def retried(error: Exception) -> bool:
    import asyncio

    state = asyncio.run(exception_to_failed_state(error))
    return worth_retrying(nothing, RUN, state)


@pytest.mark.parametrize(
    "error",
    [
        LostWorkerError("rank 1 was killed"),
        OutOfMemoryError("the kernel killed rank 1"),
        DiskFullError("of 3 MB 1 MB is free"),
        OSError("disk full"),
        ConnectionError("reset"),
    ],
)
def test_lost_workers_and_io_errors_are_tried_again(error: Exception) -> None:
    assert retried(error)


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
        KeyError("a fault of ours"),
    ],
)
def test_failures_that_would_repeat_are_not_tried_again(error: Exception) -> None:
    assert not retried(error)


def test_a_finished_stage_is_a_state_named_after_its_status() -> None:
    state = completed(RESULT)
    assert (state.type, state.name) == (Completed().type, "Rebuilt")  # type: ignore[attr-defined]
    assert results_of(state, RESULT) == [RESULT, RESULT]


def test_a_result_is_the_same_after_json() -> None:
    assert StageResult.model_validate_json(RESULT.model_dump_json()) == RESULT


@pytest.mark.usefixtures("flow_harness")
@pytest.mark.parametrize(
    ("error", "tries"), [(UserError("no such class"), 1), (LostWorkerError("rank 1"), 3)]
)
def test_a_flow_tries_a_task_as_often_as_its_error_is_worth(error: Exception, tries: int) -> None:
    calls = []

    @task(retries=2, retry_delay_seconds=0, retry_condition_fn=worth_retrying)
    def failing() -> None:
        calls.append(1)
        raise error

    @flow(name="failing")
    def run() -> None:
        failing()

    with pytest.raises(type(error), match=str(error)):
        run()
    assert len(calls) == tries
