"""A full disk and a read-only one: a clear error, no half artifact, and the next try commits."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from artifact_examples import FILES, commit, make_spec, read_files
from test_artifacts_resolve import Builder

from infra.artifacts import LocalStore, StoreError, open_store, resolve
from infra.artifacts.__main__ import main
from tests import disks

PAGE = 4096


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with disks.small_disk(tmp_path / "disk", "size=1m,nr_inodes=200") as mounted:
        yield mounted


def leave(disk: Path, *, pages: int | None = None, inodes: int | None = None) -> list[Path]:
    """Fill the disk except for so many pages or inodes, and return the files that fill it."""
    state = os.statvfs(disk)
    fillers = []
    if pages is not None:
        fillers.append(disk / "filler")
        fillers[0].write_bytes(b"0" * (state.f_bavail - pages) * PAGE)
    else:
        for number in range(state.f_favail - inodes):
            fillers.append(disk / f"filler-{number}")
            fillers[-1].touch()
    return fillers


@pytest.mark.parametrize("limit", ["pages", "inodes"])
def test_a_full_disk_leaves_no_artifact_and_the_next_try_commits_what_was_built(disk, limit):
    store = LocalStore(disk / "store")
    size = sum(map(len, FILES.values())) / 1e6
    not_committed = re.compile(
        rf"\[Errno 28\] shards/{make_spec().key} can't be committed to '{store.root}' \(No space "
        rf"left on device: needs {size:.3g} MB, [0-9.e-]+ MB are free in {store.root}\); its files "
        "stay where they are for the next try"
    )
    messages = []
    for free in range(60):
        store.root.mkdir()
        builder = Builder()
        fillers = leave(disk, **{limit: free})
        try:
            resolve(store, make_spec(), builder)
        except OSError as error:
            assert error.errno == errno.ENOSPC
            assert list(store.addresses()) == []
            messages.append(str(error))
        else:
            break
        for filler in fillers:
            filler.unlink()
        resolution = resolve(store, make_spec(), builder)
        assert read_files(resolution.artifact) == FILES
        assert store.verify("shards", make_spec().key) == ()
        if not_committed.fullmatch(messages[-1]):
            assert builder.num_builds == 1
        shutil.rmtree(store.root)
    assert len(messages) > 4
    assert any(map(not_committed.fullmatch, messages))
    assert not any("\n" in line for line in messages)
    assert store.verify("shards", make_spec().key) == ()


def test_a_full_disk_leaves_a_ref_where_it_was(disk):
    store = LocalStore(disk / "store")
    manifest = commit(store).manifest
    first = store.refs.set("production", manifest, expected=None, reason="first")
    fillers = leave(disk, pages=0)
    with pytest.raises(OSError, match="No space left"):
        store.refs.set("production", manifest, expected=first, reason="second")
    assert store.refs.get("production") == first
    fillers[0].unlink()
    store.refs.set("production", manifest, expected=first, reason="second")


def test_a_read_only_store_is_read_and_refuses_the_rest_in_one_line(disk, capsys):
    store = LocalStore(disk / "store")
    artifact = commit(store)
    ref = store.refs.set("production", artifact.manifest, expected=None, reason="first")
    damaged = commit(store, make_spec(1), {**FILES, "index.json": b"{}"})
    damaged.path("index.json").unlink()
    for hint in (".digests", ".verified"):
        for path in (store.root / hint).rglob("*"):
            if path.is_file():
                path.unlink()
    disks.make_read_only(disk)
    assert store.get(make_spec()) == store.find("shards", artifact.digest) == artifact
    for level in ("size", "changed", "full"):
        assert store.verify("shards", artifact.manifest.key, level=level) == ()
    assert store.refs.get("production") == ref
    at = ["--store", str(store.root)]
    for command in (["ls"], ["show", "production"], ["refs"], ["gc"]):
        assert main([*command, *at]) == 0
    capsys.readouterr()
    for command in (["gc", "--days", "0", "--delete"], ["repair"]):
        assert main([*command, *at]) == 1
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert "Read-only file system" in err
    for work in (
        lambda: store.get(make_spec(1)),
        lambda: store.refs.set("production", artifact.manifest, expected=ref, reason="second"),
        lambda: resolve(store, make_spec(2), Builder()),
    ):
        with pytest.raises(OSError, match="Read-only file system") as caught:
            work()
        assert "\n" not in str(caught.value)
    with pytest.raises(StoreError, match="can't be created or written"):
        open_store(str(store.root))
