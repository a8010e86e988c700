"""metrics.jsonl holds each step once across resumes, and a full disk only costs lines of it."""

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sknet.training.metrics import MetricsLog, StepTimes


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Holds a start and the steps 1 to 5."""
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, 0, pytest.fail)
    log.write("start", 0)
    for step in range(1, 6):
        log.write("step", step, loss=1 / step)
    log.close()
    return path


def test_a_resumed_run_drops_the_lines_of_steps_that_it_repeats(path: Path) -> None:
    log = MetricsLog(path, 3, pytest.fail)
    log.write("start", 3)
    log.write("step", 4)
    log.close()
    assert log.restarts == 1
    assert steps(path) == [0, 1, 2, 3, 3, 4]


def test_a_line_cut_short_by_a_kill_is_dropped(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])
    MetricsLog(path, 9, pytest.fail).close()
    assert steps(path) == [0, 1, 2, 3, 4]


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """Refuse writes beyond this size, as a full disk does; Python ignores the signal for it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_full_disk_costs_whole_lines_and_one_warning(path: Path) -> None:
    warnings: list[str] = []
    log = MetricsLog(path, 5, warnings.append)
    with file_limit(path.stat().st_size + 10):
        log.write("step", 6)
        log.write("step", 7)
    log.write("step", 8)
    log.close()
    assert steps(path) == [0, 1, 2, 3, 4, 5, 8]
    (warning,) = warnings
    assert warning.startswith(f"warning: the disk takes no more lines of {path}: ")


def test_the_first_step_compiles_and_the_others_are_measured() -> None:
    times = StepTimes()
    assert times.summary(8) == {}
    for seconds in (30.0, 1.0, 2.0, 3.0):
        times.add(seconds / 4, seconds * 3 / 4)
    assert times.compile_seconds == 22.5
    assert times.summary(8, first=1) == {
        "ms_per_step": 2500.0,
        "ms_per_step_p50": 2500.0,
        "ms_per_step_p90": pytest.approx(2900.0),
        "ms_per_step_p99": pytest.approx(2990.0),
        "images_per_second": pytest.approx(3.2),
        "data_wait_share": 0.25,
    }
