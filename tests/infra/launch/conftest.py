"""Find the processes that a test started by a variable of their environment."""

import uuid
from collections.abc import Callable, Iterator

import psutil
import pytest


@pytest.fixture
def marker() -> dict[str, str]:
    return {"SKNET_TEST_ID": uuid.uuid4().hex}


@pytest.fixture
def alive(marker: dict[str, str]) -> Iterator[Callable[[], set[psutil.Process]]]:
    """A function that returns the living processes with the marker; none survives the test."""

    def find() -> set[psutil.Process]:
        found = set()
        for process in psutil.process_iter():
            try:
                if marker.items() <= process.environ().items():
                    found.add(process)
            except psutil.Error:
                continue
        return found

    yield find
    for process in find():
        process.kill()
