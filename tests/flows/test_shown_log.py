"""Which lines of a flow's log its command shows, and how."""

import logging
from collections.abc import Iterator

import pytest
from prefect.logging.handlers import PrefectConsoleHandler
from prefect.settings import PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

from flows.shown_log import log_on
from infra.base.console import Console
from tasks.programs import SHOWN_OTHERWISE


class Recorded(Console):
    """A console that remembers its lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def _write(self, line: str, *, is_warning: bool) -> None:
        self.lines.append(f"! {line}" if is_warning else line)


@pytest.fixture
def of_prefect() -> Iterator[PrefectConsoleHandler]:
    """The only handler, by which Prefect would show the log; no server gets it."""
    root = logging.getLogger()
    before, handler = root.handlers[:], PrefectConsoleHandler()
    root.handlers[:] = [handler]
    with temporary_settings({PREFECT_LOGGING_TO_API_ENABLED: False}):
        yield handler
    root.handlers[:] = before


def log(name: str, level: int, text: str, **extra: object) -> None:
    logger = logging.getLogger(name)
    named = {"flow_run_name": "tiny", "task_run_name": "", **extra}
    logger.handle(logger.makeRecord(name, level, "file", 1, text, (), None, None, named))


def test_news_of_tasks_and_of_the_store_and_all_warnings_are_shown_once_with_their_stage(
    of_prefect: PrefectConsoleHandler,
) -> None:
    shown = Recorded()
    shown.stage("train")
    task = {"task_run_name": "train-a1b"}
    with log_on(shown, verbose=False):
        for _ in range(2):
            log("prefect.task_runs", logging.INFO, "[rank 0] training steps 1 to 12", **task)
        log("prefect.task_runs", logging.INFO, "device CPU: chosen by --device_target", **task)
        log("prefect.task_runs", logging.INFO, "train: built in 3.1 s", **task)
        log("prefect.task_runs", logging.INFO, "epoch 1/2, 40 %", **task, **{SHOWN_OTHERWISE: True})
        log("prefect.flow_runs", logging.INFO, "Beginning flow run 'tiny' for flow 'train-sknet'")
        log("infra.artifacts.building", logging.INFO, "waiting for another builder")
        log("httpx", logging.INFO, "HTTP Request: POST")
        log("docket", logging.WARNING, "the disk is nearly full")
        assert of_prefect not in logging.getLogger().handlers
    assert shown.lines == [
        "train: training steps 1 to 12",
        "train: built in 3.1 s",
        "train: waiting for another builder",
        "! train: warning: the disk is nearly full",
    ]
    assert of_prefect in logging.getLogger().handlers


def test_verbose_shows_all_lines_as_prefect_does_but_for_what_is_shown_otherwise(
    of_prefect: PrefectConsoleHandler,
) -> None:
    seen: list[str] = []
    of_prefect.emit = lambda record: seen.append(record.getMessage())  # type: ignore[method-assign]
    shown = Recorded()
    with log_on(shown, verbose=True):
        log("prefect.flow_runs", logging.WARNING, "Beginning flow run")
        log("prefect.task_runs", logging.WARNING, "40 %", **{SHOWN_OTHERWISE: True})
    assert (seen, shown.lines) == (["Beginning flow run"], [])
    log("prefect.task_runs", logging.WARNING, "40 %", **{SHOWN_OTHERWISE: True})
    assert seen[1:] == ["40 %"], "the filter was left"
