"""Programs of the system that tests run: skipped without them, but in CI they must be there."""

import os
import shutil

import pytest


def require(program: str, path: str | None = None) -> str:
    """Where it is; skip the test if it is missing. In CI nothing is skipped unseen: it fails.

    `path` is to be searched instead of the environment's.
    """
    found = shutil.which(program, path=path)
    if found is None:
        end = pytest.fail if os.environ.get("CI") else pytest.skip
        end(f"{program} is not installed: tests/install_programs.sh")
    return found
