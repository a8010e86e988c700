"""Long work of a task on Prefect's pages."""

import logging
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from prefect import flow, runtime

import infra.base.progress
from infra.base.progress import work
from tasks.results import pipeline_task
from tests.tiny_pipeline import shown_by

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("flow_harness")]


@pipeline_task("hash")
def hash_files() -> str:
    with work("hashing shards/3f2a", 4) as count, ThreadPoolExecutor(2) as pool:
        list(pool.map(count, [1, 1, 1, 1]))
    return str(runtime.flow_run.id)


@flow
def run() -> str:
    return hash_files()


def test_work_of_any_thread_is_shown_if_it_is_long(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert shown_by(UUID(run())) == {}
    assert "hashing" not in caplog.text

    monkeypatch.setattr(infra.base.progress, "SECONDS_BETWEEN", 0.0)
    shown = shown_by(UUID(run()))["work"]
    assert (shown.type, shown.data) == ("progress", 100.0)
    assert shown.description == "Hashing shards/3f2a"
    assert shown.task_run_id is not None
    messages = [message for message in caplog.messages if message.startswith("hashing")]
    assert messages == [f"hashing shards/3f2a: {part}%" for part in (25, 50, 75, 100)]
