"""Whose worker `prefect worker start` runs; tests/e2e/test_killed_and_stopped.py tells it to go."""

from prefect.workers.base import BaseWorker


def test_prefect_finds_the_worker_of_this_package_for_process_pools() -> None:
    # An import of the worker here would make it the one, whether Prefect finds it or not.
    worker = BaseWorker.get_worker_class_from_type("process")
    assert worker is not None
    assert worker.__module__ == "infra.prefect.worker"
