"""Whether the kernel killed processes of a job for lack of memory, and how much they held.

The kernel's out-of-memory killer sends SIGKILL, which gives no reason. But it counts its kills: for
each control group (`oom_kill` in memory.events, or in version 1 in memory.oom_control), and for the
whole machine in /proc/vmstat. If the count rises while a job runs and the job then loses a rank,
the rank was killed for lack of memory.
"""

import socket
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

SAMPLE_SECONDS = 2.0
_ROOT = Path("/")


@dataclass(frozen=True)
class MemoryLimit:
    """How much memory this process may use, together with those that share the limit."""

    num_bytes: int
    of: str
    """What has this limit: the machine, or a control group."""


class MemoryMonitor:
    """Samples the memory of the processes below `ancestor`, in case the kernel kills some."""

    def __init__(self, ancestor: int) -> None:
        self._ancestor = ancestor
        self._kills = oom_kills()
        self._limit = memory_limit()
        self._sampled = float("-inf")
        self._held: list[int] = []

    def sample(self) -> None:
        """Measure the processes, unless that happened in the last two seconds."""
        if time.monotonic() - self._sampled < SAMPLE_SECONDS:
            return
        self._sampled = time.monotonic()
        held = []
        try:
            for process in psutil.Process(self._ancestor).children(recursive=True):
                try:
                    held.append(process.memory_info().rss)
                except psutil.Error:
                    continue  # it has ended meanwhile
        except psutil.NoSuchProcess:
            pass
        # A sample that was taken after a kill would miss what the killed process held.
        if held and oom_kills() == self._kills:
            self._held = held

    def kill_report(self) -> str | None:
        """Return a message with the figures; None if nothing was killed for lack of memory."""
        kills = oom_kills() - self._kills
        if kills <= 0:
            return None
        processes = f"{len(self._held)} processes, the largest with {_size(max(self._held))}"
        held = f"{_size(sum(self._held))} in {processes}" if self._held else "not measured"
        return (
            f"out of memory on {socket.gethostname()}: the kernel killed {kills} of the processes "
            f"here; resident when last measured: {held}; limit: {_size(self._limit.num_bytes)} "
            f"({self._limit.of})"
        )


def oom_kills(root: Path = _ROOT) -> int:
    """Return the number of processes killed for lack of memory in this control group.

    Where no control group counts them, those of the whole machine are counted.
    """
    for group in _groups(root):
        for name in ("memory.events", "memory.oom_control"):
            count = _table(group / name).get("oom_kill")
            if count is not None:
                return count
    return _table(root / "proc/vmstat").get("oom_kill", 0)


def memory_limit(root: Path = _ROOT) -> MemoryLimit:
    """Return the lowest limit that holds for this process."""
    kilobytes = _table(root / "proc/meminfo").get("MemTotal:", 0)
    lowest = MemoryLimit(kilobytes * 1024, "this machine")
    for group in _groups(root):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = _read(group / name).strip()
            # No limit is `max`, or in version 1 a number beyond any machine's memory.
            if text.isdecimal() and int(text) < lowest.num_bytes:
                lowest = MemoryLimit(int(text), f"control group {group.name}")
    return lowest


def _groups(root: Path) -> list[Path]:
    """Return the directories of this process's control groups, from the innermost outwards."""
    mount = root / "sys/fs/cgroup"
    found: list[Path] = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top = mount
        elif "memory" in controllers.split(","):
            top = mount / "memory"
        else:
            continue
        group = top / path.strip("/")
        # In a container the top may be the container's own group, and the path the host's.
        group = group if group.is_dir() else top
        while group != mount.parent and group.is_relative_to(top):
            found.append(group)
            group = group.parent
    return found


def _table(path: Path) -> dict[str, int]:
    """Parse lines that consist of a name and a number."""
    rows = (line.split() for line in _read(path).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace")
    except OSError:
        return ""


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"
