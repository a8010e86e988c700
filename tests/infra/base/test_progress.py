"""Progress of long work, told to whoever watches."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from infra.base import progress
from infra.base.progress import paced, uncounted, watching, work


class Watcher:
    """Remembers the fractions that it is told, by the name of the work."""

    def __init__(self) -> None:
        self.told: dict[str, list[float]] = {}

    def __call__(self, name: str) -> Callable[[float], None]:
        return self.told.setdefault(name, []).append


def test_all_threads_count_and_who_watches_gets_the_fraction() -> None:
    watcher = Watcher()
    with watching(watcher), work("hashing", 400) as count, ThreadPoolExecutor(4) as pool:
        list(pool.map(count, [1] * 400))
    assert watcher.told == {"hashing": [done / 400 for done in range(1, 401)]}


def test_what_is_done_again_is_not_counted_twice_and_nothing_exceeds_the_end() -> None:
    watcher = Watcher()
    with watching(watcher):
        with work("sending", 10) as count:
            for more in (5, -5, 10, 1):
                count(more)
        with work("empty", 0) as count:
            count(0)
    assert watcher.told == {"sending": [0.5, 0.0, 1.0, 1.0], "empty": [1.0]}


def test_what_takes_moments_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    shown: list[float] = []
    short, long = paced(shown.append), paced(shown.append)
    short(0.5)
    short(1.0)
    assert shown == []
    for now[0], fraction in ((9.9, 0.1), (10.0, 0.2), (19.0, 0.3), (20.0, 0.4), (21.0, 1.0)):
        long(fraction)
    assert shown == [0.2, 0.4, 1.0]


def test_without_a_watcher_nothing_is_counted() -> None:
    with watching(Watcher()):
        pass
    with work("hashing", 10) as count:
        assert count is uncounted
