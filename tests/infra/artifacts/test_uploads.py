"""Files that hosts put into a bucket while an artifact is built, and the builder commits unseen."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from artifact_examples import (
    FILES,
    KilledError,
    another_process,
    make_spec,
    read_files,
    write_files,
)

from infra.artifacts import (
    BuildOutput,
    DigestConflictError,
    FileEntry,
    StoreError,
    digest_of,
    foresee,
    resolve,
    s3_uploads,
)
from infra.artifacts import opening as opening_module
from infra.artifacts.gc import collect, survey
from infra.artifacts.s3 import S3Store
from infra.base.uploads import Upload, UploadedFile
from infra.s3 import STANDARD, Bucket, S3Error
from infra.s3.server import RunningServer
from tests.s3_imitations import IMITATIONS, PROFILES, Answer, Ask, Asked, imitating
from tests.store_roots import S3Root

SPEC = make_spec()
PREFIX = f"shards/{SPEC.key}/"
UPLOADED = {name: FILES[name] for name in ("shards/0.bin", "shards/1.bin")}


@pytest.fixture
def root(tmp_path: Path, s3_server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> S3Root:
    monkeypatch.setenv("SKNET_CACHE", str(tmp_path / "hosts" / "uploader"))
    return S3Root(tmp_path / "hosts", profile=STANDARD)  # recorded, so that nobody probes


@pytest.fixture
def store(root: S3Root) -> S3Store:
    return root.host("builder")


def described(name: str, content: bytes) -> UploadedFile:
    return name, len(content), hashlib.sha256(content).hexdigest()


ENTRIES = tuple(
    FileEntry(path=name, size=size, sha256=sha256)
    for name, size, sha256 in (described(*each) for each in UPLOADED.items())
)


def upload_all(upload: Upload, directory: Path, files: Mapping[str, bytes] = UPLOADED) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for number, (name, content) in enumerate(files.items()):
        path = directory / f"{number}"  # whatever its name is on its host
        path.write_bytes(content)
        upload(path, *described(name, content))


class Builder:
    """Lets another process upload two files, makes the third, and counts the builds."""

    def __init__(self, store: S3Store, directory: Path) -> None:
        self._store, self._directory = store, directory
        self.num_builds = 0

    def __call__(self, workspace: Path) -> BuildOutput:
        self.num_builds += 1
        upload_all(self._store.uploads(SPEC).upload, self._directory)
        (workspace / "out").mkdir(exist_ok=True)
        (workspace / "out/index.json").write_bytes(FILES["index.json"])
        return BuildOutput(workspace / "out", {}, {}, ENTRIES)


@pytest.fixture
def builder(store: S3Store, tmp_path: Path) -> Builder:
    return Builder(store, tmp_path / "made")


def identities(root: S3Root) -> dict[str, tuple[str, datetime]]:
    """Return what changes when an object of the artifact is written again."""
    listed = Bucket(root.uri).list(PREFIX)
    return {each.key: (each.etag, each.modified) for each in listed}


def test_an_artifact_has_the_files_of_other_hosts_and_the_digest_of_a_local_one(
    root, store, builder, tmp_path
):
    artifact = resolve(store, SPEC, builder).artifact
    assert artifact.digest == digest_of(write_files(tmp_path / "source"))
    assert store.verify("shards", SPEC.key) == ()
    for host in (store, root.host("other")):
        assert read_files(host.get(SPEC, level="full")) == FILES
    assert root.paths(".work/") == []


@pytest.mark.slow
def test_another_process_uploads_with_settings_of_its_own(root, store, tmp_path, monkeypatch):
    def build(workspace: Path) -> BuildOutput:
        monkeypatch.setenv("SKNET_CACHE", str(tmp_path / "hosts" / "another"))
        process = another_process(upload_all, store.uploads(SPEC).upload, tmp_path / "there")
        process.start()
        process.join(300)
        assert process.exitcode == 0
        (workspace / "index.json").write_bytes(FILES["index.json"])
        return BuildOutput(workspace, {}, {}, ENTRIES)

    assert read_files(resolve(store, SPEC, build).artifact) == FILES


def test_nothing_appears_before_the_commit(root, store, tmp_path):
    with store.workspace(SPEC):
        upload_all(store.uploads(SPEC).upload, tmp_path / "made")
        assert list(root.host("other").addresses()) == []
        assert root.host("other").get(SPEC) is None
        assert foresee(root.host("other"), SPEC) == ("awaited", None)


def test_who_comes_after_the_commit_changes_nothing(root, store, builder, tmp_path):
    resolve(store, SPEC, builder)
    before = identities(root)
    upload_all(store.uploads(SPEC).upload, tmp_path / "late")
    with pytest.raises(
        DigestConflictError, match=r"shards/0\.bin has other bytes than in the store"
    ):
        upload_all(store.uploads(SPEC).upload, tmp_path / "other", {"shards/0.bin": b"ZERO"})
    store.uploads(SPEC).keep_only([], [])
    assert identities(root) == before
    assert store.verify("shards", SPEC.key) == ()


def test_a_failed_commit_is_repeated_without_another_build(store, builder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(S3Store, "_publish", _refused)
        with pytest.raises(S3Error, match="refused"):
            resolve(store, SPEC, builder)
    assert read_files(resolve(store, SPEC, builder).artifact) == FILES
    assert builder.num_builds == 1


def _refused(*_: object) -> bool:
    raise S3Error(0, "refused")


@pytest.mark.parametrize("how", ["gone", "changed"])
def test_what_was_uploaded_and_is_lost_is_built_again(root, store, builder, monkeypatch, how):
    with monkeypatch.context() as patch:
        patch.setattr(S3Store, "_publish", _refused)
        with pytest.raises(S3Error, match="refused"):
            resolve(store, SPEC, builder)
    root.remove(f"{PREFIX}shards/0.bin")
    if how == "changed":
        root.write(f"{PREFIX}shards/0.bin", b"zerO")
        # The builder clears what no note protects; this one has none.
        store.uploads(SPEC).keep_only([], [])
    assert read_files(resolve(store, SPEC, builder).artifact) == FILES
    assert builder.num_builds == 2


@pytest.mark.parametrize("lost", ["gone", "changed"])
def test_a_commit_without_an_uploaded_file_fails_and_the_next_try_builds_again(
    root, store, builder, lost
):
    def build(workspace: Path) -> BuildOutput:
        output = builder(workspace)
        if lost == "gone":
            root.remove(f"{PREFIX}shards/0.bin")
        else:
            root.write(f"{PREFIX}shards/0.bin", b"zerO")
        return output

    with pytest.raises(S3Error, match=r"1 files of .* first 'shards/0\.bin': the next try"):
        resolve(store, SPEC, build)
    assert list(store.addresses()) == []
    store.uploads(SPEC).keep_only([], [])
    assert read_files(resolve(store, SPEC, builder).artifact) == FILES


def test_what_is_noted_is_found_by_the_next_builder_and_gone_after_the_commit(
    root, store, builder, tmp_path
):
    with pytest.raises(KilledError), store.workspace(SPEC):
        uploads = store.uploads(SPEC)
        upload_all(uploads.upload, tmp_path / "made", {**UPLOADED, "left over": b""})
        for name in UPLOADED:
            uploads.note(f"{name}.json", name.encode())
        raise KilledError
    other = root.host("other")
    assert foresee(other, SPEC) == ("resumed", None)
    with other.workspace(SPEC):
        uploads = other.uploads(SPEC)
        assert uploads.notes() == {f"{name}.json": name.encode() for name in UPLOADED}
        assert uploads.missing([described(*each) for each in UPLOADED.items()]) == set()
        assert uploads.missing([described("shards/0.bin", b"else")]) == {"shards/0.bin"}
        uploads.keep_only(["shards/0.bin"], ["shards/0.bin.json"])
        assert root.paths(PREFIX) == [f"{PREFIX}shards/0.bin"]
        assert list(uploads.notes()) == ["shards/0.bin.json"]
    resolve(other, SPEC, builder)
    assert root.paths(".work/") == []


def test_a_collection_spares_uploads_while_they_are_needed(root, store, tmp_path):
    later = datetime.now(UTC) + timedelta(days=1)
    earlier = datetime.now(UTC) - timedelta(days=1)
    other = root.host("other")
    with store.workspace(SPEC):
        upload_all(store.uploads(SPEC).upload, tmp_path / "made")
        store.uploads(SPEC).note("a.json", b"{}")
        collect(other, survey(other, unused_since=later), unused_since=later)
        assert len(root.paths(PREFIX)) == 2, "it is being built"
    collect(other, survey(other, unused_since=earlier), unused_since=earlier)
    assert len(root.paths(PREFIX)) == 2, "it was built lately"
    collect(other, survey(other, unused_since=later), unused_since=later)
    assert root.paths(PREFIX) == root.paths(".work/") == []


def test_a_damaged_artifact_is_set_aside_and_uploaded_again(root, store, builder):
    resolve(store, SPEC, builder)
    root.rot(f"{PREFIX}shards/0.bin", b"zerO")

    def rebuild(workspace: Path) -> BuildOutput:
        store.uploads(SPEC).keep_only([], [])
        return builder(workspace)

    resolution = resolve(store, SPEC, rebuild, level="full")
    assert resolution.status == "rebuilt"
    assert store.verify("shards", SPEC.key) == ()
    assert any(path.endswith("shards/0.bin") for path in root.paths(".quarantine/"))


def test_where_only_a_lock_keeps_writers_apart_hosts_must_share_the_cache(
    s3_server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with imitating(IMITATIONS["heedless"], s3_server) as address:
        direct = s3_server.environment["AWS_ENDPOINT_URL_S3"]
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
        root = S3Root(tmp_path / "hosts", direct, PROFILES["heedless"])
        store = root.host("builder")
        monkeypatch.setenv("SKNET_CACHE", str(tmp_path / "hosts" / "else"))
        with store.workspace(SPEC):
            with pytest.raises(StoreError, match=r"on host .* may be written only with the cache"):
                upload_all(store.uploads(SPEC).upload, tmp_path / "made")
            monkeypatch.setenv("SKNET_CACHE", str(tmp_path / "hosts" / "shared"))
            upload_all(store.uploads(SPEC).upload, tmp_path / "made")
        assert read_files(resolve(store, SPEC, Builder(store, tmp_path / "made")).artifact) == FILES


def test_a_file_is_put_again_where_the_builder_has_just_removed_another(
    s3_server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals, num_refused = s3_uploads.UPLOAD_TRIES - 1, 0

    def refusing(asked: Asked, ask: Ask) -> Answer:
        nonlocal num_refused
        if asked.is_put and PREFIX in asked.target and num_refused < refusals:
            num_refused += 1
            return Answer.refusal(412, "PreconditionFailed", "it is there")
        return ask(asked)

    monkeypatch.setattr(s3_uploads, "PAUSE_SECONDS", 0)
    with imitating(refusing, s3_server) as address:
        direct = s3_server.environment["AWS_ENDPOINT_URL_S3"]
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
        root = S3Root(tmp_path / "hosts", direct, STANDARD)
        upload = root.host("builder").uploads(SPEC).upload
        upload_all(upload, tmp_path / "made", {"shards/0.bin": FILES["shards/0.bin"]})
        assert root.paths(PREFIX) == [f"{PREFIX}shards/0.bin"]
        refusals, num_refused = refusals + 1, 0
        with pytest.raises(S3Error, match=r"on host .*shards/1\.bin"):
            upload_all(upload, tmp_path / "made", {"shards/1.bin": FILES["shards/1.bin"]})
    assert num_refused == s3_uploads.UPLOAD_TRIES


def test_a_host_with_wrong_settings_is_named_and_not_tried_again(
    root, store, tmp_path, monkeypatch
):
    upload = store.uploads(SPEC).upload
    opening_module._server.cache_clear()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "nowhere")
    for use in (upload.check, lambda: upload_all(upload, tmp_path / "made")):
        with pytest.raises(
            StoreError, match=r"on host .*: store 's3://.*' can't be used"
        ) as refused:
            use()
        assert not isinstance(refused.value, OSError), "which tasks try again"
