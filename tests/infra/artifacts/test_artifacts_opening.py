"""From a URI to a store, or one line that says what is wrong."""

from pathlib import Path

import pytest

from infra.artifacts import LocalStore, StoreError, open_store


def opened_root(uri: str) -> Path:
    store = open_store(uri)
    assert isinstance(store, LocalStore)
    assert list(store.root.iterdir()) == []
    return store.root


def test_a_plain_path_a_relative_one_and_a_file_uri_are_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert opened_root(str(tmp_path / "a/b")) == tmp_path / "a/b"
    assert opened_root("c") == tmp_path / "c"
    assert opened_root("./d:e") == tmp_path / "d:e"
    assert opened_root("f#?%20") == tmp_path / "f#?%20"
    assert opened_root(f"file://{tmp_path}/g%20h") == tmp_path / "g h"


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("s3://bucket/prefix", "opens local stores only: give file:///abs/path"),
        ("http://host/x", "unknown form, expected file:///abs/path or a plain path"),
        ("file://host/x", "unknown form"),
        ("file:x", "unknown form"),
        ("C:\\store", "unknown form"),
        ("", "is no path"),
        ("a\0b", "is no path"),
        ("file:///a%00b", "is no path"),
        ("/proc/sknet-store", "can't be created or written"),
    ],
)
def test_a_uri_is_refused_in_one_line(uri, said):
    with pytest.raises(StoreError) as caught:
        open_store(uri)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("below", ["", "/store"])
def test_a_root_at_or_below_a_regular_file_is_refused(tmp_path, below):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="can't be created or written"):
        open_store(f"{tmp_path}/file{below}")


def test_a_store_to_look_into_is_not_created(tmp_path):
    with pytest.raises(StoreError, match="does not exist"):
        open_store(str(tmp_path / "absent"), create=False)
    assert list(tmp_path.iterdir()) == []
