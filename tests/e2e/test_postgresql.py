"""Prefect on PostgreSQL, as compose and the cluster run it: deploy, work, restart."""

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from infra.artifacts import open_store
from tests.prefect_services import (
    PrefectServer,
    PrefectWorker,
    Service,
    free_port,
    shipped_settings,
)
from tests.runs import wait_for
from tests.tiny_pipeline import ROOT

pytestmark = pytest.mark.long

SECONDS_TO_RUN = 300
UNPRIVILEGED = "postgres"
"""The user that Debian's package makes: the database refuses to run as root."""


@dataclass(frozen=True)
class Database:
    """A PostgreSQL server of this test's own."""

    port: int
    password: str

    @property
    def settings(self) -> dict[str, str]:
        """For Prefect's server: the names that compose.yaml gives it."""
        compose = yaml.safe_load((ROOT / "infra/docker/compose.yaml").read_text("utf-8"))
        given = compose["services"]["server"]["environment"]
        own = {
            "PREFECT_SERVER_DATABASE_HOST": "127.0.0.1",
            "PREFECT_SERVER_DATABASE_PORT": str(self.port),
            "PREFECT_SERVER_DATABASE_PASSWORD": self.password,
        }
        return {k: v for k, v in given.items() if k.startswith("PREFECT_SERVER_DATABASE")} | own

    def ask(self, question: str, database: str = "prefect") -> str:
        options = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "prefect", "-d", database]
        return subprocess.run(
            [program("psql"), *options, "-tAc", question],
            env={**os.environ, "PGPASSWORD": self.password},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()


def program(name: str) -> str:
    """The newest version's; Debian keeps them off the path."""
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    if not places:
        pytest.fail(f"{name} is not installed: apt-get install postgresql")
    return str(places[-1])


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    # Not in pytest's directory, which only root may enter.
    place = Path(tempfile.mkdtemp(prefix="sknet-postgresql-"))
    port, password = free_port(), secrets.token_hex(16)
    secret = place / "password"
    secret.write_text(password)
    for path in (place, secret):
        shutil.chown(path, UNPRIVILEGED)
    data, log = place / "data", place / "server.log"
    user = ["setpriv", f"--reuid={UNPRIVILEGED}", f"--regid={UNPRIVILEGED}", "--clear-groups"]
    made = ["-U", "prefect", "--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync"]
    subprocess.run(
        [*user, program("initdb"), "-D", data, *made], check=True, capture_output=True, cwd=place
    )
    places = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={place}"]
    command = [*user, program("postgres"), "-D", str(data), "-p", str(port), *places]
    result = Database(port, password)
    try:
        with Service(command, log, {}) as server:
            ready = [program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
            wait_for(lambda: subprocess.run(ready, check=False).returncode == 0, 60, server.said)
            result.ask("create database prefect", "postgres")
            yield result
    finally:
        shutil.rmtree(place)


def states(server: PrefectServer, deployment: str) -> list[str]:
    """Of the runs that somebody asked for; the schedule's own lie in the future."""
    runs = [run for run in server.runs(deployment) if not run["auto_scheduled"]]
    return sorted(str(run["state_type"]) for run in runs)


def test_deploy_work_and_restart_on_postgresql(
    database: Database, copied_store: Path, tmp_path: Path
) -> None:
    with PrefectServer(tmp_path, {**shipped_settings(), **database.settings}) as server:
        template = ("--base-job-template", "infra/prefect/process-pool.json")
        server.prefect("work-pool", "create", "sknet-process", "--type", "process", *template)
        server.prefect("deploy", "--all", "--no-prompt")
        store = ("--param", f"store={copied_store}")
        server.prefect("deployment", "run", "report/report", *store)
        for _ in range(2):
            server.prefect("deployment", "run", "revalidate/nightly", *store)
        with PrefectWorker(server, shipped_settings()) as worker:
            wait_for(lambda: states(server, "report") == ["COMPLETED"], SECONDS_TO_RUN, worker.said)
            # One night at a time: both are waiting, and the second to be taken up is cancelled.
            ended = ["CANCELLED", "COMPLETED"]
            wait_for(lambda: states(server, "nightly") == ended, SECONDS_TO_RUN, worker.said)
    assert list(open_store(str(copied_store)).list("report"))
    assert int(database.ask("select count(*) from flow_run where state_type = 'COMPLETED'")) == 2
    assert not list(tmp_path.rglob("*.db"))

    with PrefectServer(tmp_path, {**shipped_settings(), **database.settings}) as restarted:
        assert states(restarted, "report") == ["COMPLETED"]
        assert states(restarted, "nightly") == ended
