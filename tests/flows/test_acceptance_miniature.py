"""The whole acceptance in miniature, killed in the middle and resumed; several hosts on Ray."""

import json
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.processes import MARK, ROOT, processes_marked
from tests.ray_clusters import ray_hosts
from tests.waiting import HANG_SECONDS, wait_for

pytestmark = pytest.mark.long

COMMAND = [sys.executable, "-m", "flows.acceptance", "--miniature", "--out"]
NOT_ON_CPU = {"losses", "step-time", "compile-time", "compile-cache", "data-wait", "bind-core"}


def lines_in(out: Path) -> dict[str, dict[str, Any]]:
    document = json.loads((out / "acceptance.json").read_bytes())
    return {line["name"]: line for line in document["lines"]}


def test_it_runs_whole_on_cpu_though_it_is_killed_in_the_middle(tmp_path: Path) -> None:
    out, log = tmp_path / "out", tmp_path / "output.txt"
    mark = uuid.uuid4().hex
    environment = {**os.environ, MARK: mark}
    with log.open("w") as output:
        killed = subprocess.Popen(
            [*COMMAND, out], cwd=ROOT, env=environment, stdout=output, stderr=output
        )
    wait_for(
        lambda: (out / "lines/bits/again/ckpt/metrics.jsonl").exists() or killed.poll() is not None,
        log.read_text,
    )
    assert killed.poll() is None, log.read_text()
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    wait_for(lambda: not processes_marked(MARK, mark))
    before = lines_in(out)
    finished = {name for name, line in before.items() if line["status"] == "pass"}
    assert finished == {"doctor", "devices", "data", "training"}

    resumed = subprocess.run(
        [*COMMAND, out], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )

    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert not processes_marked(MARK, mark)
    after = lines_in(out)
    for name in finished:
        assert after[name] == before[name]
    not_run = {name for name, line in after.items() if line["status"] == "not run"}
    assert not_run == NOT_ON_CPU | {"hosts"}
    assert all(after[name]["status"] == "pass" for name in after.keys() - not_run)
    for name in not_run:
        line = after[name]
        assert line["reason"]
        assert (line["minutes"], line["log"], line["ended"]) == (None, None, None)
        assert all(figure["measured"] is None for figure in line["figures"])
    for name, line in after.items():
        for figure in line["figures"]:
            if figure["unit"] in ("ms", "s", "images/s"):
                assert (figure["compare"], figure["limit"], figure["holds"]) == (None, "", None)
                assert (figure["measured"] is None) == (name in not_run)
        assert line["log"] is None or (out / line["log"]).exists()
    page = (out / "acceptance.md").read_text("utf-8")
    assert "12 pass, 0 fail, 7 not run" in page


@pytest.mark.alone
def test_the_line_of_several_hosts_trains_on_each_of_them(tmp_path: Path) -> None:
    lines = [f"--only={name}" for name in ("data", "training", "hosts")]
    with ray_hosts(2) as cluster:
        started = cluster.start_on_head(
            *COMMAND,
            tmp_path / "out",
            "--cards=1",
            "--hosts=2",
            *lines,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        output, _ = started.communicate(timeout=HANG_SECONDS)
    assert started.returncode == 0, output
    found = lines_in(tmp_path / "out")
    assert found["hosts"]["status"] == "pass"
    figures = {figure["name"]: figure for figure in found["hosts"]["figures"]}
    assert figures["hosts that trained"]["measured"] == 2
    assert figures["speed"]["measured"] > 0
    assert (figures["speed"]["compare"], figures["speed"]["holds"]) == (None, None)
    assert found["bits"]["reason"] == "not reached yet"
