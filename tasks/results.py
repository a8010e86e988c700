"""What tasks share: the result of a stage, finding artifacts, and which failures to retry."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, cast

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Completed
from prefect.tasks import Task
from pydantic import BaseModel, ConfigDict, JsonValue

from infra.artifacts import (
    Artifact,
    ArtifactSpec,
    ArtifactStore,
    BuildOutput,
    Manifest,
    Resolution,
    StoreError,
    resolve,
)
from sknet.errors import NonFiniteLossError, UserError

# The pauses before each retry: a host that restarts, or a service, gets time to come back.
RETRY_SECONDS = [5.0, 20.0, 60.0]

Status = Literal["reused", "built", "rebuilt", "refused"]


class StageResult(BaseModel):
    """A finished stage: its artifact in the store, and how it came about. JSON between tasks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    status: Status
    seconds: float
    kind: str
    key: str
    digest: str
    facts: dict[str, JsonValue] = {}
    """What the summary tells of the stage."""


class LostWorkerError(RuntimeError):
    """A process of the job died or hung; what was done is kept, so trying again is safe."""


class OutOfMemoryError(LostWorkerError):
    """The kernel killed a process of the job for want of memory.

    Trying again goes on from what was done, and what else took the memory may be gone by then.
    """


class JobFailedError(RuntimeError):
    """The job ended by itself with a failure that another try would repeat."""


class JobStoppedError(RuntimeError):
    """The job was asked to stop, and did; a new run goes on from its last checkpoint."""


class RegressionError(RuntimeError):
    """The promoted checkpoint is not what was recorded of it."""


FAILURES = (UserError, StoreError, NonFiniteLossError, JobFailedError)
"""What another try would only repeat."""


def worth_retrying(task: Task[Any, Any], task_run: TaskRun, state: State[Any]) -> bool:
    """I/O errors, a full disk and lost workers or hosts pass; wrong input and a diverged loss stay.

    So does memory that a program was refused by a limit of its own (a JobFailedError). A job that
    was asked to stop is not to start again.
    """
    del task, task_run
    error = state.data if isinstance(state.data, Exception) else _raised(state)
    if isinstance(error, (*FAILURES, JobStoppedError)):
        return False
    return isinstance(error, LostWorkerError | OSError)


P = ParamSpec("P")
R = TypeVar("R")


def stage_task(name: str) -> Callable[[Callable[P, R]], Task[P, R]]:
    """A task for a stage: its memory is the artifact store, and trying it again is safe."""
    return task(
        name=name,
        cache_policy=NO_CACHE,
        retries=len(RETRY_SECONDS),
        retry_delay_seconds=RETRY_SECONDS,
        retry_condition_fn=worth_retrying,
    )


def _raised(state: State[Any]) -> BaseException | None:
    result = state.result(raise_on_failure=False)
    return result if isinstance(result, BaseException) else None


def resolve_stage(
    stage: str, store: ArtifactStore, spec: ArtifactSpec, build: Callable[[Path], BuildOutput]
) -> Resolution:
    """Reuse or build a stage's artifact, and tell the log which of them while it happens."""
    logger = get_run_logger()

    def announced(workspace: Path) -> BuildOutput:
        logger.info("%s: at work on %s/%s", stage, spec.kind, spec.key[:12])
        return build(workspace)

    resolution = resolve(store, spec, announced)
    for damage in resolution.damages:
        logger.warning("%s: what was there is damaged and was set aside: %s", stage, damage)
    logger.info("%s: %s in %.1f s", stage, resolution.status, resolution.seconds)
    return resolution


def finish(stage: str, resolution: Resolution, facts: Mapping[str, JsonValue]) -> StageResult:
    """End a stage's task with the result of its resolution."""
    manifest = resolution.artifact.manifest
    result = StageResult(
        stage=stage,
        status=resolution.status,
        seconds=resolution.seconds,
        kind=manifest.kind,
        key=manifest.key,
        digest=manifest.digest,
        facts=dict(facts),
    )
    return completed(result)


def completed(result: StageResult) -> StageResult:
    """A state named after what happened, so that the UI shows Reused, Built, … for the task.

    Prefect hands the caller of the task this state, and a task that gets it the result in it.
    """
    return cast(StageResult, Completed(name=result.status.capitalize(), data=result))


def results_of(*stages: StageResult) -> list[StageResult]:
    """What finished stages returned, for the flow's own code."""
    return [stage.result() if isinstance(stage, State) else stage for stage in stages]


def artifact_of(store: ArtifactStore, result: StageResult) -> Artifact:
    """The artifact of an earlier stage."""
    return store.load(result.kind, result.key)


def newest(manifests: Iterable[Manifest]) -> Manifest | None:
    """The one that was made last."""
    return max(manifests, key=lambda m: str(m.provenance.get("created", "")), default=None)
