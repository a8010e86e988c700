"""Find the rank processes that msrun started, and tell which of them failed."""

import re
from pathlib import Path

import psutil

# Logged by msrun 2.10 for the first rank that it sees fail, before it kills the others
_FAILED_WORKER = re.compile(r"Worker process (\d+) exit with exception. Error code: (-?\d+)")


class Workers:
    """The rank processes below the process `root`, known by the environment msrun gave them."""

    def __init__(self, root: int, num_ranks: int) -> None:
        self._root = root
        self._num_ranks = num_ranks
        self._by_rank: dict[int, psutil.Process] = {}

    def all_ended(self) -> bool:
        """Return whether every rank was seen and has ended since."""
        if len(self._by_rank) < self._num_ranks:
            self._look()
            return False
        return not any(_is_alive(process) for process in self._by_rank.values())

    def first_failed(self, msrun_log: Path) -> tuple[int, str] | None:
        """Return the rank that msrun saw fail first, and how it ended; None if msrun saw none."""
        found = _FAILED_WORKER.search(msrun_log.read_text(errors="replace"))
        if found is None:
            return None
        pid, code = int(found[1]), int(found[2])
        how = f"was killed by signal {-code}" if code < 0 else f"exited with {code}"
        ranks = (rank for rank, process in self._by_rank.items() if process.pid == pid)
        return next(((rank, how) for rank in ranks), None)

    def _look(self) -> None:
        try:
            processes = psutil.Process(self._root).children(recursive=True)
        except psutil.NoSuchProcess:
            return
        for process in processes:
            try:
                environment = process.environ()
            except psutil.Error:
                continue  # it has ended meanwhile
            if environment.get("MS_ROLE") == "MS_WORKER":
                self._by_rank.setdefault(int(environment["RANK_ID"]), process)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
