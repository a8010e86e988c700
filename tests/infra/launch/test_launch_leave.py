"""Who calls `infra.launch.leave`, and how it ends where there is nothing to leave.

test_launch_gang.py and tests/tasks/test_train_on_hosts.py let hosts leave.
"""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from infra.launch.environment import seconds
from tests.processes import ROOT
from tests.system_programs import require

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


def test_the_documented_notice_of_a_spot_instance_stops_the_units(tmp_path: Path) -> None:
    require("curl")
    page = (ROOT / "docs/clusters.md").read_text("utf-8")
    (script,) = re.findall(r"^until curl .*\n.*$", page, re.MULTILINE)
    notice = tmp_path / "latest/meta-data/spot/instance-action"
    notice.parent.mkdir(parents=True)
    notice.write_text('{"action": "terminate"}')
    systemctl = tmp_path / "systemctl"
    systemctl.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    systemctl.chmod(0o755)
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as cloud:
        threading.Thread(target=cloud.serve_forever, daemon=True).start()
        ended = subprocess.run(
            ["sh", "-c", script.replace("169.254.169.254", f"127.0.0.1:{cloud.server_port}")],
            env={**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        cloud.shutdown()
    stop, *units = ended.stdout.split()
    assert stop == "stop"
    assert units
    assert all((ROOT / f"infra/systemd/{unit}.service").is_file() for unit in units)


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
