"""Moto's S3 server: a second implementation of the protocol that shares no code with the first."""

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from infra.s3.server import settings
from tests.prefect_services import free_port
from tests.waiting import wait_for


@contextlib.contextmanager
def serving(log: Path) -> Iterator[Mapping[str, str]]:
    """Run the server, and yield the AWS settings that lead to it."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as moto:
        try:
            wait_for(lambda: listens(port))
            yield settings(port, "anybody", "anything")
        finally:
            moto.kill()


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
