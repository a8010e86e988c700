"""A file is trusted unread only if it can't have changed since it was read."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.base import verified
from infra.base.verified import FileStatus, read_verified, write_verified

STATUS = FileStatus(device=1, inode=2, size=3, mtime_ns=4, ctime_ns=5)


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    path = tmp_path / "memory" / "verified.json"
    write_verified(path, "digest", {"a": STATUS})
    return path


def test_statuses_are_remembered_for_the_same_content_only(memory: Path) -> None:
    assert read_verified(memory, "digest") == {"a": STATUS}
    assert read_verified(memory, "another digest") == {}


def test_nothing_is_remembered_beyond_a_restart_of_the_machine(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verified, "boot_id", lambda: "another start")
    assert read_verified(memory, "digest") == {}


def touch(path: Path) -> None:
    os.utime(path)


def write_with_the_old_time(path: Path) -> None:
    before = path.stat()
    path.write_bytes(b"tnetnoc")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_with_the_old_time(path: Path) -> None:
    before = path.stat()
    other = path.with_name("other")
    other.write_bytes(b"tnetnoc")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.rename(path)


def append(path: Path) -> None:
    path.write_bytes(b"content, and more")


@pytest.mark.parametrize(
    "change", [touch, write_with_the_old_time, replace_with_the_old_time, append]
)
def test_every_change_of_a_file_changes_its_status(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    before = FileStatus.of(path.stat())
    assert FileStatus.of(path.stat()) == before
    time.sleep(0.02)  # longer than the resolution of the time stamps
    change(path)
    assert FileStatus.of(path.stat()) != before


def test_a_status_counts_only_if_it_is_older_than_the_coarsest_time_stamp() -> None:
    now = 10**18
    settled = now - verified.SETTLED_NS - 1
    assert STATUS._replace(mtime_ns=settled, ctime_ns=settled).had_settled(now)
    for recent in (now - verified.SETTLED_NS, now, now + 1):
        assert not STATUS._replace(mtime_ns=recent, ctime_ns=settled).had_settled(now)
        assert not STATUS._replace(mtime_ns=settled, ctime_ns=recent).had_settled(now)


def edited(**change: object) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))

    return edit


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
        replace_with_a_directory,
        replace_with_a_device,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\xff"),
        lambda path: path.write_bytes(b"[" * 10**5),
        lambda path: os.truncate(path, 2**40),
        edited(files=[]),
        edited(files={"a": [1, 2, 3]}),
        edited(files={"a": "sound"}),
        edited(boot=None),
        edited(author="me"),
    ],
)
def test_a_memory_that_is_not_as_it_was_written_counts_for_nothing(
    memory: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(memory)
    assert read_verified(memory, "digest") == {}


def test_a_memory_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    write_verified(tmp_path / "file" / "verified.json", "digest", {"a": STATUS})
    assert read_verified(tmp_path / "file" / "verified.json", "digest") == {}
