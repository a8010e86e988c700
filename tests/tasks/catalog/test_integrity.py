"""Every damaged byte is found, and an intact copy replaces it if any source has one."""

import os
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from infra.artifacts import Artifact, ArtifactSpec, ArtifactStore, StoreError
from infra.artifacts.transfer import push
from tasks.catalog.integrity import CopySource, Wanted, copy_in, examine, locate, mark_used
from tests.store_roots import LocalRoot, StoreRoot

SPEC = ArtifactSpec(kind="shards", format_version=1, params={}, inputs={})
# A store in a directory has no copies, as its files are read where they are.
IN_A_BUCKET = pytest.mark.parametrize("store_root", ["s3"], indirect=True)


def put(store: ArtifactStore, directory: Path) -> Wanted:
    directory.mkdir(parents=True)
    (directory / "a").write_bytes(b"first")
    (directory / "b").write_bytes(b"second")
    digest = store.put(SPEC, directory, stats={}, provenance={}).digest
    return Wanted("shards", digest, SPEC.key)


def address(file: str) -> str:
    return f"shards/{SPEC.key}/{file}"


@pytest.fixture
def store(store_root: StoreRoot) -> ArtifactStore:
    return store_root.host("one")


@pytest.fixture
def replica(store: ArtifactStore, wanted: Wanted, tmp_path: Path) -> CopySource:
    there = LocalRoot(tmp_path / "replica").host("replica")
    push(store, store.load("shards", SPEC.key).manifest, there)
    return CopySource("fetched", "the replica", partial(copy_in, there))


@pytest.fixture
def wanted(store: ArtifactStore, tmp_path: Path) -> Wanted:
    return put(store, tmp_path / "source")


def absent(_: Wanted) -> Artifact:
    raise StoreError("there is nothing")


NOTHING = CopySource("fetched", "nowhere", absent)
UNREACHABLE = CopySource("fetched", "far away", lambda _: (_ for _ in ()).throw(OSError("is down")))


def test_an_intact_artifact_needs_no_source(store: ArtifactStore, wanted: Wanted) -> None:
    found = examine(store, wanted, [NOTHING])
    assert (found.damages, found.repairs) == ((), ())
    assert found.artifact == store.load("shards", SPEC.key)


@pytest.mark.parametrize("file", ["a", "manifest.json"])
def test_the_first_source_with_an_intact_copy_is_used(
    store_root: StoreRoot, store: ArtifactStore, wanted: Wanted, replica: CopySource, file: str
) -> None:
    store_root.write(address(file), b"First")
    found = examine(store, wanted, [NOTHING, UNREACHABLE, replica])
    assert found.damages == ()
    (repair,) = found.repairs
    assert (repair.artifact, repair.how) == (f"shards/{SPEC.key}", "fetched")
    assert repr(file) in repair.damages[0]
    assert store.verify("shards", SPEC.key) == ()
    assert any(path.endswith(f"/{file}") for path in store_root.paths(".quarantine/"))


def test_an_artifact_that_is_gone_is_restored_by_its_digest(
    store: ArtifactStore, wanted: Wanted, replica: CopySource
) -> None:
    store.remove("shards", SPEC.key)
    unknown = locate(store, "shards", wanted.digest)
    assert unknown.key is None
    found = examine(store, unknown, [replica])
    assert found.artifact == store.load("shards", SPEC.key)
    assert found.repairs[0].damages == (
        f"no shards with digest {wanted.digest} can be read in the store",
    )


def test_without_a_copy_damage_stays_in_place_and_each_source_says_why(
    store_root: StoreRoot, store: ArtifactStore, wanted: Wanted
) -> None:
    store_root.write(address("a"), b"First")
    found = examine(store, wanted, [NOTHING, UNREACHABLE])
    assert found.artifact is None
    damage, *reasons = found.damages
    assert "'a': sha256" in damage
    assert reasons == [
        f"shards/{SPEC.key}: not from nowhere: there is nothing",
        f"shards/{SPEC.key}: not from far away: is down",
    ]
    assert store_root.read(address("a")) == b"First"
    assert store_root.paths(".quarantine/") == []


def test_another_digest_than_the_promoted_one_is_damage_that_no_copy_repairs(
    store: ArtifactStore, wanted: Wanted, replica: CopySource
) -> None:
    promoted = Wanted("shards", "0" * 64, SPEC.key)
    found = examine(store, promoted, [replica])
    assert found.artifact is None
    assert f"digest is {wanted.digest}, expected 000" in found.damages[0]
    assert "expected 000" in found.damages[1]


def test_what_is_used_is_marked_in_a_replica_and_missing_copies_are_told(
    store: ArtifactStore, wanted: Wanted, replica: CopySource, tmp_path: Path
) -> None:
    manifest = store.load("shards", SPEC.key).manifest
    (there, uri) = LocalRoot(tmp_path / "replica").host("replica"), str(tmp_path / "replica")
    os.utime(tmp_path / "replica" / "shards" / SPEC.key, (0, 0))
    began = datetime.now(UTC) - timedelta(seconds=1)
    assert mark_used(uri, [manifest]) == []
    assert there.last_used("shards", SPEC.key) > began
    there.remove("shards", SPEC.key)
    assert mark_used(uri, [manifest]) == [f"{uri} has no copy of shards/{SPEC.key}: push it"]
    (line,) = mark_used(str(tmp_path / "unmounted"), [manifest])
    assert "does not exist" in line


@IN_A_BUCKET
def test_a_damaged_copy_on_this_host_is_fetched_again(
    store_root: StoreRoot, store: ArtifactStore, wanted: Wanted
) -> None:
    store.load("shards", SPEC.key).path("a").write_bytes(b"First")
    found = examine(store, wanted, [NOTHING])
    assert (found.damages, found.repairs[0].how) == ((), "fetched")
    assert f"this host's copy of shards/{SPEC.key}: 'a': sha256" in found.repairs[0].damages[0]
    assert store.load("shards", SPEC.key).path("a").read_bytes() == b"first"


@IN_A_BUCKET
def test_this_hosts_copy_repairs_a_damaged_bucket(
    store_root: StoreRoot, store: ArtifactStore, wanted: Wanted
) -> None:
    store_root.write(address("a"), b"First")
    found = examine(store, wanted, [CopySource("fetched", "this host", partial(copy_in, store))])
    assert (found.damages, len(found.repairs)) == ((), 1)
    assert store_root.read(address("a")) == b"first"
