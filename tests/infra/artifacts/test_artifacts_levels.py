"""How much a verification reads, and what it finds."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from artifact_examples import commit, make_spec, reseal

from infra.artifacts import LocalStore
from infra.artifacts.inspection import Level

MIB = 2**20
BIG_FILES = {"one.bin": b"1" * 4 * MIB, "deep/other.bin": b"2" * 4 * MIB}
KEY = make_spec().key


def bytes_read(work: Callable[[], object]) -> int:
    """What the work asked the system to read, from the disk or its cache."""

    def counter() -> int:
        (line,) = [x for x in Path("/proc/self/io").read_text().splitlines() if "rchar" in x]
        return int(line.split()[1])

    before = counter()
    work()
    return counter() - before


def verify(store: LocalStore, level: Level) -> int:
    """Verify a sound artifact, and return how many MiB were read."""
    read = bytes_read(lambda: check(store.verify("shards", KEY, level=level)))
    return round(read / MIB)


def check(damages):
    assert damages == ()


def record(store: LocalStore) -> Path:
    return store.root / ".verified" / "shards" / f"{KEY}.json"


def test_an_unchanged_artifact_is_verified_by_status_alone(store):
    commit(store, files=BIG_FILES)
    assert verify(store, "size") == 0
    assert verify(store, "changed") == 0
    assert verify(store, "full") == 8
    assert verify(store, "changed") == 0


def test_only_a_touched_file_is_read_and_only_once(store):
    os.utime(commit(store, files=BIG_FILES).path("one.bin"))
    assert [verify(store, "changed") for _ in range(2)] == [4, 0]


def test_a_lookup_may_ask_for_it_too(store):
    commit(store, files=BIG_FILES)
    assert bytes_read(lambda: store.lookup(make_spec(), level="changed")) < MIB
    (store.root / "shards" / KEY / "one.bin").write_bytes(b"3" * 4 * MIB)
    (damage,) = store.lookup(make_spec(), level="changed").damages
    assert (damage.problem, damage.path) == ("sha256", "one.bin")
    assert not record(store).exists()


def write_in_place(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"0")


def replace_with_the_old_times(path: Path) -> None:
    status = path.stat()
    replacement = path.with_name("replacement")
    replacement.write_bytes(b"0" * status.st_size)
    os.utime(replacement, ns=(status.st_atime_ns, status.st_mtime_ns))
    replacement.rename(path)


@pytest.mark.parametrize("change", [write_in_place, replace_with_the_old_times])
def test_a_change_of_content_is_found(store, change):
    change(commit(store, files=BIG_FILES).path("deep/other.bin"))
    for _ in range(2):
        (damage,) = store.verify("shards", KEY, level="changed")
        assert (damage.problem, damage.path) == ("sha256", "deep/other.bin")


def test_a_copy_of_the_store_is_read_whole_once(store, tmp_path):
    commit(store, files=BIG_FILES)
    copy = LocalStore(shutil.copytree(store.root, tmp_path / "copy", copy_function=shutil.copy2))
    assert [verify(copy, "changed") for _ in range(2)] == [8, 0]


def claim(**change):
    return lambda path: path.write_bytes(reseal(path.read_bytes(), **change))


def flip_a_digit(path: Path) -> None:
    document = path.read_bytes()
    path.write_bytes(document.replace(str(4 * MIB).encode(), str(4 * MIB + 1).encode(), 1))


def replace_with_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_with_a_device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize(
    "spoil",
    [
        Path.unlink,
        flip_a_digit,
        replace_with_a_directory,
        replace_with_a_device,
        lambda path: path.write_bytes(b"["),
        lambda path: os.truncate(path, 2**40),
        claim(manifest="0" * 64),
        claim(files=[]),
        claim(files=[["one.bin", [4 * MIB, 0, -1]], ["../../x", [1, 1, 1]]]),
        claim(files=[["one.bin", "sound"]]),
        claim(author="me"),
    ],
)
def test_a_record_that_is_not_the_stores_own_counts_for_nothing(store, spoil):
    commit(store, files=BIG_FILES)
    spoil(record(store))
    assert verify(store, "changed") == 8
    (store.root / "shards" / KEY / "one.bin").unlink()
    assert store.verify("shards", KEY, level="changed")[0].problem == "missing"
