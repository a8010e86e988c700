"""What `bench_flow` runs in fresh processes: an empty flow, tasks without Prefect, its reports.

python -m tests.bench.flow_contestants empty
python -m tests.bench.flow_contestants tasks RECIPE DATA STORE ROUNDS
python -m tests.bench.flow_contestants reports COUNT
"""

import logging
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from prefect import flow, get_run_logger


@flow(name="empty")
def empty() -> None:
    """A flow that does nothing: what Prefect needs for itself."""


@flow(name="reports")
def reports(count: int) -> None:
    """Print the milliseconds of a line in the run's log, and of a step of a progress bar."""
    from tasks.programs import ProgressBar

    logger, bar = get_run_logger(), ProgressBar("bench", "A bar")
    for name, report in (
        ("line", lambda number: logger.info("step %d", number)),
        ("progress", lambda number: bar.update(number / count)),
    ):
        report(0)
        began = time.perf_counter()
        for number in range(1, count + 1):
            report(number)
        print(f"{name} {1000 * (time.perf_counter() - began) / count:.3f}")


def tasks(recipe: str, data: str, store: str, rounds: int) -> None:
    """Print the median seconds of the flow's body with plain functions instead of tasks."""
    from flows import train_sknet as module

    without_prefect(module)
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        results = module.train_sknet.fn(recipe=recipe, data=data, store=store, workers=2)
        seconds.append(time.perf_counter() - began)
    assert {result.status for result in results} <= {"reused", "refused"}, results
    print(f"tasks {statistics.median(seconds):.4f}")


def without_prefect(module: Any) -> None:
    """Replace tasks by their functions, and whatever reports to Prefect by nothing."""
    from prefect.tasks import Task

    def alone(task: Any) -> Callable[..., Any]:
        def call(*args: Any, wait_for: object = None, **options: Any) -> Any:
            return task.fn(*args, **options)

        return call

    for name, imported in list(sys.modules.items()):
        if imported is not module and not name.startswith("tasks."):
            continue
        for attribute, value in list(vars(imported).items()):
            if isinstance(value, Task):
                setattr(imported, attribute, alone(value))
            elif attribute == "get_run_logger":
                setattr(imported, attribute, lambda: logging.getLogger("tasks"))
            elif attribute.startswith(("create_", "update_", "emit_")) and _is_prefects(value):
                setattr(imported, attribute, do_nothing)


def _is_prefects(value: Any) -> bool:
    return str(getattr(value, "__module__", "")).startswith("prefect.")


def do_nothing(*args: object, **options: object) -> None:
    """Do nothing; replaces what shows something in Prefect's UI."""


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["empty"]:
            empty()
        case ["tasks", recipe, data, store, rounds]:
            tasks(recipe, data, store, int(rounds))
        case ["reports", count]:
            reports(int(count))
        case _:
            sys.exit(__doc__)
