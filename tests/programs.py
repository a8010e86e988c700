"""Programs of the system that tests run: skipped without them, but in CI they must be there."""

import os
import shutil

import pytest


def require(program: str) -> None:
    """Skip the test if the program is missing. In CI nothing is skipped unseen: it fails."""
    if shutil.which(program) is None:
        end = pytest.fail if os.environ.get("CI") else pytest.skip
        end(f"{program} is not installed: tests/install_programs.sh")
