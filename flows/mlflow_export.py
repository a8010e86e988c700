"""Export the runs of a store to MLflow, from their records; training knows nothing of it.

python -m flows.mlflow_export --store URI --tracking-uri URI [--experiment NAME]
"""

import hashlib
import json
import os
import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from infra.artifacts import ArtifactStore, default_store, open_store
from infra.base.commands import OPTIONS, STORE, ConsoleOptions, app_of, start
from infra.base.console import showing_work
from infra.base.files import file_sha256
from infra.base.interrupts import run_interruptible
from infra.base.outcomes import ExitCode
from infra.base.progress import work
from sknet.errors import UserError
from tasks.catalog.mlflow_runs import KEY_TAG, MlflowRun, Point, mlflow_run
from tasks.catalog.runs import collect

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOCAL_SERVER = "http://127.0.0.1:5000"
"""Where MLflow's own command starts a server."""

DIGEST_TAG = "sknet.exported"
"""Digest of what was exported of a run; set last, so that an interrupted export is completed."""

BATCH = 1000
"""Most metrics that MLflow takes in one request."""

PARAM_BATCH = 100
"""Most parameters that MLflow takes in one request."""

Status = Literal["exported", "updated", "unchanged"]


def main(arguments: "Options") -> int:
    """Export all runs; return 0 done, 1 the server failed, 2 the input is wrong."""
    return run_interruptible(partial(_run, arguments))


def _run(arguments: "Options") -> int:
    server = arguments.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or LOCAL_SERVER
    phase = f"connecting to {server}"
    try:
        store = open_store(arguments.store or default_store(), create=False)
        with showing_work(phase, quiet=arguments.quiet, verbose=arguments.verbose):
            statuses = export(store, server, arguments.experiment)
    except (OSError, ServerError) as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.FAILED
    for key, status in statuses.items():
        print(f"{status:<9}  {key[:10]}")
    print(f"{len(statuses)} runs are in {arguments.experiment!r} of {server}")
    return ExitCode.DONE


class ServerError(RuntimeError):
    """MLflow's server didn't do what was asked. Exit code 1; the same command goes on."""


def export(store: ArtifactStore, tracking_uri: str, experiment: str) -> dict[str, Status]:
    """Export every run of a store that isn't there as it is now.

    The same store exported again changes nothing; an interrupted export is completed by the next.

    Args:
        store: The store.
        tracking_uri: MLflow's server, such as http://127.0.0.1:5000.
        experiment: Name of the experiment, which is made if there is none.

    Returns:
        Key of each run → what was done, the oldest run first.

    Raises:
        UserError: MLflow isn't installed, the address has another form, or the experiment was
            deleted there.
        ServerError: The server can't be reached, or refuses something.
    """
    if not tracking_uri.startswith(("http://", "https://")):
        raise UserError(
            f"--tracking-uri {tracking_uri!r} is no server: expected http://HOST:PORT or https://…"
        )
    # MLflow reports its use to its makers unless told otherwise, before it is imported.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    try:
        from mlflow import MlflowClient
    except ImportError:
        raise UserError("the export needs MLflow's client: pip install 'sknet[mlflow]'") from None
    return export_runs(MlflowClient(tracking_uri), store, experiment)


def export_runs(client: "MlflowClient", store: ArtifactStore, experiment: str) -> dict[str, Status]:
    """Export every run as `export` does, by a client of MLflow."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException  # files are uploaded by requests of their own

    statuses: dict[str, Status] = {}
    doing = f"experiment {experiment!r}"
    try:
        known = client.get_experiment_by_name(experiment)
        if known and known.lifecycle_stage == "deleted":
            raise UserError(
                f"--experiment {experiment!r} was deleted at {client.tracking_uri}: restore it "
                f"there (`mlflow experiments restore -x {known.experiment_id}`), or give another "
                "name"
            )
        number = known.experiment_id if known else client.create_experiment(experiment)
        runs = collect(store).runs
        with work(f"exporting {len(runs)} runs", len(runs)) as count:
            for run in reversed(runs):
                doing = f"run {run.short_key} in experiment {experiment!r}"
                statuses[run.key] = _export(client, number, mlflow_run(store, run))
                count(1)
    except (MlflowException, RequestException) as error:
        reason = " ".join(str(error).split())[:300]
        raise ServerError(f"MLflow at {client.tracking_uri} failed, {doing}: {reason}") from None
    return statuses


def _export(client: "MlflowClient", experiment: str, run: MlflowRun) -> Status:
    """Make a run in MLflow equal to that of the store."""
    from mlflow.entities import Metric, Param

    found = client.search_runs([experiment], f"tags.`{KEY_TAG}` = '{run.key}'", max_results=1)
    digest = _digest(run)
    if found and found[0].data.tags.get(DIGEST_TAG) == digest:
        return "unchanged"
    target = (
        found[0]
        if found
        else client.create_run(experiment, run.began_ms, {KEY_TAG: run.key}, run.name)
    )
    number = target.info.run_id
    # MLflow refuses another value of a parameter, which a later version may write otherwise.
    known = found[0].data.params if found else {}
    params = [Param(name, value) for name, value in run.params.items() if name not in known]
    for first in range(0, len(params), PARAM_BATCH):
        client.log_batch(number, params=params[first : first + PARAM_BATCH])
    there = _points(client, number, {point.metric for point in run.points}) if found else set()
    metrics = [
        Metric(point.metric, point.value, run.ended_ms, point.step)
        for point in run.points
        if point not in there
    ]
    for first in range(0, len(metrics), BATCH):
        client.log_batch(number, metrics=metrics[first : first + BATCH])
    for directory, path in run.files:
        client.log_artifact(number, str(path), directory)
    for name, value in run.tags.items():
        client.set_tag(number, name, value)
    client.set_terminated(number, end_time=run.ended_ms)
    client.set_tag(number, DIGEST_TAG, digest)
    return "updated" if found else "exported"


def _points(client: "MlflowClient", number: str, metrics: set[str]) -> set[Point]:
    """Return the values that MLflow has of a run's metrics."""
    return {
        Point(each.key, each.value, each.step)
        for metric in metrics
        for each in client.get_metric_history(number, metric)
    }


def _digest(run: MlflowRun) -> str:
    """Return a digest of all that is exported of a run."""
    content: list[Any] = [
        run.name,
        run.began_ms,
        run.ended_ms,
        dict(run.params),
        run.points,
        dict(run.tags),
        [(directory, path.name, file_sha256(path)) for directory, path in run.files],
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Options(ConsoleOptions):
    """The store, and MLflow's server."""

    store: Annotated[str | None, STORE] = None
    """The artifact store: a path, file:///… or s3://…"""
    tracking_uri: Annotated[
        str | None, Parameter(show_default=f"MLFLOW_TRACKING_URI, or {LOCAL_SERVER}")
    ] = None
    """Address of MLflow's server."""
    experiment: str = "sknet"
    """Name of the experiment; made if there is none."""


DEFAULTS = Options()


def command(options: Annotated[Options, OPTIONS] = DEFAULTS) -> int:
    """Export the runs of a store to MLflow, from their records; the same command updates them.

    Example: `sknet mlflow --store artifacts --tracking-uri http://127.0.0.1:5000`
    """
    return main(options)


if __name__ == "__main__":
    sys.exit(start(app_of(command, "python -m flows.mlflow_export")))
