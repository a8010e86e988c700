"""What a task returns, and how it finds or builds its artifact."""

from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.exceptions import TerminationSignal
from prefect.states import Completed
from prefect.tasks import Task
from pydantic import BaseModel, ConfigDict, JsonValue

from infra.artifacts import (
    Artifact,
    ArtifactSpec,
    ArtifactStore,
    BuildOutput,
    Resolution,
    resolve,
)
from infra.base.console import console
from infra.base.progress import watching
from tasks.errors import ToldToGoError, is_worth_retrying
from tasks.progress import long_work

RETRY_SECONDS = [5.0, 20.0, 60.0]
"""Pauses before each retry, in which a host or a service may restart."""

Status = Literal["reused", "built", "rebuilt", "refused"]

P = ParamSpec("P")
R = TypeVar("R")


class TaskResult(BaseModel):
    """An artifact that a task found or built. Tasks hand these on to each other."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    """Name of the task."""
    status: Status
    seconds: float
    kind: str
    key: str
    digest: str
    facts: dict[str, JsonValue] = {}
    """What the summary of the run shows of the task."""


def pipeline_task(name: str) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Return a decorator that makes a Prefect task of a function, with retries.

    The artifact store remembers results, not Prefect's cache, so that a retry is always safe. Long
    work on the store's files is shown.
    """

    in_prefect = task(
        name=name,
        cache_policy=NO_CACHE,
        retries=len(RETRY_SECONDS),
        retry_delay_seconds=RETRY_SECONDS,
        retry_condition_fn=retry_condition,
    )

    def decorate(body: Callable[P, R]) -> Task[P, R]:
        @wraps(body)
        def watched(*args: P.args, **kwargs: P.kwargs) -> R:
            console().stage(name)
            with watching(long_work):
                try:
                    return body(*args, **kwargs)
                except TerminationSignal:
                    # Which Prefect would show as a crash, with a traceback.
                    raise ToldToGoError("got SIGTERM; what was saved or finished is kept") from None

        return in_prefect(watched)

    return decorate


def retry_condition(task: Task[Any, Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Tell Prefect whether a failed state is worth another attempt."""
    del task, task_run
    failure = state.data
    if not isinstance(failure, Exception):
        failure = state.result(raise_on_failure=False)
    return isinstance(failure, Exception) and is_worth_retrying(failure)


def resolve_artifact(
    task_name: str, store: ArtifactStore, spec: ArtifactSpec, build: Callable[[Path], BuildOutput]
) -> Resolution:
    """Find the artifact of a spec in the store, or build it, and log which of them happens."""
    logger = get_run_logger()

    def announced(workspace: Path) -> BuildOutput:
        logger.info("%s: building %s/%s", task_name, spec.kind, spec.key[:12])
        return build(workspace)

    resolution = resolve(store, spec, announced)
    for damage in resolution.damages:
        logger.warning("%s: the stored artifact is damaged, set aside: %s", task_name, damage)
    logger.info("%s: %s in %.1f s", task_name, resolution.status, resolution.seconds)
    return resolution


def finish(
    task_name: str,
    resolution: Resolution,
    facts: Mapping[str, JsonValue],
    *,
    seconds_before: float = 0.0,
) -> State[TaskResult]:
    """Return the final state of a task that found or built an artifact.

    Args:
        task_name: Name of the task.
        resolution: The artifact, and how it came about.
        facts: What the summary of the run shows of the task.
        seconds_before: How long the task had worked until it could ask for the artifact.
    """
    manifest = resolution.artifact.manifest
    result = TaskResult(
        task=task_name,
        status=resolution.status,
        seconds=seconds_before + resolution.seconds,
        kind=manifest.kind,
        key=manifest.key,
        digest=manifest.digest,
        facts=dict(facts),
    )
    return completed(result)


def completed(result: TaskResult) -> State[TaskResult]:
    """Return a final state named after the result's status: Prefect shows Reused, Built, …"""
    return Completed(name=result.status.capitalize(), data=result)


def artifact_of(store: ArtifactStore, result: TaskResult) -> Artifact:
    """Return the artifact of a task's result."""
    return store.load(result.kind, result.key)
