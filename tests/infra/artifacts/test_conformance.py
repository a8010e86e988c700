"""What holds of every store, in a directory or on S3, for all hosts that use it."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from artifact_examples import (
    FILES,
    KilledError,
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
    RefConflictError,
    StoreError,
    digest_of,
    foresee,
    replace_damaged,
    resolve,
)
from infra.artifacts.documents import MAX_DOCUMENT_BYTES
from infra.artifacts.gc import collect, survey
from infra.artifacts.staging import describe
from infra.artifacts.transfer import push
from tests.store_roots import LocalRoot, S3Root, StoreRoot

TOO_BIG = MAX_DOCUMENT_BYTES + 1


@pytest.fixture
def store(store_root: StoreRoot) -> ArtifactStore:
    return store_root.host("one")


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


def test_a_store_lists_what_is_committed(store_root, store, other, tmp_path):
    specs = [make_spec(seed, kind=kind) for kind in ("shards", "index") for seed in range(3)]
    for number, spec in enumerate(specs):
        commit(store, tmp_path / str(number), spec)
    # A commit that died before its manifest, and a file that is nobody's.
    store_root.write(address("index.json", make_spec(9)), b"[]")
    store_root.write("notes.txt", b"x")
    expected = sorted((spec.kind, spec.key) for spec in specs)
    assert [(manifest.kind, manifest.key) for manifest in other.list()] == expected
    assert [manifest.kind for manifest in other.list("index")] == ["index"] * 3
    for kind in ("absent", "../*"):
        assert list(other.list(kind)) == []


def test_a_second_put_of_the_same_files_returns_the_first(store, other, tmp_path):
    first = commit(store, tmp_path / "a")
    assert commit(other, tmp_path / "b") == first


def test_a_second_put_of_other_files_is_refused_and_changes_nothing(store, other, tmp_path):
    commit(store, tmp_path / "a")
    with pytest.raises(DigestConflictError, match=r"2 files differ, first 'new', 'shards/1.bin'"):
        commit(other, tmp_path / "b", files={**FILES, "shards/1.bin": b"eins", "new": b""})
    assert read_files(other.get(make_spec(), level="full")) == FILES
    assert (tmp_path / "b" / "new").exists()


def test_what_a_dead_commit_left_is_no_part_of_the_next(store_root, store, tmp_path):
    if isinstance(store_root, LocalRoot):
        pytest.skip("a directory appears by one rename")
    for path in ("index.json", "stranger"):
        store_root.write(address(path), b"left over")
    artifact = commit(store, tmp_path / "source")
    assert store.verify("shards", artifact.manifest.key) == ()
    assert read_files(store_root.host("other").get(make_spec())) == FILES


def test_only_hosts_that_share_no_workspace_upload_files_of_a_build(
    store_root, store, tmp_path, monkeypatch
):
    if isinstance(store_root, LocalRoot):
        assert store.uploads(make_spec()) is None
        return
    # Where only a lock keeps writers apart, the hosts of these roots share its directory.
    monkeypatch.setenv("SKNET_CACHE", str(tmp_path / "hosts" / "shared"))
    files = write_files(tmp_path / "made")
    entries = describe(files, FILES)

    def build(workspace: Path) -> BuildOutput:
        uploads = store.uploads(make_spec())
        uploads.keep_only([], [])
        for entry in entries[1:]:
            uploads.upload(files / entry.path, entry.path, entry.size, entry.sha256)
            uploads.upload(files / entry.path, entry.path, entry.size, entry.sha256)
        (files / entries[0].path).rename(workspace / entries[0].path)
        return BuildOutput(workspace, {}, {}, entries[1:])

    artifact = resolve(store, make_spec(), build).artifact
    assert read_files(store_root.host("other").load("shards", artifact.manifest.key)) == FILES
    assert store.verify("shards", artifact.manifest.key) == ()


DAMAGES = {
    "changed": (lambda root: root.write(address("shards/0.bin"), b"zerO"), "sha256"),
    "cut short": (lambda root: root.write(address("shards/0.bin"), b"ze"), "size"),
    "removed": (lambda root: root.remove(address("shards/0.bin")), "missing"),
    "added": (lambda root: root.write(address("more"), b""), "extra"),
    "no manifest": (lambda root: root.write(address("manifest.json"), b"{}"), "manifest"),
    "too big": (lambda root: root.write(address("manifest.json"), bytes(TOO_BIG)), "manifest"),
    "no JSON": (lambda root: root.write(address("manifest.json"), b"\xff"), "manifest"),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_damage_is_named_and_set_aside_and_repaired_by_a_rebuild(
    store_root, store, other, tmp_path, how
):
    spoil, problem = DAMAGES[how]
    key = commit(store, tmp_path / "source").manifest.key
    spoil(store_root)
    (damage,) = other.verify("shards", key)
    assert damage.problem == problem
    assert len(list(other.list())) == (problem != "manifest")
    with pytest.raises(DamagedArtifactError, match=r"is damaged in 1 ways"):
        other.load("shards", key, level="full")
    resolution = resolve(other, make_spec(), build, level="full")
    assert (resolution.status, resolution.damages) == ("rebuilt", (damage,))
    assert read_files(resolution.artifact) == FILES
    assert other.verify("shards", key) == ()
    assert any(path.endswith(".damage.json") for path in store_root.paths(".quarantine/"))


def test_what_would_be_done_is_foreseen_and_not_done(store_root, store, tmp_path):
    spec = make_spec()
    assert foresee(None, spec) == foresee(store, spec) == ("built", None)
    with store.workspace(spec):
        assert foresee(store_root.host("other"), spec) == ("awaited", None)
    artifact = commit(store, tmp_path / "source")
    assert foresee(store, spec) == ("reused", artifact)
    store_root.remove(address("index.json"))
    before = store_root.paths("")
    assert foresee(store, spec) == ("rebuilt", None)
    assert store_root.paths("") == before


def test_the_digest_of_files_is_known_before_they_are_committed(store, tmp_path):
    digest = digest_of(write_files(tmp_path / "source"))
    assert commit(store, tmp_path / "source").digest == digest


def test_a_manifest_that_rots_in_a_bucket_is_set_aside(tmp_path, s3_server):
    root = S3Root(tmp_path / "hosts")
    commit(root.host("one"), tmp_path / "source")
    manifest = root.read(address("manifest.json"))
    root.rot(address("manifest.json"), manifest.replace(b"{", b"[", 1))
    other = root.host("other")
    lookup = other.lookup(make_spec())
    assert lookup.artifact is None
    assert [damage.problem for damage in lookup.damages] == ["manifest"]
    assert read_files(commit(other, tmp_path / "again")) == FILES


@pytest.mark.parametrize("how", ["changed", "no manifest", "gone"])
def test_an_undamaged_copy_replaces_a_damaged_or_missing_artifact(store_root, store, tmp_path, how):
    manifest = commit(store, tmp_path / "source").manifest
    replica = LocalRoot(tmp_path / "replica").host("replica")
    push(store, manifest, replica)
    copy = replica.load("shards", manifest.key)
    if how == "gone":
        store.remove("shards", manifest.key)
    else:
        DAMAGES[how][0](store_root)

    replaced = replace_damaged(store, copy, digest=manifest.digest)

    assert (replaced.manifest, read_files(replaced)) == (manifest, FILES)
    assert store.verify("shards", manifest.key) == ()
    aside = [path for path in store_root.paths(".quarantine/") if path.endswith(".damage.json")]
    assert len(aside) == (how != "gone")


def test_a_copy_that_is_damaged_or_has_another_digest_changes_nothing(store_root, store, tmp_path):
    manifest = commit(store, tmp_path / "source").manifest
    replica = LocalRoot(tmp_path / "replica").host("replica")
    push(store, manifest, replica)
    DAMAGES["changed"][0](store_root)
    before = store_root.paths("shards/")
    copy = replica.load("shards", manifest.key)
    with pytest.raises(DigestConflictError, match="expected 000"):
        replace_damaged(store, copy, digest="0" * 64)
    copy.path("index.json").write_bytes(b"{}")
    with pytest.raises(DamagedArtifactError, match=r"index\.json"):
        replace_damaged(store, copy, digest=manifest.digest)
    assert store_root.paths("shards/") == before
    (damage,) = store.verify("shards", manifest.key)
    assert damage.problem == "sha256"


@pytest.mark.parametrize(
    ("kind", "key", "message"),
    [
        ("shards", "0" * 64, "has no artifact"),
        ("..", "0" * 64, "can be called"),
        ("shards", "../../etc", "can be called"),
        ("refs", "0" * 64, "reserved"),
    ],
)
def test_what_is_no_artifact_is_refused(store, kind, key, message):
    for method in (store.load, store.verify):
        with pytest.raises(StoreError, match=message):
            method(kind, key)


def test_a_damaged_copy_on_this_host_is_fetched_again(store_root, store, other, tmp_path):
    commit(store, tmp_path / "source")
    artifact = other.load("shards", make_spec().key)
    path = artifact.path("index.json")
    if isinstance(store_root, LocalRoot):
        assert artifact.check_copies() == ()
        return
    path.write_bytes(b"{}")
    (damage,) = artifact.check_copies()
    assert (damage.path, damage.problem) == ("index.json", "sha256")
    assert read_files(artifact) == FILES
    assert artifact.check_copies() == ()


def test_a_ref_moves_only_from_where_it_was_seen(store, other, tmp_path):
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


def tomorrow() -> datetime:
    """Return a time before which everything was last used."""
    return datetime.now(UTC) + timedelta(days=1)


def test_garbage_goes_and_what_a_ref_or_a_builder_needs_stays(store_root, store, other, tmp_path):
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
    assert store_root.paths(f"shards/{garbage.manifest.key}") == []
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


def test_what_dead_builders_and_repairs_left_is_cleared(store_root, store, tmp_path):
    with pytest.raises(KilledError), store.workspace(make_spec(5)) as workspace:
        parts = workspace / "checkpoints"
        parts.mkdir()
        with store.uploading_parts(make_spec(5), workspace, parts, is_only_copy=False):
            write_files(parts / "step-1")
            raise KilledError
    commit(store, tmp_path / "source")
    store_root.write(address("index.json"), b"[")
    assert store.set_aside("shards", make_spec().key, level="size") != ()
    assert store_root.paths(".work/") != []
    assert store_root.paths(".quarantine/") != []
    if not isinstance(store_root, LocalRoot):
        store_root.write(".probe-0/create", b"of a probe")
    collect(store, survey(store, unused_since=tomorrow()), unused_since=tomorrow())
    for left in ("shards/", ".work/", ".quarantine/", ".leases/", ".staging/", ".probe-"):
        assert [path for path in store_root.paths(left) if not path.endswith(".lock")] == [], left


def test_an_artifact_goes_from_one_kind_of_store_to_the_other(
    store_root, store, tmp_path, s3_server
):
    artifact = commit(store, tmp_path / "source")
    target = (
        S3Root(tmp_path / "targets") if isinstance(store_root, LocalRoot) else LocalRoot(tmp_path)
    ).host("target")
    assert push(store, artifact.manifest, target)
    assert not push(store, artifact.manifest, target)
    assert read_files(target.get(make_spec(), level="full")) == FILES
    assert target.get(make_spec()) == artifact
