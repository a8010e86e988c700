"""What a store in a directory takes and refuses; test_conformance has what holds of every store."""

import errno
import logging
import os
import shutil
from pathlib import Path

import pytest
from artifact_examples import FILES, commit, make_spec, read_files, write_files

from infra.artifacts import (
    Artifact,
    DigestConflictError,
    LocalStore,
    StoreError,
)


def put(store: LocalStore, directory: Path, **options) -> Artifact:
    return store.put(make_spec(), directory, stats={}, provenance={}, **options)


def visible(store: LocalStore) -> list[str]:
    return sorted(path.name for path in store.root.glob("[!.]*"))


def test_the_files_move_into_the_store(store, tmp_path):
    source = write_files(tmp_path / "source", {**FILES, "log.txt": b"kept"})
    artifact = put(store, source, files=FILES)
    assert read_files(artifact) == FILES
    assert [path.name for path in source.rglob("*") if path.is_file()] == ["log.txt"]


def test_files_on_another_file_system_are_copied(store, tmp_path, monkeypatch):
    def no_link(*_, **__):
        raise OSError(errno.EXDEV, "other file system")

    monkeypatch.setattr(os, "link", no_link)
    assert read_files(put(store, write_files(tmp_path / "source"))) == FILES


def test_a_refused_second_put_names_what_differs_and_leaves_nothing_behind(store):
    first = commit(store)
    with pytest.raises(DigestConflictError) as caught:
        commit(store, files={**FILES, "shards/1.bin": b"eins", "new": b""})
    message = str(caught.value)
    for part in ("shards", make_spec().key, first.digest, "'new'", "'shards/1.bin'", "2 files"):
        assert part in message
    assert "\n" not in message
    assert read_files(store.get(make_spec(), level="full")) == FILES
    assert list((store.root / ".staging").iterdir()) == []


def test_put_replaces_a_damaged_artifact(store):
    (commit(store).directory / "manifest.json").unlink()
    assert read_files(commit(store)) == FILES
    assert len(list((store.root / ".quarantine").glob("*.damage.json"))) == 1


def make_fifo(directory: Path) -> None:
    os.mkfifo(directory / "fifo")


def make_link_to_file(directory: Path) -> None:
    (directory / "link").symlink_to("index.json")


def make_link_to_directory(directory: Path) -> None:
    (directory / "link").symlink_to("shards")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (make_fifo, "special file"),
        (make_link_to_file, "symlink"),
        (make_link_to_directory, "symlink"),
        (lambda directory: (directory / "manifest.json").touch(), "store's own file"),
        (lambda directory: (directory / "a\nb").touch(), "don't print"),
        (lambda directory: Path(os.fsdecode(bytes(directory) + b"/\xff")).touch(), "can't be"),
        (lambda directory: shutil.rmtree(directory) or directory.mkdir(), "at least one"),
        (shutil.rmtree, "not a directory"),
    ],
)
def test_put_refuses(store, tmp_path, spoil, message):
    source = write_files(tmp_path / "source")
    spoil(source)
    with pytest.raises(StoreError, match=message) as caught:
        put(store, source)
    assert "\n" not in str(caught.value)
    assert visible(store) == []


@pytest.mark.parametrize("name", ["absent", "../store", "shards", "link/0.bin", "/etc/passwd"])
def test_put_refuses_a_name_that_is_no_file_of_the_directory(store, tmp_path, name):
    source = write_files(tmp_path / "source")
    make_link_to_directory(source)
    with pytest.raises(StoreError, match="has no file"):
        put(store, source, files=[name])


@pytest.mark.parametrize("field", ["stats", "provenance"])
def test_put_refuses_what_is_not_json_and_leaves_the_files(store, tmp_path, field):
    source = write_files(tmp_path / "source")
    options = {"stats": {}, "provenance": {}, field: {"loss": float("nan")}}
    with pytest.raises(StoreError, match=field):
        store.put(make_spec(), source, **options)
    assert visible(store) == []
    assert (source / "index.json").exists()


def test_a_manifest_that_could_not_be_read_is_not_written(store, tmp_path, monkeypatch):
    monkeypatch.setattr("infra.artifacts.store.MAX_DOCUMENT_BYTES", 100)
    with pytest.raises(StoreError, match="expected at most 100"):
        put(store, write_files(tmp_path / "source"))
    assert visible(store) == []


def test_path_names_a_file_of_the_artifact_only(store):
    artifact = commit(store)
    assert artifact.path("shards/0.bin").read_bytes() == b"zero"
    for name in ("absent", "manifest.json", "../x"):
        with pytest.raises(StoreError, match="has no file"):
            artifact.path(name)


def test_list_skips_what_has_no_valid_manifest_with_a_warning(store, caplog):
    artifact = commit(store)
    (commit(store, make_spec(seed=1)).directory / "manifest.json").unlink()
    (store.root / "shards" / ("0" * 64)).touch()
    (store.root / "shards" / "notes").mkdir()
    assert list(store.list()) == [artifact.manifest]
    assert sorted(record.levelno for record in caplog.records) == [logging.WARNING] * 2
    assert len(list(store.addresses())) == 3


def test_an_artifact_is_found_by_its_digest_among_others(store):
    for seed in range(3):
        commit(store, make_spec(seed), files={"data": bytes([seed])})
    wanted = store.get(make_spec(1))
    assert store.find("shards", wanted.digest) == wanted
    with pytest.raises(StoreError, match="holds no index with digest"):
        store.find("index", wanted.digest)


def spoil_index(index: Path) -> None:
    index.write_bytes(b"\xff" * 100)


def point_index_elsewhere(index: Path) -> None:
    index.write_text(make_spec(2).key)


def point_index_outside(index: Path) -> None:
    index.write_text("../../etc/passwd")


@pytest.mark.parametrize(
    "spoil", [Path.unlink, spoil_index, point_index_elsewhere, point_index_outside]
)
def test_a_digest_is_found_without_its_index_which_is_written_again(store, spoil):
    for seed in range(3):
        commit(store, make_spec(seed), files={"data": bytes([seed])})
    wanted = store.get(make_spec(1))
    index = store.root / ".digests" / "shards" / wanted.digest
    spoil(index)
    assert store.find("shards", wanted.digest) == wanted
    assert index.read_text() == make_spec(1).key
