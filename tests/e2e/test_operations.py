"""What infra/prefect ships, on a real server: pools, automations, notifications."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.doctor.services import ask_prefect, check_prefect
from tests.prefect_services import PAUSE, PrefectServer, PrefectWorker, shipped_settings
from tests.processes import ROOT, processes_marked
from tests.waiting import HANG_SECONDS, wait_for

# A run is missed only after three heartbeats, which takes minutes.
pytestmark = pytest.mark.long

SECONDS_TO_BE_CRASHED = 120
"""As promised: from the death of a flow's process until its run is Crashed."""

SLEEPER = """
import time

from prefect import flow


@flow(name="sleeper")
def sleeper() -> None:
    time.sleep(600)


sleeper()
"""


class Inbox:
    """An HTTP server that remembers what is sent to it."""

    def __init__(self) -> None:
        inbox = self
        self.messages: list[dict[str, str]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                inbox.messages.append(json.loads(body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook/secret-token"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def texts(self, start: str) -> set[str]:
        """Return the texts with this start; a busy Prefect server may send one several times."""
        return {each["text"] for each in self.messages if each["text"].startswith(start)}


@pytest.fixture(scope="module")
def inbox() -> Iterator[Inbox]:
    result = Inbox()
    yield result
    result.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, inbox: Inbox) -> Iterator[PrefectServer]:
    """A server with pools, automations and notifications, made by the documented commands."""
    with PrefectServer(tmp_path_factory.mktemp("operations"), shipped_settings()) as result:
        for name, kind, template in (
            ("sknet-process", "process", "infra/prefect/process-pool.json"),
            ("sknet-volcano", "kubernetes", "infra/prefect/volcano-pool.json"),
        ):
            options = ("--type", kind, "--base-job-template", template)
            result.prefect("work-pool", "create", name, *options)
        result.prefect("automation", "create", "--from-file", "infra/prefect/automations.yaml")
        # The second time replaces the address.
        for _ in range(2):
            made = run_module(result, "infra.prefect.notifications", SKNET_NOTIFY_WEBHOOK=inbox.url)
            assert made.returncode == 0, made.stderr
            assert "secret-token" not in made.stdout + made.stderr
        yield result


def run_module(
    server: PrefectServer, name: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """`python -m NAME` against the server."""
    return subprocess.run(
        [sys.executable, "-m", name],
        cwd=ROOT,
        env={**os.environ, **server.environment, **environment},
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )


def test_pools_and_automations_are_there_once(server: PrefectServer) -> None:
    pools = {pool["name"]: pool for pool in server.post("work_pools/filter", {})}
    for name, path in (
        ("sknet-process", "infra/prefect/process-pool.json"),
        ("sknet-volcano", "infra/prefect/volcano-pool.json"),
    ):
        assert pools[name]["base_job_template"] == json.loads((ROOT / path).read_text("utf-8"))
    files = ("automations.yaml", "notifications.yaml")
    described = [yaml.safe_load((ROOT / "infra/prefect" / name).read_text()) for name in files]
    names = sorted(each["name"] for file in described for each in file["automations"])
    made = sorted(each["name"] for each in server.post("automations/filter", {}))
    assert [name for name in made if name.startswith("sknet: ")] == names


def test_the_address_of_notifications_is_a_secret_of_the_server(
    server: PrefectServer, inbox: Inbox
) -> None:
    (block,) = server.post("block_documents/filter", {"include_secrets": False})
    assert "secret-token" not in json.dumps(block)


def test_the_doctor_finds_a_real_server_in_order(server: PrefectServer) -> None:
    found = check_prefect(ask_prefect(server.api, {}), "3.8.8")
    assert [str(each.status) for each in found] == ["ok", "ok"]


def test_a_killed_flow_is_crashed_within_two_minutes_and_people_are_notified(
    server: PrefectServer, inbox: Inbox, tmp_path: Path
) -> None:
    script = tmp_path / "sleeper.py"
    script.write_text(SLEEPER)
    log = tmp_path / "sleeper.log"
    with log.open("w") as out:
        flow = subprocess.Popen(
            [sys.executable, script],
            cwd=tmp_path,
            env={**os.environ, **server.environment, **shipped_settings()},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        run = {}

        def beats() -> bool:
            runs = server.post("flow_runs/filter", {"flows": {"name": {"any_": ["sleeper"]}}})
            run.update(*runs)
            seen = {"filter": {"event": {"name": ["prefect.flow-run.heartbeat"]}}}
            return bool(runs) and server.post("events/filter", seen)["total"] > 0

        wait_for(beats, log.read_text, pause=PAUSE)
        os.kill(flow.pid, signal.SIGKILL)
        killed = time.monotonic()
        flow.wait()
        assert server.state_of(run["id"]) == "RUNNING"

        wait_for(
            lambda: server.state_of(run["id"]) == "CRASHED",
            log.read_text,
            seconds=SECONDS_TO_BE_CRASHED,
            pause=PAUSE,
        )

        print(f"crashed {time.monotonic() - killed:.0f} s after SIGKILL")
        wait_for(lambda: inbox.texts("sleeper crashed"), log.read_text)
        (text,) = inbox.texts("sleeper crashed")
        assert run["name"] in text
        assert "No heartbeat for 90 s" in text
    finally:
        flow.kill()
        flow.wait()


def test_people_are_notified_of_a_failed_nightly_and_a_run_sees_only_its_devices(
    server: PrefectServer, inbox: Inbox, tmp_path: Path
) -> None:
    server.prefect("deploy", "--all", "--no-prompt")
    nowhere = tmp_path / "nowhere"
    devices = ("--job-variable", "devices=5")
    server.prefect(
        *("deployment", "run", "revalidate/nightly", *devices, "--param", f"store={nowhere}")
    )
    with PrefectWorker(server, shipped_settings()) as worker:
        wait_for(lambda: processes_marked("ASCEND_RT_VISIBLE_DEVICES", "5"), worker.log_tail)
        wait_for(lambda: inbox.texts("the nightly failed"), worker.log_tail)
    (text,) = inbox.texts("the nightly failed")
    assert "nowhere" in text


def test_no_state_in_which_flows_end_themselves_counts_as_a_crash() -> None:
    """A named state sends an event of its name, which the automation must know as an end."""
    (automation,) = yaml.safe_load((ROOT / "infra/prefect/automations.yaml").read_text())[
        "automations"
    ]
    named = {
        name
        for directory in ("flows", "tasks")
        for path in (ROOT / directory).glob("*.py")
        for name in re.findall(
            r"(?:Completed|Failed|Cancelled|Crashed)\(\s*name=\"(\w+)\"", path.read_text("utf-8")
        )
    }
    assert "Stopped" in named
    assert {f"prefect.flow-run.{name}" for name in named} <= set(automation["trigger"]["expect"])


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "set either SKNET_NOTIFY_WEBHOOK or the variables"),
        ({"SKNET_NOTIFY_WEBHOOK": "host/token"}, "not a URL"),
        ({"SKNET_NOTIFY_SENDGRID_KEY": "token"}, "needs SKNET_NOTIFY_FROM, SKNET_NOTIFY_TO"),
        ({"SKNET_NOTIFY_WEBHOOK": "https://x", "SKNET_NOTIFY_TO": "a@b.org"}, "set either"),
    ],
)
def test_notifications_without_a_way_to_send_them_are_refused(
    environment: dict[str, str], message: str
) -> None:
    from infra.base.outcomes import UserError
    from infra.prefect.notifications import block_of

    with pytest.raises(UserError, match=message) as refused:
        block_of(environment)
    assert "token" not in str(refused.value)


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
def test_mail_goes_through_prefects_own_block() -> None:
    from infra.prefect.notifications import block_of

    block = block_of(
        {
            "SKNET_NOTIFY_SENDGRID_KEY": "key",
            "SKNET_NOTIFY_FROM": "sknet@example.org",
            "SKNET_NOTIFY_TO": "a@example.org, b@example.org",
        }
    )
    assert type(block).__name__ == "SendgridEmail"
    assert block.to_emails == ["a@example.org", "b@example.org"]  # type: ignore[attr-defined]
