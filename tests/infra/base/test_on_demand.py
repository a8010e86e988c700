"""Files on demand: what is demanded comes and stays, within the limit, and nobody waits forever."""

import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.base import on_demand
from infra.base.console import Console, opened
from infra.base.files import replace_file
from infra.base.locks import exclusive
from infra.base.on_demand import (
    POLL_SECONDS,
    Demand,
    Demands,
    Supplier,
    SupplyError,
    files_wanted,
    is_on_demand,
)
from infra.base.outcomes import UserError
from infra.base.progress import Count, Progress
from tests.waiting import wait_for

SIZES = {f"f{number}": 10 + number for number in range(12)}


class Source:
    """Fetches files slowly, notes their order, and how many bytes there are at most."""

    def __init__(self, seconds: float = 0.0, sizes: dict[str, int] = SIZES) -> None:
        self.sizes = sizes
        self.fetched: list[str] = []
        self.here: list[set[str]] = []
        """Files that were there when each of these was begun."""
        self.failing: dict[str, Exception] = {}
        self.most = 0
        self.directory = Path()
        self._seconds = seconds
        self._under_way: dict[str, int] = {}
        self._lock = threading.Lock()

    def __call__(self, name: str, path: Path, count: Count) -> None:
        with self._lock:
            self.fetched.append(name)
            self._under_way[name] = self.sizes[name]
            here = {file.name for file in self.directory.glob("f*")}
            self.here.append(here)
            size = sum(self.sizes[file] for file in here)
            self.most = max(self.most, size + sum(self._under_way.values()))
        time.sleep(random.random() * self._seconds)
        if name in self.failing:
            raise self.failing[name]
        content = name.encode().ljust(self.sizes[name], b".")
        with path.open("xb") as file:
            file.write(content)
        count(len(content))
        with self._lock:
            del self._under_way[name]


@contextmanager
def supplied(directory: Path, source: Source, limit: int | None = None) -> Iterator[Supplier]:
    source.directory = directory
    with Supplier(directory, source.sizes, source, limit) as supplier:
        yield supplier


def names(*numbers: int) -> list[str]:
    return [f"f{number}" for number in numbers]


def some_names() -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from([*SIZES]), max_size=4).map(tuple)


def some_demands() -> st.SearchStrategy[list[Demand]]:
    demand = st.builds(Demand, now=some_names(), next=some_names(), later=some_names())
    return st.lists(demand, max_size=3)


@given(some_demands(), st.integers(0, sum(SIZES.values())))
def test_what_is_wanted_is_within_the_limit_and_in_the_order_of_need(demands, limit):
    certain = {name for demand in demands for name in (*demand.now, *demand.later)}
    if sum(SIZES[name] for name in certain) > limit:
        with pytest.raises(UserError, match=rf"processes \({len(demands)}\) need at once"):
            files_wanted(demands, SIZES, limit)
        return
    wanted = files_wanted(demands, SIZES, limit)
    assert len(wanted) == len({*wanted})
    assert sum(SIZES[name] for name in wanted) <= limit
    assert certain <= {*wanted}
    now = {name for demand in demands for name in demand.now}
    assert {*wanted[: len(now)]} == now
    for demand in demands:
        places = [wanted.index(name) for name in dict.fromkeys(demand.now)]
        assert places == sorted(places) or len(demands) > 1


def test_files_that_are_needed_next_come_in_turn_as_far_as_there_is_room():
    demands = [
        Demand(now=tuple(names(0)), next=tuple(names(2, 4)), later=tuple(names(5))),
        Demand(now=tuple(names(1)), next=tuple(names(3)), later=()),
    ]
    room = sum(SIZES[name] for name in names(0, 1, 2, 3, 5))
    assert files_wanted(demands, SIZES, 1000) == names(0, 1, 2, 3, 4, 5)
    assert files_wanted(demands, SIZES, room) == names(0, 1, 2, 3, 5)


@settings(max_examples=8)
@given(st.integers(0, 2**32), st.integers(1, 3))
def test_what_a_process_holds_is_there_and_all_files_are_within_the_limit(
    tmp_path_factory: pytest.TempPathFactory, seed: int, num_processes: int
):
    directory = tmp_path_factory.mktemp("host") / "files"
    source, chance = Source(0.01), random.Random(seed)
    # Each process reads two files at a time, keeps one, and all have one more in common.
    limit = 3 * num_processes * max(SIZES.values()) + max(SIZES.values())
    orders = [chance.sample(names(*range(11)), 8) for _ in range(num_processes)]

    def read(order: list[str]) -> None:
        demands = Demands(directory)
        demands.keep(["f11"])
        for place in range(0, len(order), 2):
            demands.announce(order[place + 2 : place + 5])
            with demands.holding(order[place : place + 2]):
                for _ in range(3):
                    for name in order[place : place + 2]:
                        content = (directory / name).read_bytes()
                        assert content == name.encode().ljust(SIZES[name], b".")
                    time.sleep(random.random() * 0.01)
        with demands.holding(["f11"]):
            assert (directory / "f11").is_file()

    with supplied(directory, source, limit), ThreadPoolExecutor(num_processes) as processes:
        for ended in [processes.submit(read, order) for order in orders]:
            ended.result(60)
    assert source.most <= limit
    assert not directory.exists()


def test_a_file_is_fetched_once_for_all_and_again_after_it_was_removed(tmp_path):
    source = Source()
    with supplied(tmp_path / "files", source, 25):
        one, other = Demands(tmp_path / "files"), Demands(tmp_path / "files")
        with one.holding(["f0"]), other.holding(["f0"]):
            assert source.fetched == ["f0"]
        # There is no room for three, and what was used last stays.
        for name in ("f1", "f2"):
            with one.holding([name]), other.holding([name]):
                pass
        with one.holding(["f2"]), other.holding([]):
            assert source.fetched == names(0, 1, 2)
        with one.holding(["f0"]), other.holding([]):
            assert source.fetched == names(0, 1, 2, 0)


def test_demands_and_files_change_only_under_the_lock(tmp_path):
    directory = tmp_path / "files"
    with supplied(directory, Source(), 15), ThreadPoolExecutor(1) as other:
        with Demands(directory).holding([]), Demands(directory).holding([]):
            pass
        path = directory / ".demands/x.json"
        replace_file(path, Demand(now=("f0",), next=(), later=()).encode())
        wait_for((directory / "f0").is_file)
        with exclusive(directory / ".demands/lock"):
            before = {*path.parent.glob("*.json")}
            # There is room for one of them.
            replace_file(path, Demand(now=("f1",), next=(), later=()).encode())
            told = other.submit(lambda: Demands(directory).holding([]).__enter__())
            time.sleep(5 * POLL_SECONDS)
            assert (directory / "f0").is_file()
            assert {*path.parent.glob("*.json")} == before
        told.result(60)
        wait_for((directory / "f1").is_file)
        assert not (directory / "f0").exists()
        assert len([*path.parent.glob("*.json")]) == len(before) + 1


def test_no_held_file_makes_room_while_a_fetch_ends_that_nobody_wants_any_more(tmp_path):
    directory, released = tmp_path / "files", threading.Event()
    fetched: list[str] = []

    def fetch(name: str, path: Path, count: Count) -> None:
        fetched.append(name)
        if name == "slow":
            released.wait(60)
        path.write_bytes(bytes(10))

    sizes = dict.fromkeys(("held", "slow", "late"), 10)
    with Supplier(directory, sizes, fetch, 20), ThreadPoolExecutor(1) as other:
        one, two = Demands(directory), Demands(directory)
        one.announce(["slow"])
        with one.holding(["held"]):
            wait_for(lambda: "slow" in fetched)
            one.announce([])
            with one.holding(["held"]):
                late = other.submit(lambda: two.holding(["late"]).__enter__())
                time.sleep(5 * POLL_SECONDS)
                assert "late" not in fetched
                assert (directory / "held").is_file()
                released.set()
                late.result(60)
                assert {path.name for path in directory.glob("*")} == {"held", "late"} | {
                    ".demands",
                    ".incoming",
                }


def test_what_somebody_waits_for_is_fetched_before_what_is_announced(tmp_path):
    source = Source(0.02)
    with supplied(tmp_path / "files", source, 1000):
        demands = Demands(tmp_path / "files")
        demands.announce(names(2, 3, 4, 5, 6))
        demands.keep(["f11"])
        with demands.holding(names(0, 1)):
            wait_for(lambda: len(source.fetched) == 8, lambda: str(source.fetched))
    assert {*source.fetched[:2]} == {"f0", "f1"}
    assert all({"f0", "f1"} <= here for here in source.here[2:]), "they share no link with others"
    assert {*source.fetched[2:5]} <= {*names(2, 3, 4, 5, 6)}
    assert source.fetched[-1] == "f11"


def test_too_small_a_limit_ends_all_who_wait_with_what_it_takes(tmp_path):
    with supplied(tmp_path / "files", Source(), 30) as supplier:
        one, other = Demands(tmp_path / "files"), Demands(tmp_path / "files")
        with one.holding(names(0, 1)):
            for _ in range(2):
                with pytest.raises(SupplyError) as caught, other.holding(names(2)):
                    pass
    expected = (
        "the files that this host's processes (2) need at once take 3.3e-05 MB, but 3e-05 MB are "
        "allowed: raise SKNET_ON_DEMAND_GB"
    )
    assert str(caught.value) == f"{expected} (waiting for f2)"
    assert str(supplier.failure) == expected


def test_a_file_that_can_not_be_fetched_ends_all_who_wait_for_it(tmp_path):
    source = Source()
    source.failing["f1"] = OSError(5, "the server\nis gone")
    with supplied(tmp_path / "files", source) as supplier, ThreadPoolExecutor(2) as processes:

        def ask() -> None:
            with Demands(tmp_path / "files").holding(names(0, 1)):
                pass

        errors = [processes.submit(ask).exception(60) for _ in range(2)]
    assert [str(error) for error in errors] == ["[Errno 5] the server is gone (waiting for f1)"] * 2
    assert supplier.failure is source.failing["f1"]


def test_a_file_that_nobody_waits_for_yet_may_fail(tmp_path):
    source = Source()
    source.failing["f1"] = OSError("no")
    with supplied(tmp_path / "files", source) as supplier:
        demands = Demands(tmp_path / "files")
        demands.announce(names(1, 2))
        with demands.holding(["f0"]):
            wait_for(lambda: (tmp_path / "files/f2").is_file())
        del source.failing["f1"]
        with demands.holding(["f1"]):
            assert supplier.failure is None
    assert sorted(source.fetched) == names(0, 1, 1, 2)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "is no valid Demand"),
        (b'{"now": ["../../etc/passwd"], "next": [], "later": []}', "there is no such file"),
        (b'{"now": [], "next": [], "later": ["f99"]}', "'f99' is demanded, but there is no"),
    ],
)
def test_a_demand_that_nobody_may_have_written_is_refused(tmp_path, content, said):
    with supplied(tmp_path / "files", Source()) as supplier:
        replace_file(tmp_path / "files/.demands/x.json", content)
        wait_for(lambda: supplier.failure)
        assert isinstance(supplier.failure, UserError)
        assert said in str(supplier.failure)
        assert "\n" not in str(supplier.failure)


class Recorded(Console):
    """Keeps what it is to show."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[str] = []

    def _progressed(self) -> None:
        self.shown.append(self.progress.describe())


def test_a_process_that_waits_shows_what_is_missing_and_then_what_it_showed_before(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(on_demand, "SECONDS_UNTIL_SHOWN", 0.2)
    directory, released = tmp_path / "files", threading.Event()

    def fetch(name: str, path: Path, _: Count) -> None:
        if name == "f1":
            released.wait(60)
        path.write_bytes(bytes(SIZES[name]))

    with opened(Recorded()) as shown, Supplier(directory, SIZES, fetch):
        shown.show(Progress(phase="evaluating"))
        with Demands(directory, "shards").holding(["f0"]):
            assert shown.shown == ["evaluating"]
        threading.Timer(1.0, released.set).start()
        with Demands(directory, "shards").holding(["f0", "f1"]):
            pass
    assert {*shown.shown[1:-1]} == {"waiting for shards, 1 file to come"}
    assert shown.shown[-1] == "evaluating"


def test_all_begin_a_step_when_each_has_its_files_or_none_are_fetched_any_more(tmp_path):
    directory, released = tmp_path / "files", threading.Event()

    def fetch(name: str, path: Path, _: Count) -> None:
        if name == "f1":
            released.wait(60)
        if name == "f3":
            raise OSError("no")
        path.write_bytes(bytes(SIZES[name]))

    def read(demands: Demands, steps: tuple[int, int], *numbers: int) -> None:
        demands.announce([], steps)
        with demands.holding(names(*numbers)):
            pass

    num_waits = 0

    def count() -> None:
        nonlocal num_waits
        num_waits += 1
        if num_waits == 3:
            released.set()

    with Supplier(directory, SIZES, fetch), ThreadPoolExecutor(2) as others:
        one, other = Demands(directory), Demands(directory)
        read(one, (0, 9), 0)
        begun = others.submit(one.wait_for_all, 2, count)
        time.sleep(5 * POLL_SECONDS)
        assert not begun.done(), "the other has demanded nothing yet"
        read(other, (0, 3), 0)
        begun.result(60)
        begun = others.submit(one.wait_for_all, 3, count)
        time.sleep(5 * POLL_SECONDS)
        assert not begun.done(), "the other has not demanded the files of this step yet"
        assert num_waits == 0, "no file is missing"
        reading = others.submit(read, other, (3, 6), 1)
        wait_for(one.is_awaited)
        one.wait_for_all(2, count)
        begun.result(60)
        assert num_waits >= 3
        reading.result(60)
        assert not one.is_awaited()
        # What can't be fetched is waited for by nobody any more.
        assert isinstance(others.submit(read, other, (6, 9), 3).exception(60), SupplyError)
        one.wait_for_all(6, count)
        assert not one.is_awaited()


def test_a_supplier_that_was_killed_is_noticed(tmp_path):
    directory = tmp_path / "files"
    program = (
        "import sys, time; from pathlib import Path; from infra.base.on_demand import Supplier\n"
        "with Supplier(Path(sys.argv[1]), {'f0': 1}, lambda *_: time.sleep(900)):\n"
        "    print('ready', flush=True); time.sleep(900)"
    )
    with ExitStack() as stack:
        process = subprocess.Popen(
            [sys.executable, "-c", program, directory], stdout=subprocess.PIPE, text=True
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        assert process.stdout is not None
        stack.enter_context(process.stdout)
        assert process.stdout.readline() == "ready\n"
        threading.Timer(0.3, process.send_signal, [signal.SIGKILL]).start()
        with pytest.raises(SupplyError, match="f0 does not come, because the process that"):
            stack.enter_context(Demands(directory).holding(["f0"]))


def test_a_directory_is_made_anew_and_a_fetch_that_hangs_does_not_hold_up_the_end(tmp_path):
    directory, released = tmp_path / "files", threading.Event()
    directory.mkdir()
    (directory / "f0").write_text("of a supplier that was killed")
    assert not is_on_demand(directory)

    def fetch(name: str, path: Path, count: Count) -> None:
        released.wait(60)
        count(1)  # raises: nobody wants the file any more

    try:
        with Supplier(directory, SIZES, fetch):
            assert is_on_demand(directory)
            assert not (directory / "f0").exists()
            shutil.copy(__file__, directory / "beside")  # files of the caller may lie there
            demand = Demand(now=("f0",), next=(), later=())
            replace_file(directory / ".demands/x.json", demand.encode())
            wait_for(lambda: any(thread.name == "fetch_0" for thread in threading.enumerate()))
        assert not directory.exists()
    finally:
        released.set()
