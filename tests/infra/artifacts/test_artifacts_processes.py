"""What holds when builders run side by side, and when they are killed."""

import logging
import os
import signal
import threading
from pathlib import Path

import pytest
from artifact_examples import (
    CONTEXT,
    FILES,
    another_process,
    make_spec,
    read_files,
    write_files,
)

from infra.artifacts import BuildOutput, LocalStore, resolve


def build(workspace: Path) -> BuildOutput:
    return BuildOutput(write_files(workspace / "out"), stats={}, provenance={})


def put(store: LocalStore, source: Path) -> None:
    store.put(make_spec(), source, stats={}, provenance={})


def assert_whole_or_absent(store: LocalStore) -> bool:
    lookup = store.lookup(make_spec(), level="full")
    assert lookup.damages == ()
    assert len(list(store.addresses())) == len(list(store.list())) == int(bool(lookup.artifact))
    if lookup.artifact is not None:
        assert read_files(lookup.artifact) == FILES
    return lookup.artifact is not None


def test_sweeping_spares_the_staging_of_a_living_process(store, tmp_path, monkeypatch):
    other_is_staging, may_go_on = threading.Event(), threading.Event()
    fsync = os.fsync

    def slow_fsync(descriptor: int) -> None:
        if threading.current_thread() is other:
            other_is_staging.set()
            assert may_go_on.wait(10)
        fsync(descriptor)

    sources = [write_files(tmp_path / name) for name in ("one", "other")]
    other = threading.Thread(target=put, args=(store, sources[1]))
    monkeypatch.setattr(os, "fsync", slow_fsync)
    other.start()
    assert other_is_staging.wait(10)
    put(store, sources[0])
    assert len(list((store.root / ".staging").glob("*/index.json"))) == 1
    may_go_on.set()
    other.join()
    assert assert_whole_or_absent(store)
    assert list((store.root / ".staging").iterdir()) == []


def look_up_together(root: Path, barrier, results) -> None:
    store = LocalStore(root)
    barrier.wait()
    resolution = resolve(store, make_spec(), build)
    results.put((resolution.status, resolution.artifact.manifest.encode()))


def test_8_processes_that_find_one_damaged_artifact_rebuild_it_once(store):
    (resolve(store, make_spec(), build).artifact.directory / "index.json").unlink()
    barrier, results = CONTEXT.Barrier(8), CONTEXT.Queue()
    processes = [another_process(look_up_together, store.root, barrier, results) for _ in range(8)]
    for process in processes:
        process.start()
    answers = [results.get(timeout=600) for _ in processes]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert [status for status, _ in answers].count("reused") == 7
    assert len({manifest for _, manifest in answers}) == 1
    assert len(list((store.root / ".quarantine").glob("*.damage.json"))) == 1


def hold_workspace(root: Path, connection, with_child: bool) -> None:
    with LocalStore(root).workspace(make_spec()) as workspace:
        (workspace / "step-1").touch()
        child = os.fork() if with_child else None
        if child == 0:
            signal.pause()
        connection.send(child)
        signal.pause()


@pytest.mark.parametrize("with_child", [False, True], ids=["alone", "with a forked child"])
def test_a_killed_builder_frees_its_workspace_and_leaves_its_work(store, caplog, with_child):
    caplog.set_level(logging.INFO)
    ours, theirs = CONTEXT.Pipe()
    holder = another_process(hold_workspace, store.root, theirs, with_child)
    holder.start()
    child = ours.recv()
    entered: list[list[str]] = []

    def wait_and_enter() -> None:
        with store.workspace(make_spec()) as workspace:
            entered.append([path.name for path in workspace.iterdir()])

    waiter = threading.Thread(target=wait_and_enter)
    waiter.start()
    try:
        waiter.join(0.3)
        assert entered == []
        holder.kill()
        waiter.join(10)
        assert entered == [["step-1"]]
    finally:
        holder.kill()
        holder.join()
        if child is not None:
            os.kill(child, signal.SIGKILL)
        waiter.join()
    (record,) = caplog.records
    assert record.getMessage() == f"waiting for another builder of shards/{make_spec().key}"


def test_the_workspaces_of_two_specs_are_independent(store):
    with store.workspace(make_spec()) as one, store.workspace(make_spec(seed=1)) as other:
        assert one != other
    assert list((store.root / ".work").rglob("*.lock")) == []
