"""Flows are imported without heavy libraries, and programs import Python's own modules."""

import subprocess
import sys

import pytest

from tests.processes import ROOT

HEAVY = [
    *("mindspore", "torch", "matplotlib", "ray", "pandas", "pyarrow", "scipy", "boto3"),
    "prefect.server.api.server",  # takes longer than all else, and runs in a process of its own
]


@pytest.mark.parametrize("module", ["flows.train_sknet", "flows.report", "flows.revalidate"])
def test_a_flow_is_imported_without_the_libraries_that_only_its_tasks_need(module: str) -> None:
    program = f"import sys, {module}; print(*sorted(set({HEAVY}) & set(sys.modules)))"
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ended.stdout.split() == []


def test_no_module_beside_the_programs_has_the_name_of_one_of_pythons() -> None:
    """`python sknet/train.py` puts sknet/ first on the path, where it hides Python's modules."""
    assert {path.stem for path in (ROOT / "sknet").iterdir()} & sys.stdlib_module_names == set()
