"""What prepares the hosts of test_launch_gang.py; hosts import it by its name."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.base.outcomes import UserError
from infra.launch import PreparedHost


@dataclass(frozen=True)
class Options:
    """Gives each host a file of its own as an option."""

    @contextmanager
    def __call__(self, directory: Path, host: int) -> Iterator[PreparedHost]:
        """Write the number of the host."""
        file = directory / "number"
        file.write_text(f"host {host}")
        yield PreparedHost(options={"file": file})


@dataclass(frozen=True)
class Refusal:
    """Refuses one host."""

    host: int

    @contextmanager
    def __call__(self, directory: Path, host: int) -> Iterator[PreparedHost]:
        """Refuse it."""
        del directory
        if host == self.host:
            raise UserError("it has no disk for this")
        yield PreparedHost(options={})


@dataclass(frozen=True)
class Endless:
    """Goes on for longer than any test."""

    @contextmanager
    def __call__(self, directory: Path, host: int) -> Iterator[PreparedHost]:
        """Wait."""
        del directory
        logging.getLogger("infra.test").info("host %d waits", host)
        time.sleep(3600)
        yield PreparedHost(options={})


@dataclass(frozen=True)
class SlowSave:
    """Takes its time to bring to safety on host 0 what ranks have saved."""

    seconds: float
    failure: str = ""

    @contextmanager
    def __call__(self, directory: Path, host: int) -> Iterator[PreparedHost]:
        """Save, or fail to."""
        del directory
        yield PreparedHost(options={})
        if host:
            return
        time.sleep(self.seconds)
        if self.failure:
            raise OSError(0, self.failure)
