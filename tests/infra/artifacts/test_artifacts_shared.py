"""Stores that several users share: modes and groups of files, and what another user may not read.

Some of these tests become other users, and are skipped where that needs root.
"""

import codecs
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from artifact_examples import (
    CONTEXT,
    FILES,
    KilledError,
    another_process,
    commit,
    make_spec,
    read_files,
    write_files,
)

from infra.artifacts import BuildOutput, LocalStore, StoreError, resolve
from infra.artifacts.__main__ import main
from infra.artifacts.cache import Cache
from infra.artifacts.records import UnreadableArtifactError
from infra.artifacts.transfer import copy_files

ALICE, BOB, TEAM = 23_001, 23_002, 23_100

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user reaches; that of pytest is this user's alone."""
    with tempfile.TemporaryDirectory(prefix="shared-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def shared(place: Path) -> LocalStore:
    """An empty store of the team: a set-gid directory that its members may write."""
    root = place / "store"
    root.mkdir()
    os.chown(root, -1, TEAM)
    root.chmod(0o2775)
    return LocalStore(root)


@pytest.fixture
def umask() -> Iterator[Callable[[int], None]]:
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def become(user: int, mask: int, work: Callable[..., object], arguments, outcomes) -> None:
    codecs.lookup("ascii")  # other users may not be able to read this Python's modules
    if os.geteuid() == 0:
        os.setgroups([TEAM])
        os.setgid(user)
        os.setuid(user)
    os.umask(mask)
    try:
        outcomes.put(work(*arguments))
    except Exception as error:  # noqa: BLE001 (raised again by the test)
        outcomes.put(error)


def as_user(user: int, work: Callable[..., object], *arguments: object, umask: int = 0o002):
    """Call a function in a process of this user, who is in the team; return what it returns."""
    outcomes = CONTEXT.Queue()
    process = another_process(become, user, umask, work, arguments, outcomes)
    process.start()
    outcome = outcomes.get(timeout=300)
    process.join()
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def modes(root: Path) -> set[tuple[str, int]]:
    found = set()
    for path in [root, *root.rglob("*")]:
        status = path.lstat()
        found.add(("dir" if path.is_dir() else "file", stat.S_IMODE(status.st_mode)))
    return found


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o027, 0o077])
def test_all_that_is_written_follows_the_umask_whatever_the_modes_of_what_was_built(
    tmp_path, umask, mask
):
    umask(mask)
    expected = {("dir", 0o777 & ~mask), ("file", 0o666 & ~mask)}
    store = LocalStore(tmp_path / "store")

    def build(workspace: Path) -> BuildOutput:
        write_files(workspace / "out")
        for name, mode in zip(FILES, (0o400, 0o600, 0o777), strict=True):
            (workspace / "out" / name).chmod(mode)
        return BuildOutput(workspace / "out", {}, {})

    artifact = resolve(store, make_spec(), build).artifact
    store.refs.set("production", artifact.manifest, expected=None, reason="first")
    store.verify("shards", make_spec().key)
    assert modes(store.root) == expected
    copy_files(artifact, tmp_path / "fetched")
    assert modes(tmp_path / "fetched") == expected
    store.set_aside("shards", make_spec().key)
    artifact.path("index.json").unlink()
    store.get(make_spec())
    assert modes(store.root) == expected


def test_what_was_built_here_comes_to_the_cache_with_the_modes_of_what_is_downloaded(
    tmp_path, umask, s3_server
):
    from tests.store_roots import S3Root

    umask(0o027)
    source = write_files(tmp_path / "source")
    for path in source.rglob("*.bin"):
        path.chmod(0o400)
    root = S3Root(tmp_path / "hosts")
    root.host("one").put(make_spec(), source, stats={}, provenance={})
    root.host("other").load("shards", make_spec().key).directory  # noqa: B018 (it downloads)
    for host in ("one", "other"):
        cache = Cache(root.cache(host) / "artifacts")
        assert modes(cache.root) == {("dir", 0o750), ("file", 0o640)}


@as_root
@pytest.mark.parametrize("mode", [0o2775, 0o2755])
def test_a_shared_store_gives_its_group_to_whatever_comes_in(shared, mode):
    shared.root.chmod(mode)
    artifact = commit(shared)  # built beside the store, with this user's group
    shared.refs.set("production", artifact.manifest, expected=None, reason="first")
    with shared.workspace(make_spec(1)) as workspace:
        write_files(workspace)
    for path in shared.root.rglob("*"):
        assert path.lstat().st_gid == TEAM
        assert not path.is_dir() or path.stat().st_mode & stat.S_ISGID


def begin_and_die(root: Path) -> None:
    def build(workspace: Path) -> BuildOutput:
        write_files(workspace / "out", {"shards/0.bin": FILES["shards/0.bin"]})
        (workspace / "out/shards/0.bin").chmod(0o600 | stat.S_IRGRP | stat.S_IWGRP)
        raise KilledError

    resolve(LocalStore(root), make_spec(), build)


def go_on(root: Path) -> tuple[str, set[str]]:
    found: set[str] = set()

    def build(workspace: Path) -> BuildOutput:
        found.update(path.name for path in workspace.rglob("*"))
        write_files(workspace / "out", {n: c for n, c in FILES.items() if n != "shards/0.bin"})
        return BuildOutput(workspace / "out", {}, {})

    return resolve(LocalStore(root), make_spec(), build).status, found


def read(root: Path) -> dict[str, bytes]:
    artifact = LocalStore(root).get(make_spec(), level="full")
    assert artifact is not None
    return read_files(artifact)


def promote(root: Path, reason: str) -> int:
    store = LocalStore(root)
    target = store.load("shards", make_spec().key).manifest
    current = store.refs.get("best")
    return store.refs.set("best", target, expected=current, reason=reason).version


def command(root: Path, *words: str) -> tuple[int, list[dict[str, str]], str]:
    """Run a command as a user does; return its exit code, its rows and what it says."""
    import contextlib
    import io

    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        code = main([*words, "--store", str(root), "--json"])
    return int(code), json.loads(out.getvalue() or "[]"), err.getvalue()


@as_root
def test_a_second_user_of_the_group_does_all_that_the_first_one_can(shared):
    root = shared.root
    with pytest.raises(KilledError):
        as_user(ALICE, begin_and_die, root)
    status, found = as_user(BOB, go_on, root)
    assert (status, "0.bin" in found) == ("built", True)
    assert as_user(ALICE, read, root) == FILES
    owners = {path.stat().st_uid for path in (root / "shards").rglob("*")}
    assert owners == {BOB}  # what Alice had built was copied, as only its owner may change its mode
    assert [as_user(user, promote, root, "r") for user in (ALICE, BOB)] == [1, 2]
    (root / "shards" / make_spec().key / "index.json").write_bytes(b"damaged")
    code, (row,), _ = as_user(ALICE, command, root, "repair")
    assert (code, row["what"]) == (0, f"shards/{make_spec().key}")
    assert as_user(ALICE, go_on, root)[0] == "built"
    (root / "refs/best.json").unlink()
    code, (row, _), _ = as_user(
        BOB, command, root, "gc", "--days", "0", "--delete", "--without-refs"
    )
    assert (code, row["fate"]) == (0, "removed")
    assert list(shared.addresses()) == []


@as_root
def test_who_may_not_write_a_store_is_told_so_in_one_line(shared):
    commit(shared)
    with pytest.raises(KilledError):
        as_user(ALICE, begin, shared.root, umask=0o022)
    shared.root.chmod(0o2755)
    assert as_user(BOB, read, shared.root) == FILES
    for seed in (1, 2):  # what Alice has begun, and what nobody has
        with pytest.raises(StoreError, match="can't be written by this user") as caught:
            as_user(BOB, begin, shared.root, seed)
        assert "\n" not in str(caught.value)


def begin(root: Path, seed: int = 1) -> None:
    def build(workspace: Path) -> BuildOutput:
        (workspace / "out").mkdir()
        raise KilledError

    resolve(LocalStore(root), make_spec(seed), build)


def hidden_parts(root: Path, place: Path) -> list[str]:
    """Make a store in which a file, an artifact, a kind and two manifests can't be read.

    Returns the keys of the artifacts, those that can be read first.
    """
    store = LocalStore(root)
    sound, file, folder, directory, manifest = (commit(store, make_spec(seed)) for seed in range(5))
    kind = commit(store, make_spec(kind="checkpoint"))
    file.path("shards/0.bin").chmod(0)
    (folder.directory / "shards").chmod(0)
    directory.directory.chmod(0)
    (manifest.directory / "manifest.json").chmod(0)
    kind.directory.parent.chmod(0)
    return [each.manifest.key for each in (sound, file, folder, directory, manifest, kind)]


@pytest.fixture
def hidden(place: Path) -> Iterator[tuple[LocalStore, list[str]]]:
    store = LocalStore(place / "store")
    keys = hidden_parts(store.root, place)
    yield store, keys
    for path in (store.root / "checkpoint", *(store.root / "shards").iterdir()):
        path.chmod(0o755)
    shutil.rmtree(store.root / "shards" / keys[2] / "shards", ignore_errors=True)


def test_verify_lists_what_it_can_not_read_and_verifies_the_rest(hidden):
    store, (sound, file, folder, directory, manifest, _) = hidden
    code, rows, said = as_user(BOB, command, store.root, "verify")
    found = {(row["artifact"], row["problem"], row["path"]) for row in rows}
    assert found == {
        (f"shards/{file}", "unreadable", "shards/0.bin"),
        (f"shards/{folder}", "unreadable", "shards"),
        (f"shards/{directory}", "unreadable", "manifest.json"),
        (f"shards/{manifest}", "unreadable", "manifest.json"),
        ("checkpoint", "unreadable", "."),
    }
    assert all("Permission denied" in row["detail"] for row in rows)
    assert (code, said) == (1, "5 artifacts verified, 0 damages, 5 can't be read\n")
    assert as_user(BOB, command, store.root, "verify", f"shards/{sound}")[0] == 0


def test_ls_and_gc_list_what_they_can_not_read_and_gc_removes_nothing_that_it_may_need(hidden):
    store, (sound, file, folder, directory, manifest, _) = hidden
    code, rows, said = as_user(BOB, command, store.root, "ls")
    assert {row["artifact"] for row in rows} == {f"shards/{k}" for k in (sound, file, folder)}
    assert code == 1
    for path in (f"shards/{directory}", f"shards/{manifest}", "checkpoint"):
        assert f"{path} can't be read: Permission denied\n" in said
    words = ("gc", "--days", "0", "--without-refs")
    code, rows, said = as_user(BOB, command, store.root, *words)
    fates = {row["what"]: row["fate"] for row in rows}
    assert (code, fates["checkpoint"]) == (1, "stays")
    code, _, said = as_user(BOB, command, store.root, *words, "--delete")
    assert (code, "nothing is removed: what can't be read here (4" in said) == (2, True)
    assert (store.root / "shards" / sound).is_dir()


def look_up(root: Path, seed: int) -> object:
    return LocalStore(root).get(make_spec(seed))


def test_what_can_not_be_read_is_neither_set_aside_nor_built_again(hidden):
    store, (_, file, folder, directory, manifest, _) = hidden
    before = sorted(path.name for path in (store.root / "shards").iterdir())
    for seed in (2, 3, 4):
        with pytest.raises(UnreadableArtifactError, match="can't be read by this user") as caught:
            as_user(BOB, look_up, store.root, seed)
        assert "\n" not in str(caught.value)
    code, rows, _ = as_user(BOB, command, store.root, "repair")
    listed = {row["what"] for row in rows if row["done"] == "nothing"}
    assert code == 1
    assert {f"shards/{key}" for key in (file, folder, directory, manifest)} < listed
    assert before == sorted(path.name for path in (store.root / "shards").iterdir())
