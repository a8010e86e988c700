"""Files are replaced as a whole, listed without following links, and cached where the user says."""

import hashlib
from pathlib import Path

import pytest

from infra.base.files import cache_directory, file_sha256, fsync, replace_file, scan, write_durably


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_replaced_by_another_of_the_same_name(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "file"
    for content in (b"old", b"new"):
        replace_file(path, content, durable=durable)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_could_not_be_written_keeps_its_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    (tmp_path / "file.part").mkdir()
    with pytest.raises(IsADirectoryError):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"


def test_fsync_returns_the_status_of_files_and_directories(tmp_path: Path) -> None:
    write_durably(tmp_path / "file", b"content")
    assert fsync(tmp_path / "file").st_size == 7
    assert fsync(tmp_path).st_ino == tmp_path.stat().st_ino


def test_a_scan_lists_files_sorted_and_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "file").write_bytes(b"content")
    (tmp_path / "a").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "b")
    found = dict(scan(tmp_path))
    assert list(found) == ["a", "b/file", "link"]
    assert found["b/file"].st_size == 7
    assert found["link"].st_size != 7


def test_a_files_sha256_is_lower_case_hex(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    assert file_sha256(tmp_path / "file") == hashlib.sha256(b"content").hexdigest()


def test_the_cache_is_where_the_user_wants_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SKNET_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory("a") == tmp_path / ".cache" / "sknet" / "a"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory("a") == tmp_path / "xdg" / "sknet" / "a"
    monkeypatch.setenv("SKNET_CACHE", str(tmp_path / "own"))
    assert cache_directory("a") == tmp_path / "own" / "a"
