"""Programs of the operating system that tests run."""

import os
import shutil

import pytest


def require(program: str, path: str | None = None) -> str:
    """Return the program's path.

    Without the program the test is skipped, and in CI it fails, so that nothing is skipped unseen.

    Args:
        program: Its name.
        path: Directories to search instead of those of PATH.
    """
    found = shutil.which(program, path=path)
    if found is None:
        end = pytest.fail if os.environ.get("CI") else pytest.skip
        end(f"{program} is not installed: tests/install_programs.sh")
    return found
