"""Killed at any file-system call, or by a power failure, a store shows whole artifacts only.

The suite kills at every fourth call, `make test-long` at each one.
"""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import traced_work
from artifact_examples import FILES, commit, make_spec, read_files, write_files
from traced import Tracer, tracer

from infra.artifacts import LocalStore, resolve

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def traced() -> Iterator[Tracer]:
    with tracer() as made:
        yield made


@pytest.fixture(params=[4, pytest.param(1, marks=pytest.mark.long)], ids="every={}".format)
def every(request: pytest.FixtureRequest) -> int:
    every: int = request.param
    return every


def assert_whole_or_absent(store: LocalStore, num_others: int = 0) -> bool:
    lookup = store.lookup(make_spec(), level="full")
    assert lookup.damages == ()
    num_shown = num_others + int(bool(lookup.artifact))
    assert len(list(store.addresses())) == len(list(store.list())) == num_shown
    if lookup.artifact is not None:
        assert read_files(lookup.artifact) == FILES
    return lookup.artifact is not None


def killed_at_calls(
    traced: Tracer,
    every: int,
    work: Callable[..., None],
    prepare: Callable[[Path], list[Path]],
    parent: Path,
    expected: frozenset[str] | set[str] = frozenset({"write", "fsync", "rename", "flock"}),
) -> Iterator[list[Path]]:
    """Kill the work at every n-th call and the last; yield the arguments prepared for each kill."""
    calls = traced.calls(work, *prepare(parent / "whole"), log=parent / "log")
    assert {call.name for call in calls} >= expected
    for number, call in enumerate(calls):
        if number % every and number < len(calls) - 1:
            continue
        arguments = prepare(parent / str(number))
        traced.kill(call, work, *arguments)
        yield arguments
        shutil.rmtree(parent / str(number))


def test_a_put_killed_anywhere_leaves_the_artifact_whole_or_absent_and_loses_no_file(
    traced, every, tmp_path
):
    def prepare(directory: Path) -> list[Path]:
        return [directory / "store", write_files(directory / "source")]

    outcomes = []
    for root, source in killed_at_calls(traced, every, traced_work.put, prepare, tmp_path):
        store = LocalStore(root)
        outcomes.append(assert_whole_or_absent(store))
        if not outcomes[-1]:
            traced_work.put(str(root), str(source))
            assert assert_whole_or_absent(store)
            assert list((root / ".staging").iterdir()) == []
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {False, True}


def test_a_resolve_killed_anywhere_is_repaired_by_the_next(traced, every, tmp_path):
    outcomes = []
    for (root,) in killed_at_calls(
        traced, every, traced_work.resolve, lambda directory: [directory], tmp_path
    ):
        store = LocalStore(root)
        whole = assert_whole_or_absent(store)
        builds = []

        def build(workspace: Path, builds=builds):
            builds.append(workspace)
            return traced_work.build(workspace)

        resolution = resolve(store, make_spec(), build)
        assert resolution.status == ("reused" if whole else "built")
        assert resolution.damages == ()
        assert read_files(resolution.artifact) == FILES
        outcomes.append((whole, not builds))
    built, committed, found = (False, False), (False, True), (True, True)
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {built, committed, found}


def test_a_quarantine_killed_anywhere_never_shows_a_damaged_artifact(traced, every, tmp_path):
    spoilt = LocalStore(tmp_path / "spoilt" / "store")
    commit(spoilt).path("index.json").unlink()

    def prepare(directory: Path) -> list[Path]:
        return [shutil.copytree(spoilt.root, directory)]

    for (root,) in killed_at_calls(traced, every, traced_work.look_up, prepare, tmp_path):
        assert LocalStore(root).get(make_spec()) is None
        for kept in (root / ".quarantine").glob(f"shards-{make_spec().key}-*[!n]"):
            assert kept.with_suffix(".damage.json").is_file()


def test_a_killed_move_of_a_ref_leaves_the_old_entry_or_the_new_one(traced, every, tmp_path):
    before = LocalStore(tmp_path / "before" / "store")
    first = before.refs.set("production", commit(before).manifest, expected=None, reason="first")

    def prepare(directory: Path) -> list[Path]:
        return [shutil.copytree(before.root, directory)]

    outcomes = []
    for (root,) in killed_at_calls(traced, every, traced_work.move_ref, prepare, tmp_path):
        refs = LocalStore(root).refs
        entries = refs.history("production")
        assert entries[0] == first
        assert refs.names() == ("production",)
        outcomes.append(len(entries))
        traced_work.move_ref(str(root))
        assert len(refs.history("production")) == outcomes[-1] + 1
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {1, 2}


def test_a_collection_killed_anywhere_leaves_whole_artifacts(traced, every, tmp_path):
    full = LocalStore(tmp_path / "full" / "store")
    kept = commit(full, make_spec(1)).manifest
    full.refs.set("production", kept, expected=None, reason="first")
    commit(full)

    def prepare(directory: Path) -> list[Path]:
        return [shutil.copytree(full.root, directory)]

    outcomes = []
    for (root,) in killed_at_calls(
        traced, every, traced_work.collect_garbage, prepare, tmp_path, {"rename", "unlinkat"}
    ):
        store = LocalStore(root)
        outcomes.append(not assert_whole_or_absent(store, num_others=1))
        assert store.verify("shards", kept.key) == ()
        traced_work.collect_garbage(str(root))
        assert [manifest.key for manifest in store.list()] == [kept.key]
        assert [path for path in (root / ".staging").iterdir() if path.is_dir()] == []
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {False, True}


CALL = re.compile(r"^\d+ +(\w+)\((.*)\) += (?!-1)")
OPENED = re.compile(r'"([^"]*)", (\S+)')
DESCRIPTOR = re.compile(r"^\d+<([^>]*)>")


def unsynced_when_it_appears(log: list[str], root: Path) -> tuple[list[str], set[Path]]:
    """Replay calls as a disk that loses what no fsync has written to it.

    Returns:
        The names that appeared in the store; and the files and names that were not on disk, of
        what is below one of these when it appeared, or of these themselves at the end.
    """
    content: set[Path] = set()
    names: set[Path] = set()
    appeared: list[Path] = []
    lost: set[Path] = set()
    for name, arguments in (found.groups() for line in log if (found := CALL.match(line))):
        paths = [Path(path) for path in re.findall(r'"(/[^"]*)"', arguments)]
        descriptor = DESCRIPTOR.match(arguments)
        opened = Path(descriptor[1]) if descriptor else root
        if name == "openat" and "O_CREAT" in arguments:
            names.add(paths[0])
            content.add(paths[0])
        elif name == "mkdir":
            names.add(paths[0])
        elif name == "linkat":
            names.add(paths[1])
            content.add(paths[1])
        elif name == "write":
            content.add(opened)
        elif name == "fsync":
            content.discard(opened)
            names = {path for path in names if path.parent != opened}
        elif name == "rename":
            source, target = paths
            names.add(target)
            if not target.relative_to(root).as_posix().startswith("."):
                appeared.append(target)
                lost |= {path for path in names | content if source in path.parents}
                lost |= {source} & content
    lost |= {path for shown in appeared for path in (shown, *shown.parents) if path in names}
    return [str(path.relative_to(root)) for path in appeared], lost


@pytest.mark.parametrize("work", [traced_work.put, traced_work.resolve])
def test_everything_is_on_disk_before_an_artifact_appears(traced, tmp_path, work):
    root, source = tmp_path / "store", write_files(tmp_path / "source")
    root.mkdir()
    arguments = [root, source] if work is traced_work.put else [root]
    log = traced.log(work, *arguments, log=tmp_path / "log")
    appeared, lost = unsynced_when_it_appears(log, root)
    assert appeared == [f"shards/{make_spec().key}"]
    assert lost == set()
    without = [line for line in log if "fsync(" not in line]
    assert len(unsynced_when_it_appears(without, root)[1]) > len(FILES)


def test_a_ref_and_its_directory_are_on_disk_when_it_has_moved(traced, store, tmp_path):
    commit(store)
    for _ in range(2):
        log = traced.log(traced_work.move_ref, store.root, log=tmp_path / "log")
        appeared, lost = unsynced_when_it_appears(log, store.root)
        assert appeared == ["refs/production.json"]
        assert lost == set()


def test_a_damaged_artifact_and_its_report_are_on_disk_when_it_has_gone(traced, store, tmp_path):
    commit(store).path("index.json").unlink()
    log = traced.log(traced_work.look_up, store.root, log=tmp_path / "log")
    synced = [re.search(r"fsync\(\d+<(.*)>\)", line) for line in log]
    renamed = next(n for n, line in enumerate(log) if " rename(" in line)
    before = [found[1] for found in synced[:renamed] if found]
    after = [found[1] for found in synced[renamed:] if found]
    assert len(before) == 1
    assert before[0].endswith(".damage.json")
    assert after == [str(store.root / name) for name in (".quarantine", ".", "shards")]
