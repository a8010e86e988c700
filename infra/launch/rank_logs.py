"""Follow the log files of all ranks while they are written."""

from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

_TAIL_LINES = 40  # kept per rank: a Python traceback with MindSpore's C++ call stack below it


class RankLogs:
    """The lines of `worker_<rank>.log`, in the order in which they are found.

    Bytes that are not UTF-8 are replaced.
    """

    def __init__(self, log_dir: Path, ranks: Sequence[int]) -> None:
        self._paths = {rank: log_dir / f"worker_{rank}.log" for rank in ranks}
        self._offsets = dict.fromkeys(ranks, 0)
        self._partial = dict.fromkeys(ranks, b"")
        self._tails: dict[int, deque[str]] = {rank: deque(maxlen=_TAIL_LINES) for rank in ranks}

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
                yield self._keep(rank, line)

    def last_lines(self) -> Iterator[str]:
        """Yield what is left once the ranks have ended, an unfinished last line included."""
        yield from self.new_lines()
        for rank, line in self._partial.items():
            if line:
                yield self._keep(rank, line)
        self._partial = dict.fromkeys(self._paths, b"")

    def tail(self, rank: int | None = None) -> tuple[str, ...]:
        """Return the last lines of `rank`, or those of every rank one rank after the other."""
        tails = self._tails.values() if rank is None else [self._tails[rank]]
        return tuple(line for tail in tails for line in tail)

    def _keep(self, rank: int, line: bytes) -> str:
        text = f"[rank {rank}] {line.decode(errors='replace').rstrip(chr(13))}"
        self._tails[rank].append(text)
        return text
