"""Trainings in forked processes, for all tests of this directory."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sknet.data.shards import ShardSet


class Trainings:
    """Sends jobs to a process of `tests.sknet.training.forked_training`."""

    def __init__(self, shards: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.sknet.training.forked_training", str(shards)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, directory: Path, do: str = "train", **job: Any) -> int:
        """Do a job and return its exit code, which is negative for a signal."""
        (code,) = self.together([directory], do, **job)
        return code

    def together(self, directories: list[Path], do: str = "train", **job: Any) -> list[int]:
        """Do a job in several directories at the same time."""
        assert self._process.stdin
        assert self._process.stdout
        for directory in directories:
            directory.with_suffix(".log").unlink(missing_ok=True)
        common = {"do": do, "recipe": {}, **job}
        request = [common | {"directory": str(directory)} for directory in directories]
        print(json.dumps(request), file=self._process.stdin, flush=True)
        codes: list[int] = json.loads(self._process.stdout.readline())
        return codes

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="session")
def forked(converted: ShardSet) -> Iterator[Trainings]:
    trainings = Trainings(converted.directory)
    yield trainings
    trainings.close()
