"""What deployments import when they register: no framework, no plotting, no cluster library."""

import subprocess
import sys

import pytest

from tests.processes import ROOT

HEAVY = ["mindspore", "torch", "matplotlib", "ray", "pandas", "pyarrow", "scipy", "boto3"]


@pytest.mark.parametrize("module", ["flows.train_sknet", "flows.report", "flows.revalidate"])
def test_a_flow_is_imported_without_the_libraries_that_only_its_tasks_need(module: str) -> None:
    program = f"import sys, {module}; print(*sorted(set({HEAVY}) & set(sys.modules)))"
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ended.stdout.split() == []
