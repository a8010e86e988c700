"""Files on demand: the processes of a host say which they need, and one supplier fetches them.

    <directory>/<name>                  a file: it appears, whole and verified, by a rename
    <directory>/.demands/<process>.json what a process needs
    <directory>/.demands/lock           held while a demand is written, and while files are removed
    <directory>/.demands/supplier       held by the supplier for as long as it lives
    <directory>/.demands/failed         why the supplier has given up, in one line
    <directory>/.incoming/              files that are being fetched

All processes share one copy of each file, and all files together stay within a limit of bytes. A
process writes its demand under the lock, then waits for its files. The supplier reads all demands
under the same lock before it removes a file, so it removes none that a process has been promised.

A process that waits says so on its console. Processes that take the same steps together can wait
for each other: a demand says which steps it is for.
"""

import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Annotated, Self

from pydantic import FailFast, StringConstraints

from infra.base.console import console
from infra.base.files import replace_file
from infra.base.locks import exclusive, is_held
from infra.base.outcomes import UserError
from infra.base.progress import Count, Progress
from infra.base.records import Record
from infra.base.shortages import disk_full, size_text
from infra.base.verified import FileStatus

LIMIT_VARIABLE = "SKNET_ON_DEMAND_GB"
"""Name of the setting that messages tell the user to raise. Who makes a supplier reads it."""

FETCHES = 8
"""Files that are fetched at a time: several, to hide the latency of small ones."""

POLL_SECONDS = 0.1
"""Time between two looks of the supplier at the demands, and of a process at its files."""

SECONDS_UNTIL_SHOWN = 3.0
"""Time of waiting after which a process shows that it waits."""

_DEMANDS, _INCOMING = ".demands", ".incoming"
_LOCK, _SUPPLIER, _FAILED = "lock", "supplier", "failed"

Names = Annotated[tuple[Annotated[str, StringConstraints(max_length=255)], ...], FailFast()]

Fetch = Callable[[str, Path, Count], None]
"""Writes the file of a name, verified, to a path where there is none, and counts its bytes. It may
be called by several threads; `Count` raises an error when the file is no longer wanted."""


class SupplyError(RuntimeError):
    """The files that a process waits for don't come.

    The process ends with exit code 1 and no outcome, which is worth a retry. Whoever runs the
    supplier knows the cause.
    """


class LimitError(UserError):
    """The limit is less than what is needed at once."""


class Demand(Record):
    """What a process needs. The supplier removes no file of `now` and `later`."""

    now: Names
    """Files that it reads, or waits for."""
    next: Names
    """Files that it will read after these, in this order. As many come as there is room for."""
    later: Names
    """Files that it will need at some time and then keep, for which room is kept."""
    steps: tuple[int, int] = (0, 0)
    """The first of its steps that reads `now`, and the one after the last."""


def is_on_demand(directory: Path) -> bool:
    """Tell whether a supplier fills a directory."""
    return (directory / _DEMANDS).is_dir()


@contextmanager
def _showing(what: str) -> Iterator[Callable[[int], None]]:
    """Yield a function that shows on the console how many files a thread waits for.

    It shows nothing in the first seconds. In the end, the console shows what it showed before.
    """
    shown_from, phase = time.monotonic() + SECONDS_UNTIL_SHOWN, f"waiting for {what}"
    before: Progress | None = None

    def show(num_missing: int) -> None:
        nonlocal before
        if time.monotonic() < shown_from:
            return
        if console().progress.phase != phase:  # no other thread of this process waits
            before = console().progress
        files = f"{num_missing} file{'s' if num_missing > 1 else ''} to come"
        console().show(Progress(phase=phase, figures=(files,)))

    try:
        yield show
    finally:
        if before is not None:
            console().show(before)


class Demands:
    """What this process needs of a directory, from the beginning nothing. Any thread may use it.

    The supplier hears that a file is no longer needed only with the next demand, so that a demand
    can be given up anywhere without waiting for the lock.
    """

    def __init__(self, directory: Path, what: str = "files") -> None:
        """Say that there is this process, so that others can wait for it.

        Args:
            directory: Where the files appear.
            what: What the console says that a process waits for.
        """
        self._directory, self._what = directory, what
        self._path = directory / _DEMANDS / f"{uuid.uuid4().hex}.json"
        self._lock = threading.Lock()
        self._held: list[tuple[str, ...]] = []
        self._next: tuple[str, ...] = ()
        self._later: tuple[str, ...] = ()
        self._steps = (0, 0)
        self._met: dict[str, tuple[FileStatus, Demand]] = {}
        self._tell()

    def keep(self, names: Iterable[str]) -> None:
        """Say with the next demand which files will be needed at some time, and then kept."""
        self._later = tuple(names)

    def announce(self, names: Iterable[str], steps: tuple[int, int] = (0, 0)) -> None:
        """Say with the next demand which files will be needed after its own, in this order.

        Args:
            names: The files.
            steps: The first step that reads the files of the next demand, and the one after the
                last.
        """
        self._next, self._steps = tuple(names), steps

    @contextmanager
    def holding(self, names: Iterable[str]) -> Iterator[None]:
        """Demand files, and wait until they are there. They stay until this context ends.

        Raises:
            SupplyError: They don't come.
        """
        held = tuple(names)
        self._held.append(held)
        try:
            self._tell()
            self._wait_for(held)
            yield
        finally:
            self._held.remove(held)

    def is_awaited(self) -> bool:
        """Tell whether a process waits for files, and they are being fetched."""
        return any(missing for _, missing in self._look()) and self._is_supplied()

    def wait_for_all(self, step: int, on_wait: Callable[[], None]) -> None:
        """Wait until all processes have the files of a step, or nobody fetches files any more.

        Args:
            step: The step. Each process has to announce in which steps it reads its files.
            on_wait: Called every now and then while files are missing.
        """
        with _showing(self._what) as show:
            while behind := [
                lacking
                for demand, lacking in self._look()
                if step >= demand.steps[1] or (lacking and step >= demand.steps[0])
            ]:
                if not self._is_supplied():
                    return
                if missing := set().union(*behind):
                    show(len(missing))
                    on_wait()
                # If nothing is missing, a process has yet to say what it reads in this step. It
                # does so as soon as it has read what is there, so waiting for long costs time.
                time.sleep(POLL_SECONDS if missing else POLL_SECONDS / 20)

    def _look(self) -> list[tuple[Demand, set[str]]]:
        """Return what each process demands, and which of its files are missing."""
        with os.scandir(self._path.parent) as entries:  # a third of the time of Path.glob
            files = [entry for entry in entries if entry.name.endswith(".json")]
        found = []
        for file in files:
            status = FileStatus.of(file.stat())
            met = self._met.get(file.name)
            if met and met[0] == status:  # the files stay until the process demands others
                found.append((met[1], set[str]()))
                continue
            demand = Demand.read(Path(file.path))
            missing = {name for name in demand.now if not (self._directory / name).is_file()}
            if not missing:
                self._met[file.name] = status, demand
            found.append((demand, missing))
        return found

    def _is_supplied(self) -> bool:
        demands = self._path.parent
        return is_held(demands / _SUPPLIER) and not (demands / _FAILED).is_file()

    def _tell(self) -> None:
        with self._lock:
            now = tuple(dict.fromkeys(chain.from_iterable(self._held)))
            demand = Demand(now=now, next=self._next, later=self._later, steps=self._steps)
            with exclusive(self._path.with_name(_LOCK)):
                replace_file(self._path, demand.encode())

    def _wait_for(self, names: Sequence[str]) -> None:
        missing = [*names]
        with _showing(self._what) as show:
            while True:
                # Asked before the files, of which the supplier may have brought the last one since.
                is_supplied = is_held(self._path.with_name(_SUPPLIER))
                missing = [name for name in missing if not (self._directory / name).is_file()]
                if not missing:
                    return
                failed = self._path.with_name(_FAILED)
                if failed.is_file():
                    raise SupplyError(f"{failed.read_text('utf-8')} (waiting for {missing[0]})")
                if not is_supplied:
                    raise SupplyError(
                        f"{missing[0]} does not come, because the process that fetches files into "
                        f"{self._directory} is gone: start the same command again"
                    )
                show(len(missing))
                time.sleep(POLL_SECONDS)


def files_wanted(demands: Sequence[Demand], sizes: Mapping[str, int], limit: int) -> list[str]:
    """Return the files that should be there, in the order in which they are fetched.

    First those that a process waits for, then those that are needed next, as far as there is room,
    then those that are kept. Together they are within the limit.

    Args:
        demands: What the processes need.
        sizes: Size of every file, in bytes.
        limit: Bytes of files that may be there.

    Raises:
        LimitError: What is needed now, or kept, exceeds the limit.
        UserError: A process demands a file that doesn't exist.
    """
    now = _merged(demand.now for demand in demands)
    following = _merged(demand.next for demand in demands)
    later = _merged(demand.later for demand in demands)
    for name in (*now, *following, *later):
        if name not in sizes:
            raise UserError(f"{name!r} is demanded, but there is no such file")
    certain = dict.fromkeys([*now, *later])
    if (needed := sum(sizes[name] for name in certain)) > limit:
        raise LimitError(
            f"the files that this host's processes ({len(demands)}) need at once take "
            f"{size_text(needed)}, but {size_text(limit)} are allowed: raise {LIMIT_VARIABLE}"
        )
    room, ahead = limit - needed, []
    for name in following:
        if name in certain:
            continue
        room -= sizes[name]
        if room < 0:
            break
        ahead.append(name)
    return [*dict.fromkeys([*now, *ahead, *later])]


def _merged(of_processes: Iterable[Sequence[str]]) -> list[str]:
    """Return the names of all processes, the first ones of each before the second ones."""
    in_turn = chain.from_iterable(zip_longest(*of_processes))
    return [*dict.fromkeys(name for name in in_turn if name is not None)]


class _GivenUpError(Exception):
    """The supplier ends, so that a file is no longer wanted."""


@dataclass(frozen=True)
class _Fetching:
    """A file that is being fetched."""

    done: Future[None]
    is_ahead: bool
    """Whether no process waited for it when it was begun."""


class Supplier:
    """Fetches files into a directory while it is entered; see the top of this module.

    The directory is made anew, and removed at the end.
    """

    def __init__(
        self,
        directory: Path,
        sizes: Mapping[str, int],
        fetch: Fetch,
        limit: int | None = None,
    ) -> None:
        """Prepare a supplier.

        Args:
            directory: Where the files appear.
            sizes: Name and size in bytes of every file.
            fetch: Gets a file.
            limit: Bytes of files that may be there, with those that are being fetched. None: half
                of what is free on the disk at the beginning.
        """
        self.failure: Exception | None = None
        """Why the supplier has given up; None if it hasn't."""
        self._directory, self._sizes, self._fetch = directory, sizes, fetch
        self._limit = limit
        self._here: dict[str, int] = {}  # name → number of the look at which it was last wanted
        self._fetching: dict[str, _Fetching] = {}
        self._not_ahead: set[str] = set()  # failed; tried again once a process waits for one
        self._looks = 0
        self._ended, self._woken = threading.Event(), threading.Event()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        shutil.rmtree(self._directory, ignore_errors=True)
        for name in (_DEMANDS, _INCOMING):
            (self._directory / name).mkdir(parents=True)
        if self._limit is None:
            self._limit = shutil.disk_usage(self._directory).free // 2
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, self._directory, ignore_errors=True)
            stack.enter_context(exclusive(self._directory / _DEMANDS / _SUPPLIER))
            pool = ThreadPoolExecutor(FETCHES, thread_name_prefix="fetch")
            # A file that a server holds back for minutes must not hold up the end.
            stack.callback(pool.shutdown, wait=False, cancel_futures=True)
            thread = threading.Thread(
                target=self._supply, args=(pool, self._limit), name="supplier", daemon=True
            )
            thread.start()
            stack.callback(thread.join)
            stack.callback(self._end)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _end(self) -> None:
        self._ended.set()
        self._woken.set()

    def _supply(self, pool: ThreadPoolExecutor, limit: int) -> None:
        seen: list[FileStatus] | None = None
        is_woken = False
        try:
            while not self._ended.is_set():
                present = [FileStatus.of(path.stat()) for path in self._demand_files()]
                if is_woken or present != seen:
                    seen = present
                    self._look(pool, limit)
                if is_woken := self._woken.wait(POLL_SECONDS):
                    self._woken.clear()
        except Exception as error:  # noqa: BLE001 (it is told to all who wait)
            if self._ended.is_set():
                return
            self.failure = error
            line = " ".join(str(error).split())
            replace_file(self._directory / _DEMANDS / _FAILED, line.encode())

    def _look(self, pool: ThreadPoolExecutor, limit: int) -> None:
        """Read the demands, remove files to make room, and begin to fetch."""
        self._looks += 1
        self._collect()
        with exclusive(self._directory / _DEMANDS / _LOCK):
            demands = [Demand.read(path) for path in self._demand_files()]
            wanted = files_wanted(demands, self._sizes, limit)
            waited_for = {name for demand in demands for name in demand.now}
            for name in wanted:
                if name in self._here:
                    self._here[name] = self._looks
            is_awaited = not waited_for <= self._here.keys()
            for name in wanted:
                if name in self._here or name in self._fetching:
                    continue
                is_ahead = name not in waited_for
                if is_ahead and is_awaited:
                    break  # the link is for what somebody waits for
                if not self._is_free(name, is_ahead=is_ahead):
                    continue
                if not self._make_room(self._sizes[name], wanted, limit):
                    return
                done = pool.submit(self._bring, name)
                done.add_done_callback(lambda _: self._woken.set())
                self._fetching[name] = _Fetching(done, is_ahead)

    def _demand_files(self) -> list[Path]:
        return sorted((self._directory / _DEMANDS).glob("*.json"))

    def _is_free(self, name: str, *, is_ahead: bool) -> bool:
        """Tell whether a file can be fetched beside those that are being fetched.

        What nobody waits for yet leaves half of the threads to what somebody may wait for soon.
        """
        if len(self._fetching) == FETCHES:
            return False
        num_ahead = sum(each.is_ahead for each in self._fetching.values())
        return not is_ahead or (name not in self._not_ahead and num_ahead < FETCHES // 2)

    def _collect(self) -> None:
        """Note which files have come.

        Raises:
            Exception: One for which a process waited could not be fetched.
        """
        for name, fetching in [*self._fetching.items()]:
            if not fetching.done.done():
                continue
            del self._fetching[name]
            error = fetching.done.exception()
            if error is None:
                self._here[name] = self._looks
            elif fetching.is_ahead:
                self._not_ahead.add(name)
            else:
                raise error

    def _make_room(self, size: int, wanted: Collection[str], limit: int) -> bool:
        """Remove files that are not wanted, the longest unused first, as far as is necessary.

        Returns:
            Whether there is room now; if not, there is when the files have come that are being
            fetched but are no longer wanted.
        """
        used = sum(self._sizes[name] for name in (*self._here, *self._fetching))
        excess = used + size - limit
        unwanted = sorted(self._here.keys() - {*wanted}, key=self._here.__getitem__)
        for name in unwanted:
            if excess <= 0:
                break
            (self._directory / name).unlink()
            del self._here[name]
            excess -= self._sizes[name]
        return excess <= 0

    def _bring(self, name: str) -> None:
        """Fetch a file; it appears when it is whole."""

        def count(_: int) -> None:
            if self._ended.is_set():
                raise _GivenUpError

        # Under a name of its own, because a fetch that was given up may still write.
        part = self._directory / _INCOMING / uuid.uuid4().hex
        try:
            self._fetch(name, part, count)
            count(0)
            part.replace(self._directory / name)
        except OSError as error:
            raise disk_full(error, name, self._sizes[name], self._directory) or error from None
        finally:
            part.unlink(missing_ok=True)
