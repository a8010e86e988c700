"""How a job ended becomes the error that its task's retries are decided by."""

import pytest

from infra.launch import JobResult, Outcome
from sknet.errors import DiskFullError, NonFiniteLossError, UserError
from tasks.programs import LESS_MEMORY, raise_unless_done
from tasks.results import JobFailedError, JobStoppedError, LostWorkerError, OutOfMemoryError


def result_of(status: Outcome, message: str) -> JobResult:
    return JobResult(status=status, message=message, return_code=1, seconds=1.0, log_tail=())


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (Outcome.USER_ERROR, UserError),
        (Outcome.NON_FINITE, NonFiniteLossError),
        (Outcome.LOST_WORKER, LostWorkerError),
        (Outcome.DISK_FULL, DiskFullError),
        (Outcome.STOPPED, JobStoppedError),
        (Outcome.FAILED, JobFailedError),
    ],
)
def test_each_way_to_end_has_its_error(status: Outcome, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        raise_unless_done(result_of(status, "why"), "train")
    assert (type(caught.value), str(caught.value)) == (error, "why")
    raise_unless_done(result_of(Outcome.DONE, ""), "train")


@pytest.mark.parametrize("program", LESS_MEMORY)
def test_want_of_memory_comes_with_what_to_lower(program: str) -> None:
    message = "out of memory on one: limit: 300 MB\nexit code 137, logs in there"
    with pytest.raises(OutOfMemoryError) as caught:
        raise_unless_done(result_of(Outcome.OUT_OF_MEMORY, message), program)
    figures, details = str(caught.value).splitlines()
    assert figures == (
        f"out of memory on one: limit: 300 MB; it takes less with {LESS_MEMORY[program]}"
    )
    assert details == "exit code 137, logs in there"
