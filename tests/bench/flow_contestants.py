"""What `bench_flow` starts in fresh processes: an empty flow, the stages without Prefect, its log.

python -m tests.bench.flow_contestants empty
python -m tests.bench.flow_contestants stages RECIPE DATA STORE ROUNDS
python -m tests.bench.flow_contestants told COUNT
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
    """What Prefect needs for itself."""


@flow(name="told")
def told(count: int) -> None:
    """Milliseconds of a line in the run's log, and of a step of a progress bar."""
    from tasks.programs import ProgressBar

    logger, bar = get_run_logger(), ProgressBar("bench", "A bar")
    for name, tell in (
        ("line", lambda number: logger.info("step %d", number)),
        ("progress", lambda number: bar.update(number / count)),
    ):
        tell(0)
        began = time.perf_counter()
        for number in range(1, count + 1):
            tell(number)
        print(f"{name} {1000 * (time.perf_counter() - began) / count:.3f}")


def stages(recipe: str, data: str, store: str, rounds: int) -> None:
    """Median seconds of the flow's body with each task's function in the place of the task."""
    from flows import train_sknet as module

    without_prefect(module)
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        results = module.train_sknet.fn(recipe=recipe, data=data, store=store, workers=2)
        seconds.append(time.perf_counter() - began)
    assert {result.status for result in results} <= {"reused", "refused"}, results
    print(f"stages {statistics.median(seconds):.4f}")


def without_prefect(module: Any) -> None:
    """Replace tasks by their functions, and what talks to Prefect by nothing."""
    from prefect.client.schemas.objects import State
    from prefect.tasks import Task

    def alone(task: Any) -> Callable[..., Any]:
        def call(*args: Any, wait_for: object = None, **options: Any) -> Any:
            ended = task.fn(*args, **options)
            # Prefect hands its callers what is in a state.
            return ended.result() if isinstance(ended, State) else ended

        return call

    for name, place in list(sys.modules.items()):
        if place is not module and not name.startswith("tasks."):
            continue
        for attribute, value in list(vars(place).items()):
            if isinstance(value, Task):
                setattr(place, attribute, alone(value))
            elif attribute == "get_run_logger":
                setattr(place, attribute, lambda: logging.getLogger("stages"))
            elif attribute.startswith(("create_", "update_", "emit_")) and _is_prefects(value):
                setattr(place, attribute, unheard)


def _is_prefects(value: Any) -> bool:
    return str(getattr(value, "__module__", "")).startswith("prefect.")


def unheard(*args: object, **options: object) -> None:
    """In the place of what shows something in Prefect's UI."""


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["empty"]:
            empty()
        case ["stages", recipe, data, store, rounds]:
            stages(recipe, data, store, int(rounds))
        case ["told", count]:
            told(int(count))
        case _:
            sys.exit(__doc__)
