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
    PAUSE,
    PrefectServer,
    PrefectWorker,
    free_port,
    shipped_settings,
)
from tests.processes import ROOT, Service
from tests.system_programs import require
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

# By default a run that waits for another one looks every 30 s.
SOON = {"PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "1"}
UNPRIVILEGED = "postgres"
"""The user that Debian's package makes: PostgreSQL refuses to run as root."""


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

    def query(self, statement: str, database: str = "prefect") -> str:
        options = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "prefect", "-d", database]
        return subprocess.run(
            [program("psql"), *options, "-tAc", statement],
            env={**os.environ, "PGPASSWORD": self.password},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()


def program(name: str) -> str:
    """Return the path of the newest version's program; Debian does not put them on PATH."""
    directories = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return require(name, os.pathsep.join(map(str, directories)))


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    # Only root may enter pytest's own directory.
    directory = Path(tempfile.mkdtemp(prefix="sknet-postgresql-"))
    port, password = free_port(), secrets.token_hex(16)
    secret = directory / "password"
    secret.write_text(password)
    for path in (directory, secret):
        shutil.chown(path, UNPRIVILEGED)
    data, log = directory / "data", directory / "server.log"
    user = ["setpriv", f"--reuid={UNPRIVILEGED}", f"--regid={UNPRIVILEGED}", "--clear-groups"]
    made = ["-U", "prefect", "--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync"]
    subprocess.run(
        [*user, program("initdb"), "-D", data, *made],
        check=True,
        capture_output=True,
        cwd=directory,
    )
    listen = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={directory}"]
    command = [*user, program("postgres"), "-D", str(data), "-p", str(port), *listen]
    result = Database(port, password)
    try:
        with Service(command, log, {}) as server:
            ready = [program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
            wait_for(
                lambda: subprocess.run(ready, check=False).returncode == 0,
                server.log_tail,
                pause=PAUSE,
            )
            result.query("create database prefect", "postgres")
            yield result
    finally:
        shutil.rmtree(directory)


def nightlies(server: PrefectServer) -> list[str]:
    """Return the states of the revalidations asked for; scheduled ones lie in the future."""
    runs = [run for run in server.runs("nightly") if not run["auto_scheduled"]]
    return [str(run["state_type"]) for run in runs]


def test_deploy_work_and_restart_on_postgresql(
    database: Database, copied_store: Path, tmp_path: Path
) -> None:
    settings = {**shipped_settings(), **database.settings, **SOON}
    with PrefectServer(tmp_path, settings) as server:
        template = ("--base-job-template", "infra/prefect/process-pool.json")
        server.prefect("work-pool", "create", "sknet-process", "--type", "process", *template)
        server.prefect("deploy", "--all", "--no-prompt")
        with PrefectWorker(server, shipped_settings()) as worker:
            for _ in range(2):  # one at a time: the second waits for the first
                server.run("revalidate/nightly", {"store": str(copied_store)})
            wait_for(
                lambda: nightlies(server) == ["COMPLETED", "COMPLETED"],
                worker.log_tail,
                pause=PAUSE,
            )
    revalidations = list(open_store(str(copied_store)).list("revalidation"))
    assert len(revalidations) == 2
    assert int(database.query("select count(*) from flow_run where state_type = 'COMPLETED'")) == 2
    assert not list((tmp_path / "prefect").rglob("*.db"))

    with PrefectServer(tmp_path, settings) as restarted:
        assert nightlies(restarted) == ["COMPLETED", "COMPLETED"]
