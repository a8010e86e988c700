"""Whether ranks can be bound to cores is known from what MindSpore's msrun itself looks at."""

import re
from importlib import metadata
from pathlib import Path

import pytest

from infra.doctor.binding import Binding, check_binding, gather_binding
from infra.launch.binding import (
    AFFINITY_PROGRAMS,
    CPUSET,
    binding_obstacle,
    report_binding,
)
from tests.infra.ascend_trees import write

PROGRAMS = ("taskset", *AFFINITY_PROGRAMS)


def programs(directory: Path, *, without: str = "") -> str:
    """Make programs of these names and return their directory, for PATH."""
    for name in PROGRAMS:
        if name != without:
            write(directory / name, "#!/bin/sh\n")
            (directory / name).chmod(0o755)
    return str(directory)


def cpuset(directory: Path, text: str | None = "0-191\n") -> Path:
    """Return a file as version 1 of control groups has it; it doesn't exist if `text` is None."""
    file = directory / "cpuset/cpuset.cpus"
    if text is not None:
        write(file, text)
    return file


def test_msrun_of_the_installed_mindspore_uses_these_programs_and_this_file() -> None:
    package = Path(str(metadata.distribution("mindspore").locate_file("mindspore")))
    files = [package / "runtime/thread_bind_core.py"]
    files += package.glob("parallel/cluster/process_entity/*.py")
    source = "".join(path.read_text("utf-8") for path in files)
    assert f'"{CPUSET}"' in source
    assert "cgroup/cpuset.cpus" not in source  # version 2
    assert all(re.search(rf"['\"]{name}['\"]", source) for name in PROGRAMS)


def test_a_host_with_everything_passes(tmp_path: Path) -> None:
    facts = gather_binding(programs(tmp_path / "bin"), cpuset(tmp_path))
    assert facts == Binding(None, ())
    (result,) = check_binding(facts)
    assert (str(result.status), result.found) == ("ok", "taskset, npu-smi, lspci, lscpu")


@pytest.mark.parametrize("name", AFFINITY_PROGRAMS)
def test_without_one_of_these_programs_cores_are_shared_out_evenly(
    tmp_path: Path, name: str
) -> None:
    path = programs(tmp_path / "bin", without=name)
    (result,) = check_binding(gather_binding(path, cpuset(tmp_path)))
    found = f"no {name}: cores are shared out evenly"
    assert (str(result.status), result.found) == ("warn", found)


@pytest.mark.parametrize(
    ("without", "text", "obstacle"),
    [
        ("taskset", "0-191\n", "there is no taskset"),
        ("", None, "there is no {file}: MindSpore reads version 1 of control groups only"),
        ("", "\n", "{file} is empty"),
    ],
    ids=["no taskset", "control groups of version 2", "an empty file"],
)
def test_what_makes_msrun_bind_nothing_is_named(
    tmp_path: Path, without: str, text: str | None, obstacle: str
) -> None:
    path, file = programs(tmp_path / "bin", without=without), cpuset(tmp_path, text)
    assert binding_obstacle(path, file) == obstacle.format(file=file)
    (result,) = check_binding(gather_binding(path, file))
    assert str(result.status) == "warn"
    assert result.found == f"no effect: {obstacle.format(file=file)}"


def test_the_log_says_which_cores_each_rank_has_or_why_none() -> None:
    cores = {0: [0, 1, 2], 1: [3, 5]}
    assert report_binding(cores, None) == [
        "rank 0 has the cores 0-2",
        "rank 1 has the cores 3,5",
    ]
    assert report_binding({0: [0, 1], 1: [0, 1]}, "there is no taskset") == [
        "bind_core has no effect, all ranks share the cores 0-1: there is no taskset"
    ]
