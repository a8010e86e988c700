"""Several builders at one store: none loses what another did, and none gets in another's way."""

import hashlib
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from artifact_examples import (
    CONTEXT,
    KilledError,
    another_process,
    make_spec,
    write_files,
)

from infra.artifacts import (
    ArtifactStore,
    BuildOutput,
    LocalStore,
    LostLeaseError,
    RefConflictError,
    resolve,
)
from infra.artifacts.partial_builds import UploadedParts
from infra.s3 import Bucket, Expect
from tests.store_roots import EXPIRY_SECONDS, LocalRoot, S3Root, StoreRoot
from tests.waiting import wait_for

NUM_WRITERS = 8
TAKEN_OVER = "step-2, is not uploaded: another host has taken over"
LIST = f".work/shards/{make_spec().key}/kept.json"


@pytest.fixture
def store(store_root: StoreRoot) -> ArtifactStore:
    return store_root.host("one")


def build(workspace: Path) -> BuildOutput:
    return BuildOutput(write_files(workspace / "out"), stats={}, provenance={})


def put(store: ArtifactStore, directory: Path) -> None:
    store.put(make_spec(), write_files(directory), stats={}, provenance={})


def count_up(store_root: StoreRoot, number: int, times: int) -> None:
    store = store_root.host(f"host-{number}")
    manifest = store.load("shards", make_spec().key).manifest
    for _ in range(times):
        while True:
            try:
                seen = store.refs.get("count")
                store.refs.set("count", manifest, expected=seen, reason="one more")
                break
            except RefConflictError:
                time.sleep(0.01 * number)


def together(work, *arguments_of_each: tuple[object, ...]) -> None:
    processes = [another_process(work, *each) for each in arguments_of_each]
    for process in processes:
        process.start()
    for process in processes:
        process.join(600)
        assert process.exitcode == 0


@pytest.mark.slow
def test_8_processes_that_count_through_a_ref_lose_no_count(store_root, store, tmp_path):
    put(store, tmp_path / "source")
    together(count_up, *((store_root, number, 2) for number in range(NUM_WRITERS)))
    assert [ref.version for ref in store.refs.history("count")] == [*range(1, 2 * NUM_WRITERS + 1)]


def put_one(store_root: StoreRoot, number: int, directory: Path) -> None:
    put(store_root.host(f"host-{number}"), directory / str(number))


@pytest.mark.slow
def test_8_processes_that_put_one_key_agree_on_one_artifact(store_root, store, tmp_path):
    together(put_one, *((store_root, number, tmp_path) for number in range(NUM_WRITERS)))
    assert len(list(store.addresses())) == 1
    assert store.verify("shards", make_spec().key) == ()


def hold(store_root: StoreRoot, entered: "multiprocessing.synchronize.Event") -> None:
    with store_root.host("holder").workspace(make_spec()) as workspace:
        (workspace / "step-1").touch()
        entered.set()
        signal.pause()


@pytest.mark.slow
def test_the_workspace_of_a_killed_builder_is_free_at_once(store_root, other, caplog):
    caplog.set_level(logging.INFO)
    entered = CONTEXT.Event()
    holder = another_process(hold, store_root, entered)
    holder.start()
    assert entered.wait(300)
    found: list[list[str]] = []

    def wait_and_enter() -> None:
        with other.workspace(make_spec()) as workspace:
            found.append([path.name for path in workspace.iterdir()])

    waiter = threading.Thread(target=wait_and_enter, daemon=True)
    waiter.start()
    shares_workspace = isinstance(store_root, LocalRoot)
    waiter.join(0.3 if shares_workspace else 2 * EXPIRY_SECONDS)
    assert found == []
    holder.kill()
    holder.join()
    waiter.join(300)
    assert found == [["step-1"] if shares_workspace else []]
    waits = [r.getMessage() for r in caplog.records if "waiting" in r.getMessage()]
    assert len(waits) == 1
    assert waits[0].startswith(f"waiting for another builder of shards/{make_spec().key}")


def test_the_workspaces_of_two_specs_are_independent(store):
    with store.workspace(make_spec()) as one, store.workspace(make_spec(seed=1)) as other:
        assert one != other


@pytest.mark.slow
def test_two_hosts_that_need_one_artifact_build_it_once(store_root, store, other):
    built = []

    def slowly(workspace: Path) -> BuildOutput:
        built.append(workspace)
        # On S3, longer than a lease lasts without heartbeats.
        time.sleep(0.3 if isinstance(store_root, LocalRoot) else 1.5 * EXPIRY_SECONDS)
        return build(workspace)

    statuses = []

    def need(host: ArtifactStore) -> None:
        statuses.append(resolve(host, make_spec(), slowly).status)

    threads = [threading.Thread(target=need, args=(host,), daemon=True) for host in (store, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == ["built", "reused"]
    assert len(built) == 1


def test_a_build_that_died_on_one_host_resumes_on_another(store_root, store, other):
    def begin(workspace: Path) -> BuildOutput:
        parts = workspace / "checkpoints"
        parts.mkdir()
        with store.uploading_parts(make_spec(), workspace, parts, is_only_copy=False):
            for step in (1, 2):
                (parts / ".saving").mkdir()
                (parts / ".saving" / "model").write_bytes(b"%d" % step)
                (parts / ".saving").rename(parts / f"step-{step}")
                (parts / "metrics").write_text(f"until {step}")
            raise KilledError

    found = {}

    def go_on(workspace: Path) -> BuildOutput:
        files = (p for p in (workspace / "checkpoints").rglob("*") if p.is_file())
        found.update({p.relative_to(workspace).as_posix(): p.read_bytes() for p in files})
        return build(workspace)

    with pytest.raises(KilledError):
        resolve(store, make_spec(), begin)
    assert resolve(other, make_spec(), go_on).status == "built"
    assert found == {
        "checkpoints/metrics": b"until 2",
        "checkpoints/step-1/model": b"1",
        "checkpoints/step-2/model": b"2",
    }
    assert store_root.paths(".work/") == []


@dataclass
class Host:
    """A host that works on a build in a workspace that nobody else sees."""

    store: ArtifactStore
    workspace: Path

    @property
    def parts(self) -> Path:
        return self.workspace / "checkpoints"

    def finish(self, step: int) -> None:
        (self.parts / ".saving").mkdir(parents=True)
        (self.parts / ".saving" / "model").write_bytes(b"%d" % step)
        (self.parts / ".saving").rename(self.parts / f"step-{step}")

    def uploading(self) -> AbstractContextManager[None]:
        return self.store.uploading_parts(
            make_spec(), self.workspace, self.parts, is_only_copy=True
        )

    def download(self) -> list[str]:
        self.store.download_parts(make_spec(), self.workspace)
        return sorted(path.name for path in self.parts.glob("step-*"))


@pytest.fixture
def s3_root(s3_server, tmp_path) -> S3Root:
    return S3Root(tmp_path / "caches")


@pytest.fixture
def hosts(s3_root, tmp_path) -> Callable[[], Host]:
    names = count()

    def make() -> Host:
        name = f"host-{next(names)}"
        (tmp_path / name).mkdir()
        return Host(s3_root.host(name), tmp_path / name)

    return make


def test_hosts_that_share_no_directory_hand_parts_on_through_the_store(hosts):
    first, second = hosts(), hosts()
    with first.uploading():
        first.finish(1)
        first.finish(2)
    assert second.download() == ["step-1", "step-2"]
    with second.uploading():
        second.finish(3)
    assert hosts().download() == ["step-2", "step-3"]
    assert hosts().store.is_begun(make_spec())


def test_a_host_that_was_cut_off_changes_nothing_once_another_has_taken_over(hosts):
    stale, living, later = hosts(), hosts(), hosts()
    with pytest.raises(OSError, match=TAKEN_OVER), stale.uploading():
        stale.finish(1)
        wait_for(lambda: living.download() == ["step-1"])
        with living.uploading():
            stale.finish(2)
            living.finish(3)
            living.finish(4)
    assert later.download() == ["step-3", "step-4"]


def test_in_place_of_a_damaged_part_an_older_one_comes(hosts, s3_root, caplog):
    first = hosts()
    with first.uploading():
        for step in (1, 2, 3):
            first.finish(step)
    for step in (2, 3):
        name = hashlib.sha256(b"%d" % step).hexdigest()
        s3_root.rot(f".work/shards/{make_spec().key}/objects/{name}", b"x")
    second = hosts()
    assert second.download() == ["step-1"]
    warnings = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert [line.partition(" is damaged")[0] for line in warnings] == [
        "the uploaded part step-3",
        "the uploaded part step-2",
    ]
    with second.uploading():
        second.finish(2)  # again, with the same bytes, in place of the damaged ones
    assert hosts().download() == ["step-1", "step-2"]


def test_an_uploader_recognises_its_own_list_whose_answer_was_lost(hosts, s3_root):
    host, bucket = hosts(), Bucket(s3_root.uri)
    with host.uploading():
        written = UploadedParts.decode(s3_root.read(LIST))
        unanswered = UploadedParts(
            place="checkpoints", newest="step-0", files=(), uploader=written.uploader
        )
        bucket.put(LIST, unanswered.encode(), expected=Expect.ANY)
        host.finish(1)
    assert hosts().download() == ["step-1"]


def test_a_host_that_was_cut_off_changes_nothing_while_another_build_begins(hosts):
    stale, other = hosts(), hosts()
    with pytest.raises(OSError, match=TAKEN_OVER), stale.uploading():
        stale.finish(1)
        wait_for(lambda: other.download() == ["step-1"])
        with other.store.workspace(make_spec()):
            stale.finish(2)
    assert hosts().download() == ["step-1"]


def test_whoever_takes_over_before_anything_is_finished_has_begun_nothing(hosts):
    first, second = hosts(), hosts()
    with first.uploading():
        assert not second.store.is_begun(make_spec())
        assert second.download() == []


@pytest.mark.slow
def test_a_builder_that_was_taken_over_commits_nothing(store_root, tmp_path):
    if isinstance(store_root, LocalRoot):
        pytest.skip("the kernel gives a lock to nobody else while its holder lives")
    go_on = CONTEXT.Event()
    entered, outcome = CONTEXT.Event(), CONTEXT.Queue()
    sleeper = another_process(commit_late, store_root, tmp_path / "late", entered, go_on, outcome)
    sleeper.start()
    assert entered.wait(300)
    os.kill(sleeper.pid, signal.SIGSTOP)
    began = time.monotonic()
    with store_root.host("other").workspace(make_spec()):
        assert time.monotonic() - began >= EXPIRY_SECONDS
        os.kill(sleeper.pid, signal.SIGCONT)
        go_on.set()
        assert outcome.get(timeout=600) == "LostLeaseError"
        assert list(store_root.host("other").addresses()) == []
    sleeper.join()


def commit_late(store_root: StoreRoot, directory: Path, entered, go_on, outcome) -> None:
    store = store_root.host("sleeper")
    with store.workspace(make_spec()):
        entered.set()
        go_on.wait(300)
        try:
            put(store, directory)
        except LostLeaseError as error:
            outcome.put(type(error).__name__)


def test_a_commit_spares_the_staging_directory_of_a_living_process(tmp_path, monkeypatch):
    store = LocalStore(tmp_path / "store")
    other_is_staging, may_go_on = threading.Event(), threading.Event()
    fsync = os.fsync

    def slow_fsync(descriptor: int) -> None:
        if threading.current_thread() is other:
            other_is_staging.set()
            assert may_go_on.wait(300)
        fsync(descriptor)

    other = threading.Thread(target=put, args=(store, tmp_path / "other"))
    monkeypatch.setattr(os, "fsync", slow_fsync)
    other.start()
    assert other_is_staging.wait(300)
    put(store, tmp_path / "one")
    assert len(list((store.root / ".staging").glob("*/manifest.json"))) == 1
    may_go_on.set()
    other.join()
    assert store.verify("shards", make_spec().key) == ()
    assert list((store.root / ".staging").iterdir()) == []


def resolve_together(root: Path, barrier, results) -> None:
    store = LocalStore(root)
    barrier.wait()
    resolution = resolve(store, make_spec(), build)
    results.put((resolution.status, resolution.artifact.manifest.encode()))


def test_8_processes_that_find_one_damaged_artifact_rebuild_it_once(tmp_path):
    store = LocalStore(tmp_path / "store")
    (resolve(store, make_spec(), build).artifact.directory / "index.json").unlink()
    barrier, results = CONTEXT.Barrier(8), CONTEXT.Queue()
    processes = [another_process(resolve_together, store.root, barrier, results) for _ in range(8)]
    for process in processes:
        process.start()
    answers = [results.get(timeout=600) for _ in processes]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert [status for status, _ in answers].count("reused") == 7
    assert len({manifest for _, manifest in answers}) == 1
    assert len(list((store.root / ".quarantine").glob("*.damage.json"))) == 1
