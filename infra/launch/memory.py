"""Was a job ended for want of memory, and how much did it hold?

The kernel's out-of-memory killer sends SIGKILL and tells nobody why. But it counts: for each
control group (`oom_kill` in memory.events, or in version 1 in memory.oom_control), and for the
machine as a whole in /proc/vmstat. A job that was lost while the count rose was lost to it.
"""

import socket
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

SECONDS_BETWEEN_LOOKS = 2.0
_ROOT = Path("/")


@dataclass(frozen=True)
class MemoryLimit:
    """How much this process and those beside it may hold."""

    num_bytes: int
    of: str
    """Whose limit it is."""


def oom_kills(root: Path = _ROOT) -> int:
    """Return how often the out-of-memory killer has struck in this control group, or machine."""
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
            # Without a limit: `max`, in version 1 a number beyond any machine's memory.
            if text.isdecimal() and int(text) < lowest.num_bytes:
                lowest = MemoryLimit(int(text), f"control group {group.name}")
    return lowest


class MemoryWatch:
    """What the processes below one hold while they run, for the case that they are killed."""

    def __init__(self, ancestor: int) -> None:
        self._ancestor = ancestor
        self._kills = oom_kills()
        self._limit = memory_limit()
        self._looked = float("-inf")
        self._held: list[int] = []

    def look(self) -> None:
        """Note what they hold, if the last look is some seconds ago."""
        if time.monotonic() - self._looked < SECONDS_BETWEEN_LOOKS:
            return
        self._looked = time.monotonic()
        held = []
        try:
            for process in psutil.Process(self._ancestor).children(recursive=True):
                try:
                    held.append(process.memory_info().rss)
                except psutil.Error:
                    continue  # it has ended meanwhile
        except psutil.NoSuchProcess:
            pass
        # Once they are dead there is nothing left to see.
        self._held = held or self._held

    def verdict(self) -> str | None:
        """Say so, with figures, if the out-of-memory killer has struck since the beginning."""
        kills = oom_kills() - self._kills
        if kills <= 0:
            return None
        processes = f"{len(self._held)} processes, the largest with {_size(max(self._held))}"
        seen = f"{_size(sum(self._held))} in {processes}" if self._held else "not seen"
        return (
            f"out of memory on {socket.gethostname()}: the kernel killed {kills} of the processes "
            f"here; resident when last looked at: {seen}; limit: {_size(self._limit.num_bytes)} "
            f"({self._limit.of})"
        )


def _groups(root: Path) -> list[Path]:
    """The directories of this process's control group and those above it, nearest first."""
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
        place = top / path.strip("/")
        # A container may see its own group as the top, and the path as the host sees it.
        place = place if place.is_dir() else top
        while place != mount.parent and place.is_relative_to(top):
            found.append(place)
            place = place.parent
    return found


def _table(path: Path) -> dict[str, int]:
    """Lines of a name and a number."""
    rows = (line.split() for line in _read(path).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace")
    except OSError:
        return ""


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"
