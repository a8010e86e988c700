"""A PostgreSQL server of a test's own."""

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.prefect_services import PAUSE, free_port
from tests.processes import ROOT, Service
from tests.system_programs import require
from tests.waiting import wait_for

UNPRIVILEGED = "postgres"
"""The user that Debian's package makes: PostgreSQL refuses to run as root."""


@dataclass(frozen=True)
class Database:
    """How to reach the server."""

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


@contextmanager
def running_database(password: str | None = None) -> Iterator[Database]:
    """Run a server on loopback, with a database and a user `prefect`."""
    # Only root may enter pytest's own directory.
    directory = Path(tempfile.mkdtemp(prefix="sknet-postgresql-"))
    port, password = free_port(), password or secrets.token_hex(16)
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
