"""Reading ahead: the same items and errors in the same order, and no thread that stays."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from sknet.data.reading import threads as threads_that_read
from sknet.data.reading.threads import in_order, read_ahead
from sknet.training.metrics import StepTimes


class Maker:
    """Makes items and counts them; optionally fails after the last one."""

    def __init__(self, count: int, *, fails: bool = False, seconds: float = 0.0) -> None:
        self.made = 0
        self.closed = threading.Event()
        self._count, self._fails, self._seconds = count, fails, seconds

    def items(self) -> Iterator[int]:
        try:
            for number in range(self._count):
                time.sleep(self._seconds)
                self.made += 1
                yield number
            if self._fails:
                raise ArithmeticError("after the last")
        finally:
            self.closed.set()


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "read-ahead"]


@pytest.mark.parametrize("depth", [1, 2, 10])
def test_items_come_in_order_and_the_thread_ends(depth: int) -> None:
    assert list(read_ahead(Maker(7).items(), depth)) == list(range(7))
    assert threads() == []


def test_there_may_be_no_items() -> None:
    assert list(read_ahead(iter(()), 2)) == []


def test_items_are_made_ahead_up_to_the_depth() -> None:
    maker = Maker(100)
    with closing(read_ahead(maker.items(), 3)) as items:
        assert next(items) == 0
        deadline = time.monotonic() + 300
        while maker.made < 4 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.05)
        assert maker.made == 4


def test_who_waits_for_an_item_is_told_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads_that_read, "WAIT_SECONDS", 0.05)
    told, enough = 0, threading.Event()

    def tell() -> None:
        nonlocal told
        told += 1
        if told == 3:
            enough.set()

    def items() -> Iterator[int]:
        yield 0
        enough.wait(60)
        yield 1

    assert list(read_ahead(items(), 2, tell)) == [0, 1]
    assert told >= 3


def test_error_is_raised_after_the_items_before_it() -> None:
    items = read_ahead(Maker(2, fails=True).items(), 5)
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(ArithmeticError, match="after the last"):
        next(items)
    assert threads() == []


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_closing_early_ends_the_thread_and_closes_the_items(taken: int) -> None:
    maker = Maker(1000)
    with closing(read_ahead(maker.items(), 2)) as items:
        for _ in range(taken):
            next(items)
    assert threads() == []
    assert maker.closed.is_set() or taken == 0


@pytest.mark.parametrize(
    ("making", "using", "low", "high"),
    [(0.002, 0.05, 0.0, 0.3), (0.1, 0.01, 0.6, 1.0)],
    ids=["the step is slower", "the data is slower"],
)
def test_only_what_reading_ahead_does_not_hide_counts_as_waiting(
    making: float, using: float, low: float, high: float
) -> None:
    times = StepTimes()
    times.add(1.0, 1.0)  # the step that compiles doesn't count
    with closing(read_ahead(Maker(15, seconds=making).items(), 2)) as items:
        next(items)
        for _ in range(10):
            began = time.monotonic()
            next(items)
            arrived = time.monotonic()
            time.sleep(using)
            times.add(arrived - began, time.monotonic() - arrived)
    assert low <= times.summary(1)["data_wait_share"] <= high


@pytest.mark.parametrize("num_threads", [1, 3])
def test_results_of_several_threads_come_in_the_order_of_their_arguments(num_threads: int) -> None:
    def slower_at_first(number: int) -> int:
        time.sleep(0.002 * (9 - number))
        return number * number

    expected = [number * number for number in range(9)]
    assert list(in_order(slower_at_first, range(9), num_threads)) == expected


def test_arguments_are_taken_as_they_are_needed_and_no_thread_stays() -> None:
    maker = Maker(100)
    with closing(in_order(str, maker.items(), 2)) as results:
        assert next(results) == "0"
        assert maker.made == 5
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("in-order")]


def test_an_error_of_a_thread_is_raised_in_its_place() -> None:
    results = in_order(lambda number: 6 // (2 - number), range(9), 4)
    assert [next(results), next(results)] == [3, 6]
    with pytest.raises(ZeroDivisionError):
        next(results)
