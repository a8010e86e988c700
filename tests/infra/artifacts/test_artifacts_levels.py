"""How much a verification reads, and what it finds."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from artifact_examples import commit, make_spec

from infra.artifacts import LocalStore
from infra.artifacts.inspection import Level

MIB = 2**20
BIG_FILES = {"one.bin": b"1" * 2 * MIB, "deep/other.bin": b"2" * 2 * MIB}
KEY = make_spec().key


@pytest.fixture(autouse=True)
def files_settle_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.base.verified.SETTLED_NS", 0)


def bytes_read(work: Callable[[], object]) -> int:
    """Return how much the work asked the system to read, from the disk or its cache."""

    def counter() -> int:
        (line,) = [x for x in Path("/proc/self/io").read_text().splitlines() if "rchar" in x]
        return int(line.split()[1])

    before = counter()
    work()
    return counter() - before


def verify(store: LocalStore, level: Level) -> int:
    """Verify an undamaged artifact, and return how many MiB were read."""
    damages = []
    read = bytes_read(lambda: damages.extend(store.verify("shards", KEY, level=level)))
    assert damages == []
    return round(read / MIB)


def memory(store: LocalStore) -> Path:
    return store.root / ".verified" / "shards" / f"{KEY}.json"


def test_an_unchanged_artifact_is_verified_by_status_alone(store):
    commit(store, files=BIG_FILES)
    levels: list[Level] = ["size", "changed", "changed", "full", "changed"]
    assert [verify(store, level) for level in levels] == [0, 4, 0, 4, 0]


def test_only_a_touched_file_is_read_and_only_once(store):
    artifact = commit(store, files=BIG_FILES)
    verify(store, "changed")
    os.utime(artifact.path("one.bin"))
    assert [verify(store, "changed") for _ in range(2)] == [2, 0]


def test_files_that_have_not_settled_are_read_again(store, monkeypatch):
    monkeypatch.setattr("infra.base.verified.SETTLED_NS", 10**12)
    commit(store, files=BIG_FILES)
    assert [verify(store, "changed") for _ in range(2)] == [4, 4]


def test_a_lookup_trusts_statuses_and_forgets_those_of_a_damaged_artifact(store):
    commit(store, files=BIG_FILES)
    verify(store, "changed")
    assert bytes_read(lambda: store.lookup(make_spec(), level="changed")) < MIB
    (store.root / "shards" / KEY / "one.bin").write_bytes(b"3" * 2 * MIB)
    (damage,) = store.lookup(make_spec(), level="changed").damages
    assert (damage.problem, damage.path) == ("sha256", "one.bin")
    assert not memory(store).exists()


def test_a_damaged_file_is_found_at_every_verification(store):
    path = commit(store, files=BIG_FILES).path("deep/other.bin")
    verify(store, "changed")
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"0")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    for _ in range(2):
        (damage,) = store.verify("shards", KEY, level="changed")
        assert (damage.problem, damage.path) == ("sha256", "deep/other.bin")


def test_a_copy_of_the_store_is_read_whole_once(store, tmp_path):
    commit(store, files=BIG_FILES)
    verify(store, "changed")
    copy = LocalStore(shutil.copytree(store.root, tmp_path / "copy", copy_function=shutil.copy2))
    assert [verify(copy, "changed") for _ in range(2)] == [4, 0]


def test_a_memory_that_is_not_the_stores_own_counts_for_nothing(store):
    commit(store, files=BIG_FILES)
    verify(store, "changed")
    memory(store).write_bytes(b'{"files": {"one.bin": "verified"}}')
    assert verify(store, "changed") == 4
    (store.root / "shards" / KEY / "one.bin").unlink()
    assert store.verify("shards", KEY, level="changed")[0].problem == "missing"
