"""A file is verified once on each host, and again as soon as it may have changed."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.base.progress import Count
from sknet.data import verification
from sknet.data.verification import damaged


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, str]]:
    """Three files that count as settled, and an empty cache."""
    monkeypatch.setenv("SKNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("infra.base.verified.SETTLED_NS", 0)
    made = []
    for index in range(3):
        path = tmp_path / f"{index}.mindrecord"
        path.write_bytes(bytes([index]) * 999)
        made.append((path, hashlib.sha256(path.read_bytes()).hexdigest()))
    return made


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files whose content is read, in their order."""
    read: list[Path] = []

    def note(path: Path, count: Count) -> str:
        read.append(path)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr(verification, "file_sha256", note)
    return read


def test_an_undamaged_file_is_read_once(files: list[tuple[Path, str]], hashed: list[Path]) -> None:
    assert list(damaged(files)) == []
    assert list(damaged(files)) == []
    assert hashed == [path for path, _ in files]


def test_a_damaged_file_is_found_every_time(
    files: list[tuple[Path, str]], hashed: list[Path]
) -> None:
    path, _ = files[1]
    path.write_bytes(b"other")
    assert list(damaged(files)) == [path]
    assert list(damaged(files)) == [path]
    assert hashed.count(path) == 2


def test_a_change_is_found_whatever_the_time_stamp(
    files: list[tuple[Path, str]], hashed: list[Path]
) -> None:
    list(damaged(files))
    path, _ = files[0]
    found = path.stat()
    path.write_bytes(b"\xff" * 999)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert list(damaged(files)) == [path]


def test_the_same_file_with_another_expectation_is_read_again(
    files: list[tuple[Path, str]], hashed: list[Path]
) -> None:
    list(damaged(files))
    assert list(damaged([(files[0][0], "0" * 64)])) == [files[0][0]]


def test_a_file_that_has_just_been_written_is_not_remembered(
    files: list[tuple[Path, str]], hashed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.base.verified.SETTLED_NS", 2_000_000_000)
    list(damaged(files))
    list(damaged(files))
    assert len(hashed) == 6


def test_without_a_cache_everything_is_read(
    files: list[tuple[Path, str]],
    hashed: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("SKNET_CACHE", str(tmp_path / "file" / "below"))
    assert list(damaged(files)) == []
    assert len(hashed) == 3


def test_processes_of_a_host_share_the_work(files: list[tuple[Path, str]], tmp_path: Path) -> None:
    program = f"""
import pathlib, time
from infra.base import verified
from sknet.data import verification
verified.SETTLED_NS = 0
whole = verification.file_sha256
def slow(path, count):
    time.sleep(0.5)
    print(path.name, flush=True)
    return whole(path, count)
verification.file_sha256 = slow
files = {[(str(path), sha256) for path, sha256 in files]}
assert not list(verification.damaged((pathlib.Path(path), sha256) for path, sha256 in files))
"""
    ranks = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    printed = [rank.communicate()[0].split() for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0]
    assert sorted(printed[0] + printed[1]) == [path.name for path, _ in files]
