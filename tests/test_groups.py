"""pytest-xdist runs the tests of a file in one process, as conftest.py asks it to."""

import os

import pytest


def test_pytest_xdist_knows_the_group_of_this_file(request: pytest.FixtureRequest) -> None:
    in_worker = "PYTEST_XDIST_WORKER" in os.environ
    assert request.node.nodeid.endswith("@test_groups") == in_worker
