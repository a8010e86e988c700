"""Who calls `infra.launch.leave`, and how it ends where there is nothing to leave.

test_launch_gang.py and tests/tasks/test_train_on_hosts.py let hosts leave.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable

import pytest
import yaml

from infra.launch.environment import seconds
from tests.processes import ROOT

LEAVE = "-m infra.launch.leave --deadline "


def preparation_and_limit_of_pods() -> tuple[str, float]:
    cluster = yaml.safe_load((ROOT / "infra/kubernetes/raycluster.yaml").read_text("utf-8"))
    (workers,) = cluster["spec"]["workerGroupSpecs"]
    pod = workers["template"]["spec"]
    (container,) = pod["containers"]
    command = container["lifecycle"]["preStop"]["exec"]["command"]
    return " ".join(command), pod["terminationGracePeriodSeconds"]


def preparation_and_limit_of_the_unit() -> tuple[str, float]:
    unit = (ROOT / "infra/systemd/sknet-ray-host.service").read_text("utf-8")
    settings = dict(re.findall(r"^(ExecStop|TimeoutStopSec)=(.*)$", unit, re.MULTILINE))
    return settings["ExecStop"], float(settings["TimeoutStopSec"])


@pytest.mark.parametrize(
    "installed", [preparation_and_limit_of_pods, preparation_and_limit_of_the_unit]
)
def test_an_installation_lets_its_hosts_leave_before_it_kills_them(
    installed: Callable[[], tuple[str, float]],
) -> None:
    command, limit = installed()
    assert LEAVE in command
    deadline = int(command.partition(LEAVE)[2])
    assert seconds("stop_grace") < deadline < limit


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "address", "message"),
    [
        ([], "nonsense", "error: no Ray cluster: Invalid address format: nonsense\n"),
        (["--deadline", "0"], "", "argument --deadline: '0' is not a whole number of at least 1\n"),
    ],
)
def test_a_fault_is_one_line(options: list[str], address: str, message: str) -> None:
    ended = subprocess.run(
        [sys.executable, *LEAVE.split()[:2], *options],
        env={**os.environ, "RAY_ADDRESS": address},
        check=False,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2
    assert ended.stderr.endswith(message)
