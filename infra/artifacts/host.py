"""Which process this is, on which start of which machine, and whether another one still lives."""

import socket
from pathlib import Path
from typing import Self

import psutil

from infra.base.records import Record


def boot_id() -> str:
    """Another one after each start of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()


class ProcessIdentity(Record):
    """A process, told apart from a later one with its number."""

    host: str
    boot: str
    pids: str
    """The namespace of the number: containers of one host have their own."""
    pid: int
    started: float
    """Seconds since the epoch, by the machine's own clock."""

    @classmethod
    def own(cls) -> Self:
        """This process."""
        process = psutil.Process()
        return cls(
            host=socket.gethostname(),
            boot=boot_id(),
            pids=_pid_namespace(),
            pid=process.pid,
            started=process.create_time(),
        )

    @property
    def is_known_dead(self) -> bool:
        """Whether it ran on this machine and is gone; of other machines nobody can tell."""
        if (self.boot, self.pids) != (boot_id(), _pid_namespace()):
            return False
        try:
            process = psutil.Process(self.pid)
            is_other = process.create_time() != self.started
            return is_other or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True


def _pid_namespace() -> str:
    return str(Path("/proc/self/ns/pid").readlink())
