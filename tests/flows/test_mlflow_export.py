"""Runs of a store come to a real server of MLflow, once, as their records have them."""

import math
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from flows.mlflow_export import ServerError, command, export_runs
from infra.artifacts import LocalStore
from infra.base.commands import app_of, start
from infra.base.outcomes import UserError
from tasks.catalog.mlflow_runs import KEY_TAG, mlflow_run
from tasks.catalog.runs import collect
from tests.documented import documented
from tests.passports import promoted_store
from tests.synthetic_store import Filler
from tests.waiting import HANG_SECONDS, wait_for

if TYPE_CHECKING:
    from mlflow import MlflowClient


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    return promoted_store(tmp_path_factory.mktemp("mlflow") / "store")


def run(store: LocalStore, *words: str) -> int:
    return export("--store", str(store.root), *words)


def export(*words: str) -> int:
    return start(app_of(command, "mlflow"), words)


def test_an_address_that_is_no_server_is_refused(
    store: LocalStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(store, "--tracking-uri", "mlruns") == 2
    assert "expected http://HOST:PORT" in capsys.readouterr().err


def test_a_run_is_shown_with_what_counts_of_its_log_and_all_results(store: LocalStore) -> None:
    (trained,) = collect(store).runs
    shown = mlflow_run(store, trained)
    assert trained.evaluation is not None
    points = {(each.metric, each.step): each.value for each in shown.points}
    last = trained.history.steps[-1]
    assert points["train/loss", last.step] == last.loss
    where = f"evaluation_{trained.evaluation.resolution}"
    assert points[f"{where}/accuracy_top1", trained.steps] == trained.evaluation.accuracy_top1
    assert (shown.params["lr"], shown.params["world_size"]) == (str(trained.recipe.lr), "2")
    assert (shown.tags["sknet.production"], shown.tags["sknet.promotion"]) == ("true", "granted")
    assert {path.name for _, path in shown.files} >= {"evaluation.json", "checks.json"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of MLflow."""
    directory = tmp_path_factory.mktemp("server")
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    words = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += ["--backend-store-uri", f"sqlite:///{directory}/mlflow.db"]
    words += ["--artifacts-destination", str(directory / "artifacts")]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", *words],
        cwd=directory,
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONPATH": ""},
        stdout=(directory / "log").open("wb"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        wait_for(lambda: answers(address))
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait(HANG_SECONDS)


def answers(address: str) -> bool:
    try:
        return requests.get(f"{address}/health", timeout=5).ok
    except requests.ConnectionError:
        return False


def content(client: "MlflowClient", experiment: str) -> dict[str, Any]:
    """Return all that MLflow shows of an experiment."""
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return {
        run.data.tags[KEY_TAG]: (
            run.info.run_id,
            run.info.status,
            dict(run.data.params),
            {
                name: [
                    (each.step, each.value)
                    for each in client.get_metric_history(run.info.run_id, name)
                ]
                for name in run.data.metrics
            },
            dict(run.data.tags),
            sorted(
                each.path
                for directory in client.list_artifacts(run.info.run_id)
                for each in client.list_artifacts(run.info.run_id, directory.path)
            ),
        )
        for run in client.search_runs([found.experiment_id])
    }


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # MLflow's
def test_an_export_repeated_interrupted_or_after_a_change_leaves_each_run_once(
    store: LocalStore, server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(server)
    page = documented(
        "sknet mlflow",
        {"artifacts": store.root, "http://127.0.0.1:5000": server},
        page="docs/passport.md",
    )[2:]
    assert export(*page) == 0
    assert "exported" in capsys.readouterr().out
    first = content(client, "sknet")
    (trained,) = collect(store).runs
    shown = mlflow_run(store, trained)
    number, status, params, metrics, tags, files = first[trained.key]
    assert status == "FINISHED"
    assert params == shown.params
    assert {
        (name, value, step) for name, values in metrics.items() for step, value in values
    } == set(shown.points)
    assert tags["sknet.checkpoint"] == trained.checkpoint_digest
    assert files == sorted(f"{directory}/{path.name}" for directory, path in shown.files)

    assert export(*page) == 0
    assert "unchanged" in capsys.readouterr().out
    assert content(client, "sknet") == first

    # As if an export had been killed before its end.
    client.delete_tag(number, "sknet.exported")
    client.update_run(number, "RUNNING")
    Filler.run(filler_of(store), 2)
    assert export(*page) == 0
    said = capsys.readouterr().out
    assert "updated" in said
    assert "exported" in said
    again = content(client, "sknet")
    assert len(again) == 2
    assert again[trained.key] == first[trained.key]

    current = store.refs.get("production")
    other = next(each for each in store.list("checkpoint") if each.key != trained.key)
    store.refs.set("production", other, expected=current, reason="better")
    assert export(*page) == 0
    tags_now = {
        key: values[4]["sknet.production"] for key, values in content(client, "sknet").items()
    }
    assert tags_now == {trained.key: "false", other.key: "true"}


@pytest.mark.filterwarnings("ignore")  # MLflow's
def test_an_export_is_completed_and_one_that_mlflow_refuses_is_explained(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With MLflow's client and a database alone, as a server takes long to start."""
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)  # where MLflow writes files then
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (trained,) = collect(store).runs
    assert export_runs(client, store, "mine") == {trained.key: "exported"}
    assert export_runs(client, store, "mine") == {trained.key: "unchanged"}
    first = content(client, "mine")
    number = first[trained.key][0]
    client.delete_tag(number, "sknet.exported")
    assert export_runs(client, store, "mine") == {trained.key: "updated"}
    assert content(client, "mine") == first

    # What a user moved to the trash stays there, and the run is exported again.
    client.delete_run(number)
    assert export_runs(client, store, "mine") == {trained.key: "exported"}

    known = client.get_experiment_by_name("mine")
    assert known is not None
    client.delete_experiment(known.experiment_id)
    with pytest.raises(UserError, match=r"'mine' was deleted at sqlite.*restore -x \d+"):
        export_runs(client, store, "mine")

    monkeypatch.setattr("tasks.catalog.mlflow_runs.KEY_TAG", "a" * 300)
    with pytest.raises(ServerError, match=f"failed, run {trained.short_key} in experiment 'other'"):
        export_runs(client, store, "other")


def test_what_mlflow_does_not_take_is_left_out_or_cut(store: LocalStore) -> None:
    (trained,) = collect(store).runs
    lines = [{"type": "step", "step": 1, "loss": math.nan, "lr": math.inf}, *trained.log]
    recipe = trained.recipe.model_copy(update={"model": "long" * 2000})
    changed = trained.model_copy(
        update={"log": lines, "suspect": "why " * 2000, "recipe": recipe, "created": ""}
    )
    shown = mlflow_run(store, changed)
    assert all(math.isfinite(point.value) for point in shown.points)
    assert len(shown.params["model"]) == 6000
    assert len(shown.tags["sknet.suspect"]) == 5000


def test_a_server_that_is_not_there_is_named(
    store: LocalStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert run(store, "--tracking-uri", "http://127.0.0.1:9") == 1
    assert "MLflow at http://127.0.0.1:9 failed" in capsys.readouterr().err


def filler_of(store: LocalStore) -> Filler:
    """Return what adds runs to the store, on the data that it has."""
    filler = Filler.__new__(Filler)
    filler.store = store
    filler._scratch = Path(f"{store.root}-scratch")
    (filler.dataset,) = store.list("dataset")
    (filler.shards,) = store.list("shards")
    return filler
