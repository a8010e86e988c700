"""Progress of long work of a task, on Prefect's pages, in the log and on the console."""

from contextvars import copy_context

from prefect import get_run_logger

from infra.base.console import show_work
from infra.base.progress import Sink, paced
from tasks.programs import SHOWN_OTHERWISE, ProgressBar


def long_work(name: str) -> Sink:
    """Return a sink that shows how far the work of this name is, whatever thread calls it."""
    bar = ProgressBar("work", name[:1].upper() + name[1:])
    # Prefect looks up the run in the context, which other threads don't have.
    context = copy_context()

    def show(fraction: float) -> None:
        get_run_logger().info("%s: %.0f%%", name, 100 * fraction, extra={SHOWN_OTHERWISE: True})
        bar.update(fraction)

    on_console = show_work(name)
    now_and_then = paced(lambda fraction: context.run(show, fraction))

    def sink(fraction: float) -> None:
        on_console(fraction)
        now_and_then(fraction)

    return sink
