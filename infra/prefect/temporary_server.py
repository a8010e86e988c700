"""The Prefect server of a command for which no other server is set.

Prefect would start one itself with the first request, in the process group of the command: Ctrl-C
in a terminal would end it before the run could report to it, and SIGKILL to the command would leave
it behind. This one has a session of its own, and a supervisor that ends it with the command.

This module imports Prefect's server, which takes seconds.
"""

import os
import subprocess
import sys
from pathlib import Path

from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import get_current_settings

import infra.launch

START_SECONDS = 120
"""Seconds to wait for the server. On a new machine it creates a database, and may be slow: with
Prefect's default of 20 s, a busy machine ends the command."""


class _SupervisedServer(SubprocessASGIServer):
    def _run_uvicorn_command(self) -> "subprocess.Popen[bytes]":
        server = "prefect.server.api.server:create_app"
        options = ["--host", "127.0.0.1", "--port", str(self.port), "--log-level", "error"]
        return subprocess.Popen(
            [
                sys.executable,
                "-P",
                str(Path(infra.launch.__file__).with_name("supervisor.py")),
                "--quiet",
                "--",
                *(sys.executable, "-m", "uvicorn", "--factory", server, *options),
            ],
            stdin=subprocess.PIPE,  # its end tells the supervisor that this process is gone
            start_new_session=True,
            env={
                **os.environ,
                **get_current_settings().to_environment_variables(exclude_unset=True),
                # As in prefect.toml, which is read only in this repository's root.
                "PREFECT_SERVER_ANALYTICS_ENABLED": "0",
                "PREFECT_UI_ENABLED": "0",
                "PREFECT__SERVER_EPHEMERAL": "1",
                "PREFECT__SERVER_FINAL": "1",
            },
        )

    def stop(self) -> None:
        """End the server without a word: the command's last line is its own."""
        if self.server_process:
            self.server_process.terminate()
            self.server_process.wait()


def start_temporary_server() -> None:
    """Start the server that Prefect's clients in this process use.

    Raises:
        RuntimeError: It did not start in time; the message has its output.
    """
    # The first instance is the one that Prefect's clients in this process find.
    _SupervisedServer().start(START_SECONDS)
