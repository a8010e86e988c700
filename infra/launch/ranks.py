"""The processes of the ranks on this host, and the lines that they print."""

import re
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

# Of each rank: enough for a Python traceback followed by MindSpore's C++ call stack.
TAIL_LINES = 40
# With these, msrun starts a rank that is bound to cores; they become the rank.
_BINDING_PROGRAMS = ("taskset", "numactl")
# msrun 2.10 logs this for the first rank that fails, before it kills the others.
_FAILED_WORKER = re.compile(r"Worker process (\d+) exit with exception. Error code: (-?\d+)")


class RankProcesses:
    """The ranks and the scheduler below a supervisor, found by the environment that msrun sets.

    A job with a single rank has no msrun: the rank is the child of the inner supervisor.
    """

    def __init__(self, supervisor: int, ranks: Sequence[int], msrun_log: Path | None) -> None:
        """Look for the ranks below a supervisor.

        Args:
            supervisor: Process id of the outer supervisor.
            ranks: The ranks on this host.
            msrun_log: What msrun prints; None if the job has a single rank.
        """
        self._supervisor = supervisor
        self._ranks = ranks
        self._msrun_log = msrun_log
        self._by_rank: dict[int, psutil.Process] = {}
        self._scheduler: psutil.Process | None = None

    def all_ended(self) -> bool:
        """Tell whether every rank has ended, or one has failed and msrun ends the others.

        A rank that ends at once is never found, and msrun would wait for the scheduler, which waits
        for that rank.
        """
        if len(self._by_rank) < len(self._ranks):
            self._find()
            return self.first_failed() is not None
        return not any(_is_alive(process) for process in self._by_rank.values())

    def cores(self) -> dict[int, list[int]] | None:
        """Return the cores on which each rank may run; None until all ranks are found and bound."""
        if len(self._by_rank) < len(self._ranks):
            return None
        found = {}
        for rank, process in sorted(self._by_rank.items()):
            try:
                if process.name() in _BINDING_PROGRAMS:
                    return None
                found[rank] = process.cpu_affinity()
            except psutil.Error:
                return None  # it has ended meanwhile
        return found

    def first_stopped(self) -> int | None:
        """Return a rank that is stopped, as by SIGSTOP; None if no known rank is."""
        stopped = (
            rank
            for rank, process in self._by_rank.items()
            if _status(process) == psutil.STATUS_STOPPED
        )
        return next(stopped, None)

    def scheduler_killed_by(self) -> int | None:
        """Return the signal that killed msrun's scheduler; None if it lives or ended by itself.

        msrun looks at its scheduler only after its ranks have ended, and ranks that have not joined
        yet would wait for the scheduler for minutes.
        """
        if self._scheduler is None or _status(self._scheduler) != psutil.STATUS_ZOMBIE:
            return None
        try:
            stat = Path(f"/proc/{self._scheduler.pid}/stat").read_text("ascii", "replace")
        except OSError:
            return None  # reaped meanwhile
        exit_code = int(stat.split()[-1])  # the last field of proc(5)'s stat, encoded as in wait(2)
        return exit_code & 0x7F or None

    def first_failed(self) -> tuple[int | None, str] | None:
        """Return the first rank that msrun saw fail, and how it ended; None if msrun saw none.

        The rank is None if it ended before it was found.
        """
        if self._msrun_log is None:
            return None
        found = _FAILED_WORKER.search(self._msrun_log.read_text(errors="replace"))
        if found is None:
            return None
        pid, code = int(found[1]), int(found[2])
        how = f"was killed by signal {-code}" if code < 0 else f"exited with {code}"
        ranks = (rank for rank, process in self._by_rank.items() if process.pid == pid)
        return next(ranks, None), how

    def _find(self) -> None:
        try:
            outer = psutil.Process(self._supervisor)
            if self._msrun_log is None:
                started = [rank for inner in outer.children() for rank in inner.children()]
                self._by_rank.update(zip(self._ranks, started, strict=False))
                return
            processes = outer.children(recursive=True)
        except psutil.NoSuchProcess:
            return
        for process in processes:
            try:
                environment = process.environ()
            except psutil.Error:
                continue  # it has ended meanwhile
            if environment.get("MS_ROLE") == "MS_SCHED":
                self._scheduler = self._scheduler or process
            if environment.get("MS_ROLE") == "MS_WORKER":
                self._by_rank.setdefault(int(environment["RANK_ID"]), process)
        if self._scheduler is None and len(self._by_rank) == len(self._ranks):
            self._scheduler = self._dead_sibling(processes)

    def _dead_sibling(self, processes: list[psutil.Process]) -> psutil.Process | None:
        """Return a dead child of msrun that is no rank; None if there is none.

        That is the scheduler, if it died before its environment could be read: msrun starts it
        before the ranks.
        """
        ranks = set(self._by_rank.values())
        msrun = {_parent(rank) for rank in ranks} - {None}
        return next(
            (
                process
                for process in processes
                if process not in ranks
                and _status(process) == psutil.STATUS_ZOMBIE
                and _parent(process) in msrun
            ),
            None,
        )


class RankLogs:
    """The lines of the files `worker_<rank>.log`. Bytes that are not UTF-8 are replaced."""

    def __init__(self, log_dir: Path, ranks: Sequence[int]) -> None:
        self._paths = {rank: log_dir / f"worker_{rank}.log" for rank in ranks}
        self._offsets = dict.fromkeys(ranks, 0)
        self._partial = dict.fromkeys(ranks, b"")
        self._tails: dict[int, deque[str]] = {rank: deque(maxlen=TAIL_LINES) for rank in ranks}

    def new_lines(self) -> Iterator[str]:
        """Yield the lines completed since the last call, each as `[rank <rank>] <line>`."""
        for rank, path in self._paths.items():
            try:
                with path.open("rb") as log:
                    log.seek(self._offsets[rank])
                    data = log.read()
            except FileNotFoundError:
                continue  # the rank has not started yet
            self._offsets[rank] += len(data)
            *lines, self._partial[rank] = (self._partial[rank] + data).split(b"\n")
            for line in lines:
                yield self._append(rank, line)

    def last_lines(self) -> Iterator[str]:
        """Yield the remaining lines once the ranks have ended, including unfinished ones."""
        yield from self.new_lines()
        for rank, line in self._partial.items():
            if line:
                yield self._append(rank, line)
        self._partial = dict.fromkeys(self._paths, b"")

    def tail(self, rank: int | None = None) -> tuple[str, ...]:
        """Return the last lines of `rank`; None: of every rank, one rank after the other."""
        tails = self._tails.values() if rank is None else [self._tails[rank]]
        return tuple(line for tail in tails for line in tail)

    def _append(self, rank: int, line: bytes) -> str:
        text = f"[rank {rank}] {line.decode(errors='replace').rstrip(chr(13))}"
        self._tails[rank].append(text)
        return text


def _is_alive(process: psutil.Process) -> bool:
    return _status(process) not in (None, psutil.STATUS_ZOMBIE)


def _status(process: psutil.Process) -> str | None:
    try:
        return process.status() if process.is_running() else None
    except psutil.NoSuchProcess:
        return None


def _parent(process: psutil.Process) -> int | None:
    try:
        return process.ppid()
    except psutil.NoSuchProcess:
        return None
