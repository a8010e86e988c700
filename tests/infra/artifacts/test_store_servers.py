"""A store probes its server once, records what it finds, and works by it from then on."""

import hashlib
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from artifact_examples import FILES, make_spec, read_files, reseal, write_files

from infra.artifacts import ArtifactStore, RefConflictError, StoreError, open_store
from infra.artifacts import opening as opening_module
from infra.artifacts.s3_profile import StoreServer
from infra.s3 import ABSENT, ANY, Bucket, Limits, PreconditionError, Profile, Writing
from infra.s3.server import RunningServer
from tests.s3_imitations import IMITATIONS, PROFILES, Answer, Ask, Asked, imitating
from tests.store_roots import BUCKET, S3Root


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SKNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path: Path, s3_server: RunningServer) -> S3Root:
    return S3Root(tmp_path / "hosts", s3_server.environment["AWS_ENDPOINT_URL_S3"])


@pytest.fixture(params=IMITATIONS)
def imitation(
    request: pytest.FixtureRequest, s3_server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    with imitating(IMITATIONS[request.param], s3_server) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
        yield request.param


@pytest.fixture
def heedless(s3_server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(Bucket, "probe", lambda _: PROFILES["heedless"])
    with imitating(IMITATIONS["heedless"], s3_server) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
        yield


def opened(root: S3Root) -> ArtifactStore:
    """Open the store as a new process does."""
    opening_module._server.cache_clear()
    return open_store(root.uri)


def put(store: ArtifactStore, directory: Path) -> Any:
    return store.put(make_spec(), write_files(directory), stats={}, provenance={})


def profiles(root: S3Root) -> list[str]:
    return [path for path in root.paths(".server/") if path != ".server/writers.json"]


def test_a_store_works_on_each_server_and_only_the_first_use_probes_it(
    imitation: str, root: S3Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the probe finds is the subject of test_s3_probe.py.
    monkeypatch.setattr(Bucket, "probe", lambda _: PROFILES[imitation])
    artifact = put(opened(root), tmp_path / "source")
    assert len(profiles(root)) == 1
    monkeypatch.setattr(Bucket, "probe", None)
    again = opened(root)
    assert read_files(again.load("shards", artifact.manifest.key, level="full")) == FILES
    one = again.refs.set("production", artifact.manifest, expected=None, reason="first")
    with pytest.raises(RefConflictError, match="read it again"):
        opened(root).refs.set("production", artifact.manifest, expected=None, reason="late")
    assert again.refs.history("production") == (one,)
    again.remove("shards", artifact.manifest.key)
    assert root.paths("shards/") == []


@pytest.mark.long
def test_the_probe_finds_out_what_other_real_servers_do(
    real_server: Profile, tmp_path: Path
) -> None:
    assert Bucket(S3Root(tmp_path).uri).probe() == real_server


@pytest.mark.long
def test_other_real_servers_keep_large_files(real_server: Profile, tmp_path: Path) -> None:
    limits = Limits(part_bytes=5 << 20, copied_bytes=5 << 20)
    bucket = Bucket(S3Root(tmp_path).uri, limits=limits, writing=Writing(lambda: real_server))
    content = random.Random(0).randbytes(11_000_000)
    (tmp_path / "file").write_bytes(content)
    known = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    for key, expected in (("in parts", ANY), ("conditionally", ABSENT)):
        bucket.upload(tmp_path / "file", key, **known, expected=expected)
        bucket.copy(key, f"{key}, copied")
        bucket.download(f"{key}, copied", tmp_path / key, **known)
        assert bucket.sha256(key, size=len(content)) == known["sha256"]
    with pytest.raises(PreconditionError):
        bucket.put("conditionally", b"other", expected=ABSENT)
    bucket.delete([listed.key for listed in bucket.list("")])
    assert list(bucket.list("")) == []


def test_threads_that_count_through_a_ref_on_a_heedless_server_lose_no_count(
    heedless: None, root: S3Root, tmp_path: Path
) -> None:
    manifest = put(opened(root), tmp_path / "source").manifest

    def count_up() -> None:
        store = opened(root)
        while True:
            try:
                seen = store.refs.get("count")
                store.refs.set("count", manifest, expected=seen, reason="one more")
                return
            except RefConflictError:
                pass

    threads = [threading.Thread(target=count_up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [ref.version for ref in opened(root).refs.history("count")] == [1, 2, 3, 4]


def test_where_only_a_lock_keeps_writers_apart_another_cache_may_read_but_not_write(
    heedless: None,
    root: S3Root,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    artifact = put(opened(root), tmp_path / "source")
    assert "only processes that share one SKNET_CACHE may write this store" in caplog.text
    monkeypatch.setenv("SKNET_CACHE", str(tmp_path / "another"))
    stranger = opened(root)
    assert read_files(stranger.load("shards", artifact.manifest.key)) == FILES
    refused = f"may be written only with the cache {cache} of "
    with pytest.raises(StoreError, match=refused), stranger.workspace(make_spec(1)):
        raise AssertionError
    with pytest.raises(StoreError, match=refused):
        stranger.refs.set("production", artifact.manifest, expected=None, reason="no")
    assert stranger.refs.names() == ()
    # What the message advises.
    root.remove(".server/writers.json")
    assert stranger.refs.set("production", artifact.manifest, expected=None, reason="yes")
    monkeypatch.setenv("SKNET_CACHE", str(cache))
    with pytest.raises(StoreError, match="may be written only with the cache"):
        opened(root).refs.set("candidate", artifact.manifest, expected=None, reason="no more")


def test_of_two_caches_that_come_first_at_the_same_time_one_may_write(
    heedless: None, root: S3Root, tmp_path: Path
) -> None:
    opened(root)  # the profile is known to both
    buckets = [StoreServer(Bucket(root.uri), tmp_path / name).bucket for name in ("a", "b")]

    def may_write(bucket: Bucket) -> bool:
        try:
            bucket.put(f"key-{uuid4()}", b"content", expected=ABSENT)
        except StoreError as error:
            assert "may be written only with the cache" in str(error)
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(may_write, buckets))
    assert sum(map(may_write, buckets)) == 1


def with_other_values(document: bytes) -> bytes:
    return reseal(document, profile={**PROFILES["B2"].model_dump(), "create": "certainly"})


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: b"\xff",
        lambda document: document[:-20],
        lambda document: document.replace(b'"honoured"', b'"ignored"', 1),
        lambda document: reseal(document, endpoint="https://elsewhere"),
        lambda document: reseal(document, format_version=2),
        with_other_values,
        lambda _: b"[" * (1 << 17),
    ],
)
def test_a_record_of_a_profile_that_is_not_valid_is_not_trusted(root, spoil, monkeypatch):
    monkeypatch.setattr(Bucket, "probe", lambda _: PROFILES["Ceph"])
    opened(root)
    (path,) = profiles(root)
    sound = root.read(path)
    root.write(path, spoil(sound))
    probed = []

    def probe(self: Bucket) -> Profile:
        probed.append(self.location)
        return PROFILES["Ceph"]

    monkeypatch.setattr(Bucket, "probe", probe)
    opened(root)
    assert probed == [root.uri]
    opened(root)
    assert probed == [root.uri]


def test_writers_that_are_not_valid_are_named(heedless: None, root: S3Root, tmp_path: Path) -> None:
    store = opened(root)
    root.write(".server/writers.json", b"{}")
    with pytest.raises(StoreError, match=r"\.server/writers\.json is not valid .*: remove it"):
        put(store, tmp_path / "source")


def lacking_everything(asked: Asked, ask: Ask) -> Answer:
    """Forgets metadata, sends whole objects, copies nothing, and lists nothing but folders."""
    asked.drop("x-amz-meta-", "range")
    if "x-amz-copy-source" in asked.headers:
        return Answer.refusal(501, "NotImplemented", "not implemented")
    if "list-type" in asked.query and not asked.query["prefix"][0].endswith("/"):
        return Answer(200, b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
    return ask(asked)


def test_a_server_on_which_no_store_can_be_is_refused_in_one_line(
    root: S3Root, s3_server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with imitating(lacking_everything, s3_server) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
        with pytest.raises(StoreError) as refused:
            opened(root)
    assert str(refused.value) == (
        f"s3://{BUCKET}/{root.prefix}: its server lacks listings that show each write at once, "
        "reads of a part of an object (Range), user-defined metadata, copies within the server "
        "(CopyObject), without which no store can be there: use another server"
    )
    assert root.paths("") == []
