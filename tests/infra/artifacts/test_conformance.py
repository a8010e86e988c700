"""What holds of every store, local or on S3, for all hosts that use it."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
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

from infra.artifacts import (
    Artifact,
    ArtifactSpec,
    ArtifactStore,
    BuildOutput,
    DamagedArtifactError,
    DigestConflictError,
    LostLeaseError,
    RefConflictError,
    StoreError,
    replace_damaged,
    resolve,
)
from infra.artifacts.files import MAX_DOCUMENT_BYTES
from infra.artifacts.gc import collect, survey
from infra.artifacts.transfer import push
from tests.places import EXPIRY_SECONDS, LocalPlace, Place, S3Place

NUM_WRITERS = 16
TOO_BIG = MAX_DOCUMENT_BYTES + 1


@pytest.fixture
def store(place: Place) -> ArtifactStore:
    return place.host("one")


@pytest.fixture
def other(place: Place) -> ArtifactStore:
    return place.host("other")


def commit(
    store: ArtifactStore,
    directory: Path,
    spec: ArtifactSpec | None = None,
    files: Mapping[str, bytes] = FILES,
) -> Artifact:
    source = write_files(directory, files)
    return store.put(spec or make_spec(), source, stats={"num_files": len(files)}, provenance={})


def address(path: str, spec: ArtifactSpec | None = None) -> str:
    spec = spec or make_spec()
    return f"{spec.kind}/{spec.key}/{path}"


def build(workspace: Path) -> BuildOutput:
    return BuildOutput(write_files(workspace / "out"), stats={}, provenance={})


def test_what_one_host_puts_another_finds(store, other, tmp_path):
    assert other.get(make_spec()) is None
    put = commit(store, tmp_path / "source")
    for host in (store, other):
        found = host.get(make_spec(), level="full")
        assert found == put
        assert read_files(found) == FILES
        assert host.load("shards", make_spec().key) == put
        assert host.find("shards", put.digest) == put
        assert host.get(make_spec(seed=1)) is None
    assert list((tmp_path / "source").rglob("*.bin")) == []


def test_a_store_lists_what_is_committed(place, store, other, tmp_path):
    specs = [make_spec(seed, kind=kind) for kind in ("shards", "index") for seed in range(3)]
    for number, spec in enumerate(specs):
        commit(store, tmp_path / str(number), spec)
    # A commit that died before its manifest, and a file that is nobody's.
    place.write(address("index.json", make_spec(9)), b"[]")
    place.write("notes.txt", b"x")
    expected = sorted((spec.kind, spec.key) for spec in specs)
    assert [(manifest.kind, manifest.key) for manifest in other.list()] == expected
    assert [manifest.kind for manifest in other.list("index")] == ["index"] * 3
    assert list(other.list("absent")) == []


def test_a_second_put_of_the_same_files_returns_the_first(store, other, tmp_path):
    first = commit(store, tmp_path / "a")
    assert commit(other, tmp_path / "b") == first


def test_a_second_put_of_other_files_is_refused_and_changes_nothing(store, other, tmp_path):
    commit(store, tmp_path / "a")
    with pytest.raises(DigestConflictError, match=r"2 files differ, first 'new', 'shards/1.bin'"):
        commit(other, tmp_path / "b", files={**FILES, "shards/1.bin": b"eins", "new": b""})
    assert read_files(other.get(make_spec(), level="full")) == FILES
    assert (tmp_path / "b" / "new").exists()


def test_what_a_dead_commit_left_is_no_part_of_the_next(place, store, tmp_path):
    if isinstance(place, LocalPlace):
        pytest.skip("a directory appears by one rename")
    for path in ("index.json", "stranger"):
        place.write(address(path), b"left over")
    artifact = commit(store, tmp_path / "source")
    assert store.verify("shards", artifact.manifest.key) == ()
    assert read_files(place.host("other").get(make_spec())) == FILES


DAMAGES = {
    "changed": (lambda place: place.write(address("shards/0.bin"), b"zerO"), "sha256"),
    "cut short": (lambda place: place.write(address("shards/0.bin"), b"ze"), "size"),
    "removed": (lambda place: place.remove(address("shards/0.bin")), "missing"),
    "added": (lambda place: place.write(address("more"), b""), "extra"),
    "no manifest": (lambda place: place.write(address("manifest.json"), b"{}"), "manifest"),
    "too big": (lambda place: place.write(address("manifest.json"), bytes(TOO_BIG)), "manifest"),
    "no JSON": (lambda place: place.write(address("manifest.json"), b"\xff"), "manifest"),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_damage_is_named_and_set_aside_and_repaired_by_a_rebuild(
    place, store, other, tmp_path, how
):
    spoil, problem = DAMAGES[how]
    key = commit(store, tmp_path / "source").manifest.key
    spoil(place)
    (damage,) = other.verify("shards", key)
    assert damage.problem == problem
    assert len(list(other.list())) == (problem != "manifest")
    with pytest.raises(DamagedArtifactError, match=r"is damaged in 1 ways"):
        other.load("shards", key, level="full")
    resolution = resolve(other, make_spec(), build, level="full")
    assert (resolution.status, resolution.damages) == ("rebuilt", (damage,))
    assert read_files(resolution.artifact) == FILES
    assert other.verify("shards", key) == ()
    assert any(path.endswith(".damage.json") for path in place.paths(".quarantine/"))


@pytest.mark.parametrize("how", [*DAMAGES, "gone"])
def test_a_sound_copy_takes_the_place_of_what_is_damaged_or_gone(place, store, tmp_path, how):
    manifest = commit(store, tmp_path / "source").manifest
    replica = LocalPlace(tmp_path / "replica").host("replica")
    push(store, manifest, replica)
    copy = replica.load("shards", manifest.key)
    if how == "gone":
        store.remove("shards", manifest.key)
    else:
        DAMAGES[how][0](place)

    replaced = replace_damaged(store, copy, digest=manifest.digest)

    assert (replaced.manifest, read_files(replaced)) == (manifest, FILES)
    assert store.verify("shards", manifest.key) == ()
    aside = [path for path in place.paths(".quarantine/") if path.endswith(".damage.json")]
    assert len(aside) == (how != "gone")


def test_a_copy_that_is_damaged_or_another_changes_nothing(place, store, tmp_path):
    manifest = commit(store, tmp_path / "source").manifest
    replica = LocalPlace(tmp_path / "replica").host("replica")
    push(store, manifest, replica)
    DAMAGES["changed"][0](place)
    before = place.paths("shards/")
    copy = replica.load("shards", manifest.key)
    with pytest.raises(DigestConflictError, match="expected 000"):
        replace_damaged(store, copy, digest="0" * 64)
    copy.path("index.json").write_bytes(b"{}")
    with pytest.raises(DamagedArtifactError, match=r"index\.json"):
        replace_damaged(store, copy, digest=manifest.digest)
    assert place.paths("shards/") == before
    (damage,) = store.verify("shards", manifest.key)
    assert damage.problem == "sha256"


@pytest.mark.parametrize(
    ("kind", "key", "said"),
    [
        ("shards", "0" * 64, "has no artifact"),
        ("..", "0" * 64, "can be called"),
        ("shards", "../../etc", "can be called"),
        ("refs", "0" * 64, "reserved"),
    ],
)
def test_what_is_no_artifact_is_refused(store, kind, key, said):
    for method in (store.load, store.verify):
        with pytest.raises(StoreError, match=said):
            method(kind, key)


def test_a_copy_of_this_host_that_rotted_is_fetched_again(place, store, other, tmp_path):
    commit(store, tmp_path / "source")
    artifact = other.load("shards", make_spec().key)
    path = artifact.path("index.json")
    if isinstance(place, LocalPlace):
        assert other.check_copies(artifact) == ()
        return
    path.write_bytes(b"{}")
    (damage,) = other.check_copies(artifact)
    assert (damage.path, damage.problem) == ("index.json", "sha256")
    assert read_files(artifact) == FILES
    assert other.check_copies(artifact) == ()


def test_a_ref_moves_from_where_it_was_seen_only(store, other, tmp_path):
    first = commit(store, tmp_path / "a").manifest
    second = commit(store, tmp_path / "b", make_spec(1)).manifest
    assert other.refs.get("production") is None
    one = store.refs.set("production", first, expected=None, reason="better")
    assert other.refs.get("production") == one
    two = other.refs.set("production", second, expected=one, reason="better still")
    for expected in (None, one):
        with pytest.raises(RefConflictError, match="read it again"):
            store.refs.set("production", first, expected=expected, reason="late")
    assert store.refs.get("production") == two
    assert store.refs.history("production") == (one, two)
    assert store.refs.names() == ("production",)


def count_up(place: Place, number: int, times: int) -> None:
    store = place.host(f"host-{number}")
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
        process.join(120)
        assert process.exitcode == 0


@pytest.mark.slow
def test_16_processes_that_count_through_a_ref_lose_no_count(place, store, tmp_path):
    commit(store, tmp_path / "source")
    together(count_up, *((place, number, 2) for number in range(NUM_WRITERS)))
    assert [ref.version for ref in store.refs.history("count")] == [*range(1, 2 * NUM_WRITERS + 1)]


def put_one(place: Place, number: int, directory: Path) -> None:
    commit(place.host(f"host-{number}"), directory / str(number))


@pytest.mark.slow
def test_16_processes_that_put_one_key_agree_on_one_artifact(place, store, tmp_path):
    together(put_one, *((place, number, tmp_path) for number in range(NUM_WRITERS)))
    assert len(list(store.addresses())) == 1
    assert store.verify("shards", make_spec().key) == ()


def hold(place: Place, entered: "multiprocessing.synchronize.Event") -> None:
    with place.host("holder").workspace(make_spec()) as workspace:
        (workspace / "step-1").touch()
        entered.set()
        signal.pause()


def test_the_workspace_of_a_killed_builder_is_free_at_once(place, other):
    entered = CONTEXT.Event()
    holder = another_process(hold, place, entered)
    holder.start()
    assert entered.wait(60)
    waited: list[float] = []

    def wait_and_enter() -> None:
        with other.workspace(make_spec()):
            waited.append(time.monotonic())

    waiter = threading.Thread(target=wait_and_enter, daemon=True)
    waiter.start()
    waiter.join(2 * EXPIRY_SECONDS)
    assert waited == []
    holder.kill()
    holder.join()
    waiter.join(30)
    assert len(waited) == 1


def test_two_hosts_that_need_one_artifact_build_it_once(store, other):
    built = []

    def slowly(workspace: Path) -> BuildOutput:
        built.append(workspace)
        time.sleep(1.5 * EXPIRY_SECONDS)
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


def tomorrow() -> datetime:
    """Everything is older."""
    return datetime.now(UTC) + timedelta(days=1)


def test_garbage_goes_and_what_a_ref_or_a_builder_needs_stays(place, store, other, tmp_path):
    artifacts = [
        commit(store, tmp_path / str(seed), make_spec(seed), {"a": bytes([seed])})
        for seed in range(3)
    ]
    promoted, needed, garbage = artifacts
    store.refs.set("production", promoted.manifest, expected=None, reason="good")
    spec = ArtifactSpec(kind="index", format_version=1, params={}, inputs={"shards": needed.digest})
    with store.workspace(spec):
        assert [(build.kind, build.key) for build in other.held()] == [("index", spec.key)]
        planned = survey(other, unused_since=tomorrow())
        collect(other, planned, unused_since=tomorrow())
    assert {manifest.digest for manifest in store.list()} == {promoted.digest, needed.digest}
    assert place.paths(f"shards/{garbage.manifest.key}") == []
    with pytest.raises(StoreError, match="holds no shards with digest"):
        store.find("shards", garbage.digest)
    collect(store, survey(store, unused_since=tomorrow()), unused_since=tomorrow())
    assert [manifest.digest for manifest in store.list()] == [promoted.digest]
    assert list(store.held()) == []


def test_what_was_used_lately_stays(store, tmp_path):
    artifact = commit(store, tmp_path / "source")
    made = store.last_used("shards", artifact.manifest.key)
    time.sleep(1.1)  # S3 counts seconds
    assert store.get(make_spec()) == artifact
    assert store.last_used("shards", artifact.manifest.key) > made
    planned = survey(store, unused_since=datetime.now(UTC) - timedelta(days=1))
    assert planned.garbage == ()


def test_what_dead_builders_and_repairs_left_is_cleared(place, store, tmp_path):
    with pytest.raises(KilledError), store.workspace(make_spec(5)) as workspace:
        (workspace / "checkpoints").mkdir()
        with store.keeping(make_spec(5), workspace / "checkpoints"):
            write_files(workspace / "checkpoints" / "step-1")
            raise KilledError
    commit(store, tmp_path / "source")
    place.write(address("index.json"), b"[")
    assert store.set_aside("shards", make_spec().key, level="size") != ()
    assert place.paths(".work/") != []
    assert place.paths(".quarantine/") != []
    collect(store, survey(store, unused_since=tomorrow()), unused_since=tomorrow())
    for left in ("shards/", ".work/", ".quarantine/", ".leases/", ".staging/"):
        assert [path for path in place.paths(left) if not path.endswith(".lock")] == [], left


def test_an_artifact_goes_from_one_kind_of_store_to_the_other(place, store, tmp_path, s3_server):
    artifact = commit(store, tmp_path / "source")
    target = (
        S3Place(tmp_path / "targets") if isinstance(place, LocalPlace) else LocalPlace(tmp_path)
    ).host("target")
    assert push(store, artifact.manifest, target)
    assert not push(store, artifact.manifest, target)
    assert read_files(target.get(make_spec(), level="full")) == FILES
    assert target.get(make_spec()) == artifact


class KilledError(Exception):
    pass


def test_a_build_that_one_host_left_goes_on_on_another(place, store, other):
    def begin(workspace: Path) -> BuildOutput:
        parts = workspace / "checkpoints"
        parts.mkdir()
        with store.keeping(make_spec(), parts):
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
    assert place.paths(".work/") == []


def test_a_builder_that_was_taken_over_commits_nothing(place, tmp_path):
    if isinstance(place, LocalPlace):
        pytest.skip("the kernel gives a lock to nobody else while its holder lives")
    go_on = CONTEXT.Event()
    entered, outcome = CONTEXT.Event(), CONTEXT.Queue()
    sleeper = another_process(commit_late, place, tmp_path / "late", entered, go_on, outcome)
    sleeper.start()
    assert entered.wait(60)
    os.kill(sleeper.pid, signal.SIGSTOP)
    began = time.monotonic()
    with place.host("other").workspace(make_spec()):
        assert time.monotonic() - began >= EXPIRY_SECONDS
        os.kill(sleeper.pid, signal.SIGCONT)
        go_on.set()
        assert outcome.get(timeout=60) == "LostLeaseError"
        assert list(place.host("other").addresses()) == []
    sleeper.join()


def commit_late(place: Place, directory: Path, entered, go_on, outcome) -> None:
    store = place.host("sleeper")
    with store.workspace(make_spec()):
        entered.set()
        go_on.wait(60)
        try:
            commit(store, directory)
        except LostLeaseError as error:
            outcome.put(type(error).__name__)
