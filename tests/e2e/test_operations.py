"""What infra/prefect ships, on a real server: pools, automations, notifications."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from infra.doctor.services import ask_prefect, check_prefect
from tests.prefect_services import PAUSE, PrefectServer, PrefectWorker, shipped_settings
from tests.processes import ROOT, processes_marked
from tests.waiting import HANG_SECONDS, wait_for

# A run counts as lost after minutes.
pytestmark = pytest.mark.long

SECONDS_TO_BE_CRASHED = 300
"""As promised: from the death of a run's host until its run is Crashed."""
SECONDS_TO_BE_TOLD = 90
"""From then until people are notified, and the run is started again."""
OUTAGE_SECONDS = 260
"""Longer than a run may be silent."""

# It has the name of one of the flows, as the automations act on these only.
SLEEPER = """
import time

from prefect import flow


@flow(name="report")
def sleeper() -> None:
    time.sleep(1200)


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
        result.register("--pool", "sknet-volcano", "--type", "kubernetes")
        result.register("--pool", "sknet-process")
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


@contextmanager
def sleeping(server: PrefectServer, directory: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A flow that a command runs; return its process and its run's id once a heartbeat was seen."""
    script = directory / "sleeper.py"
    script.write_text(SLEEPER)
    log = directory / "sleeper.log"
    with log.open("w") as out:
        flow = subprocess.Popen(
            [sys.executable, script],
            cwd=directory,
            env={**os.environ, **server.environment, **shipped_settings()},
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
        )
    try:
        wait_for(lambda: bool(beating(server)), log.read_text, pause=PAUSE)
        (run,) = beating(server)
        yield flow, run
    finally:
        flow.kill()
        flow.wait()


def beating(server: PrefectServer) -> set[str]:
    """Return the Running flow runs of which heartbeats were seen."""
    seen = {"filter": {"event": {"name": ["prefect.flow-run.heartbeat"]}}}
    events = server.post("events/filter", seen)["events"]
    runs = {each["resource"]["prefect.resource.id"].rpartition(".")[2] for each in events}
    return {run for run in runs if server.state_of(run) == "RUNNING"}


def state_name(server: PrefectServer, run: str) -> str:
    return str(server.get(f"flow_runs/{run}")["state_name"])


def test_runs_whose_hosts_are_lost_are_crashed_people_are_notified_and_deployments_go_on(
    server: PrefectServer, inbox: Inbox, tmp_path: Path
) -> None:
    """One while it runs, one while it is started, whose successor waits for its place."""
    nightlies = [server.run("revalidate/nightly", {"store": str(tmp_path)}) for _ in range(2)]

    def is_pending(run: str) -> bool:
        return server.state_of(run) == "PENDING"

    with (
        sleeping(server, tmp_path) as (flow, running),
        PrefectWorker(server, shipped_settings()) as worker,
    ):
        processes = psutil.Process(worker.process.pid)
        wait_for(
            lambda: any(map(is_pending, nightlies)) and len(processes.children()) > 0,
            worker.log_tail,
        )
        for process in [processes, *processes.children(recursive=True)]:
            process.kill()
        flow.kill()
        killed = time.monotonic()
        (starting,) = filter(is_pending, nightlies)
        (waiting,) = set(nightlies) - {starting}
        assert server.state_of(running) == "RUNNING"

        for run, name in (
            (starting, "Crashed: never started"),
            (running, "Crashed: no heartbeat"),
        ):
            wait_for(
                lambda run=run, name=name: state_name(server, run) == name,
                server.log_tail,
                seconds=killed + SECONDS_TO_BE_CRASHED - time.monotonic(),
                pause=PAUSE,
            )
            print(f"{name}: {time.monotonic() - killed:.0f} s after SIGKILL")
            assert server.state_of(waiting) == "SCHEDULED"
        wait_for(
            lambda: inbox.texts("revalidate crashed") and inbox.texts("report crashed"),
            server.log_tail,
            seconds=SECONDS_TO_BE_TOLD,
        )

    # No command starts its run again.
    assert state_name(server, running) == "Crashed: host lost"
    wait_for(lambda: server.state_of(starting) == "SCHEDULED", server.log_tail, pause=PAUSE)
    with PrefectWorker(server, shipped_settings()) as worker:
        for run in nightlies:
            wait_for(
                lambda run=run: server.state_of(run) == "FAILED",
                worker.log_tail,
                pause=PAUSE,
            )
    assert all(server.get(f"flow_runs/{run}")["run_count"] == 1 for run in nightlies)
    states = [server.get(f"flow_run_states/?flow_run_id={run}") for run in nightlies]
    (_, ended), (began_after, _) = sorted(map(run_between, states))
    assert ended <= began_after


def run_between(states: list[dict[str, Any]]) -> tuple[str, str]:
    """Return when a run was Running, and when it Failed."""
    times = {state["type"]: str(state["timestamp"]) for state in states}
    return times["RUNNING"], times["FAILED"]


def test_a_run_outlives_an_outage_of_the_server_in_which_its_heartbeats_are_missed(
    server: PrefectServer, inbox: Inbox, tmp_path: Path
) -> None:
    told = len(inbox.messages)
    with sleeping(server, tmp_path) as (_, run):
        # A state change less than five minutes after another one would have to wait for the event
        # of that one, which the new process has not seen.
        time.sleep(60)
        server.kill()
        time.sleep(OUTAGE_SECONDS)
        server.start()
        wait_for(lambda: state_name(server, run) == "Crashed: no heartbeat", server.log_tail)
        wait_for(lambda: state_name(server, run) == "Running", server.log_tail, pause=PAUSE)
        time.sleep(SECONDS_TO_BE_TOLD)
        assert state_name(server, run) == "Running"
    assert len(inbox.messages) == told


def test_people_are_notified_of_a_failed_nightly_and_a_run_sees_only_its_devices(
    server: PrefectServer, inbox: Inbox, tmp_path: Path
) -> None:
    nowhere = tmp_path / "nowhere"
    devices = ("--job-variable", "devices=5")
    server.prefect(
        *("deployment", "run", "revalidate/nightly", *devices, "--param", f"store={nowhere}")
    )
    with PrefectWorker(server, shipped_settings()) as worker:
        wait_for(lambda: processes_marked("ASCEND_RT_VISIBLE_DEVICES", "5"), worker.log_tail)
        wait_for(
            lambda: any("nowhere" in text for text in inbox.texts("the nightly failed")),
            worker.log_tail,
        )


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
    assert block.to_emails == ["a@example.org", "b@example.org"]
