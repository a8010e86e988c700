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
    eventually,
    free_port,
    shipped_settings,
)
from tests.programs import require
from tests.tiny_pipeline import ROOT, Trained, copy_shards, digests

pytestmark = pytest.mark.slow

SECONDS_TO_RUN = 300
# By default a run that waits for another looks every 30 s.
SOON = {"PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "1"}
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
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return require(name, os.pathsep.join(map(str, places)))


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
            eventually(lambda: subprocess.run(ready, check=False).returncode == 0, 60, server.said)
            result.ask("create database prefect", "postgres")
            yield result
    finally:
        shutil.rmtree(place)


def states(server: PrefectServer, deployment: str) -> list[str]:
    """Of the runs that somebody asked for; the schedule's own lie in the future."""
    runs = [run for run in server.runs(deployment) if not run["auto_scheduled"]]
    return sorted(str(run["state_type"]) for run in runs)


def test_deploy_work_and_restart_on_postgresql(
    database: Database, trained: Trained, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    copy_shards(trained.store, store)
    settings = {**shipped_settings(), **database.settings, **SOON}
    with PrefectServer(tmp_path, settings) as server:
        template = ("--base-job-template", "infra/prefect/process-pool.json")
        server.prefect("work-pool", "create", "sknet-process", "--type", "process", *template)
        server.prefect("deploy", "--all", "--no-prompt")
        with PrefectWorker(server, shipped_settings()) as worker:

            def ended(deployment: str, expected: list[str]) -> None:
                eventually(
                    lambda: states(server, deployment) == expected, SECONDS_TO_RUN, worker.said
                )

            inputs = {"recipe": str(trained.recipe), "data": str(trained.images)}
            server.run({**inputs, "store": str(store), "workers": 2}, {})
            ended("train-sknet", ["COMPLETED"])
            assert digests(store) == digests(trained.store)
            where = ("--param", f"store={store}")
            server.prefect("deployment", "run", "report/report", *where)
            for _ in range(2):  # one at a time: the second waits for the first
                server.prefect("deployment", "run", "revalidate/nightly", *where)
            ended("report", ["COMPLETED"])
            ended("nightly", ["COMPLETED", "COMPLETED"])
    nights = list(open_store(str(store)).list("revalidation"))
    assert len(nights) == 2
    assert int(database.ask("select count(*) from flow_run where state_type = 'COMPLETED'")) == 4
    assert not list((tmp_path / "prefect").rglob("*.db"))

    with PrefectServer(tmp_path, settings) as restarted:
        assert states(restarted, "train-sknet") == ["COMPLETED"]
