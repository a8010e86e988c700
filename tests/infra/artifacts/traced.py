"""Runs work in a process under strace, which shows its file-system calls, or kills it at one.

One process imports the store, and forks for each piece of work.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

# Calls that name a file or use an open one.
CALLS = "%file,%desc"
# These change nothing: killed at one of them, work leaves what it leaves at the next other call.
ONLY_LOOKING = {"fstat", "getdents64", "ioctl", "lseek", "mmap", "munmap", "newfstatat", "read"}
CALL = re.compile(r"^\d+ +(\w+)\(")


class Call(NamedTuple):
    """A system call: its name, and its number among the calls of that name, from 1."""

    name: str
    number: int


class Tracer:
    """The process that forks for each piece of work."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def log(self, work: Callable[..., object], *arguments: object, log: Path) -> list[str]:
        """Do the work, and return its calls as strace prints them, with the path of each file."""
        code = self._run(work, arguments, ["-y", "-o", str(log), "-e", f"trace={CALLS}"])
        assert code == 0
        return log.read_text().splitlines()

    def calls(self, work: Callable[..., object], *arguments: object, log: Path) -> list[Call]:
        """Do the work, and return the calls that may change something, in their order."""
        counts: Counter[str] = Counter()
        calls = []
        for line in self.log(work, *arguments, log=log):
            if (found := CALL.match(line)) and found[1] not in ONLY_LOOKING:
                counts[found[1]] += 1
                calls.append(Call(found[1], counts[found[1]]))
        return calls

    def kill(self, call: Call, work: Callable[..., object], *arguments: object) -> None:
        """Do the work until it enters a call, and kill it there."""
        inject = f"inject={call.name}:signal=SIGKILL:when={call.number}"
        code = self._run(work, arguments, ["-o", "/dev/null", "-e", inject])
        assert code == -signal.SIGKILL

    def close(self) -> None:
        self._process.communicate()

    def _run(self, work: Callable[..., object], arguments: tuple[object, ...], strace: list) -> int:
        assert self._process.stdin
        assert self._process.stdout
        request = [work.__name__, [str(argument) for argument in arguments], strace]
        print(json.dumps(request), file=self._process.stdin, flush=True)
        code: int = json.loads(self._process.stdout.readline())
        return code


@contextmanager
def tracer() -> Iterator[Tracer]:
    """Start a tracer, or skip the test with the reason why that isn't possible."""
    # Imported here because this file is also a program, which can't import the package of tests.
    from tests.system_programs import require

    require("strace")
    tried = subprocess.run(["strace", "-qq", "true"], capture_output=True, text=True)
    if tried.returncode != 0:
        pytest.skip(f"strace may not trace here: {tried.stderr.strip()}")
    made = Tracer()
    try:
        yield made
    finally:
        made.close()


def _serve() -> None:
    import traced_work

    for line in sys.stdin:
        name, arguments, strace = json.loads(line)
        print(_trace(getattr(traced_work, name), arguments, strace), flush=True)


def _trace(work: Callable[..., Any], arguments: list[str], strace: list[str]) -> int:
    pid = os.fork()
    if pid == 0:
        os.kill(os.getpid(), signal.SIGSTOP)
        work(*arguments)
        os._exit(0)
    os.waitpid(pid, os.WUNTRACED)
    tracing = subprocess.Popen(["strace", "-f", "-qq", *strace, "-p", str(pid)])
    status = Path(f"/proc/{pid}/status")
    while "TracerPid:\t0\n" in status.read_text():
        assert tracing.poll() is None
        time.sleep(0.001)
    os.kill(pid, signal.SIGCONT)
    _, status = os.waitpid(pid, 0)
    tracing.wait()
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    _serve()
