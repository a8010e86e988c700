"""Every class of damage is named, set aside, and repaired by the next commit."""

import json
import logging
import os
import shutil
from pathlib import Path

import pytest
from artifact_examples import FILES, commit, make_spec, read_files, reseal

from infra.artifacts import DamagedArtifactError, LocalStore, Lookup
from infra.artifacts.documents import MAX_DOCUMENT_BYTES


def flip_a_byte(directory: Path) -> None:
    (directory / "shards/0.bin").write_bytes(b"zerO")


def truncate(directory: Path) -> None:
    (directory / "shards/0.bin").write_bytes(b"ze")


def remove_a_file(directory: Path) -> None:
    (directory / "shards/0.bin").unlink()


def add_a_file(directory: Path) -> None:
    (directory / "extra.bin").touch()


def link_instead_of_a_file(directory: Path) -> None:
    (directory / "shards/0.bin").rename(directory.parent / "elsewhere")
    (directory / "shards/0.bin").symlink_to(directory.parent / "elsewhere")


def link_instead_of_a_directory(directory: Path) -> None:
    (directory / "shards").rename(directory.parent / "elsewhere")
    (directory / "shards").symlink_to(directory.parent / "elsewhere")


def directory_instead_of_a_file(directory: Path) -> None:
    (directory / "index.json").unlink()
    (directory / "index.json").mkdir()


def edit_manifest(**change):
    def edit(directory: Path) -> None:
        path = directory / "manifest.json"
        path.write_bytes(reseal(path.read_bytes(), **change))

    return edit


def write_manifest(content: bytes):
    return lambda directory: (directory / "manifest.json").write_bytes(content)


def remove_manifest(directory: Path) -> None:
    (directory / "manifest.json").unlink()


def link_manifest(directory: Path) -> None:
    (directory / "manifest.json").rename(directory.parent / "elsewhere")
    (directory / "manifest.json").symlink_to(directory.parent / "elsewhere")


def manifest_too_big(directory: Path) -> None:
    os.truncate(directory / "manifest.json", MAX_DOCUMENT_BYTES + 1)


def another_artifact(directory: Path) -> None:
    other = commit(LocalStore(directory.parents[1]), make_spec(seed=1))
    shutil.rmtree(directory)
    shutil.copytree(other.directory, directory)


def file_instead_of_the_directory(directory: Path) -> None:
    shutil.rmtree(directory)
    directory.touch()


def link_instead_of_the_directory(directory: Path) -> None:
    elsewhere = directory.parents[2] / "elsewhere"
    directory.rename(elsewhere)
    directory.symlink_to(elsewhere)


OUTSIDE = {"path": "../a", "size": 1, "sha256": "0" * 64}
SIZE_DAMAGE = [
    (truncate, [("size", "shards/0.bin", "has 2 bytes, expected 4")]),
    (remove_a_file, [("missing", "shards/0.bin", "no such file")]),
    (add_a_file, [("extra", "extra.bin", "not in the manifest")]),
    (link_instead_of_a_file, [("type", "shards/0.bin", "not a regular file")]),
    (
        link_instead_of_a_directory,
        [
            ("missing", "shards/0.bin", "no such file"),
            ("missing", "shards/1.bin", "no such file"),
            ("extra", "shards", "not in the manifest"),
        ],
    ),
    (directory_instead_of_a_file, [("missing", "index.json", "no such file")]),
    (remove_manifest, [("manifest", "manifest.json", "'manifest.json' is missing")]),
    (link_manifest, [("manifest", "manifest.json", "not a regular file")]),
    (manifest_too_big, [("manifest", "manifest.json", "expected at most 33554432")]),
    (write_manifest(b"{"), [("manifest", "manifest.json", "Invalid JSON")]),
    (write_manifest(b"\xff"), [("manifest", "manifest.json", "Invalid JSON")]),
    (write_manifest(b"[" * 10**5), [("manifest", "manifest.json", "recursion")]),
    (edit_manifest(author="me"), [("manifest", "manifest.json", "1 unknown fields")]),
    (edit_manifest(files=[OUTSIDE]), [("manifest", "manifest.json", "plain relative")]),
    (edit_manifest(digest="1" * 64), [("manifest", "manifest.json", "digest is 1111")]),
    (edit_manifest(key="1" * 64), [("manifest", "manifest.json", "key is 1111")]),
    (another_artifact, [("manifest", "manifest.json", "describes shards/")]),
    (file_instead_of_the_directory, [("type", ".", "not a directory")]),
    (link_instead_of_the_directory, [("type", ".", "not a directory")]),
]


def assert_damages(damages, expected):
    assert [(damage.problem, damage.path) for damage in damages] == [
        (problem, path) for problem, path, _ in expected
    ]
    for damage, (_, _, detail) in zip(damages, expected, strict=True):
        assert detail in damage.detail
        assert "\n" not in str(damage)


@pytest.mark.parametrize(("spoil", "expected"), SIZE_DAMAGE)
def test_damage_is_named_set_aside_and_repaired_by_the_next_put(store, spoil, expected):
    artifact = commit(store)
    spoil(artifact.directory)
    assert_damages(store.verify("shards", make_spec().key, level="size"), expected)
    with pytest.raises(DamagedArtifactError) as caught:
        store.load("shards", make_spec().key)
    assert "\n" not in str(caught.value)

    lookup = store.lookup(make_spec())

    assert lookup.artifact is None
    assert_damages(lookup.damages, expected)
    assert not os.path.lexists(artifact.directory)
    (report,) = (store.root / ".quarantine").glob("*.damage.json")
    document = json.loads(report.read_bytes())
    assert document["damages"] == [damage.model_dump() for damage in lookup.damages]
    kept = report.with_name(report.name.removesuffix(".damage.json"))
    assert os.path.lexists(kept)
    assert kept.name.startswith(f"shards-{make_spec().key}-")

    assert store.lookup(make_spec()) == Lookup(None)
    assert read_files(commit(store)) == FILES


def test_a_flipped_byte_is_seen_when_files_are_read(store):
    flip_a_byte(commit(store).directory)
    assert store.verify("shards", make_spec().key, level="size") == ()
    assert store.get(make_spec()) is not None
    expected = [("sha256", "shards/0.bin", "expected")]
    assert_damages(store.verify("shards", make_spec().key), expected)
    lookup = store.lookup(make_spec(), level="full")
    assert lookup.artifact is None
    assert_damages(lookup.damages, expected)


def test_a_quarantined_artifact_is_logged(store, caplog):
    truncate(commit(store).directory)
    store.get(make_spec())
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "shards/0.bin" in record.getMessage()
