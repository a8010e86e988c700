"""Writing, finding, reading, copying and deleting objects, on a real server."""

import hashlib
import random
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import httpx
import pytest

from infra.s3 import (
    ABSENT,
    ANY,
    STANDARD,
    Bucket,
    DamagedObjectError,
    Expect,
    PreconditionError,
    S3Error,
)
from infra.s3.server import RunningServer

LARGE = 11_000_000
SIZES = [0, 1, 1000, LARGE]


def written(path: Path, size: int, seed: int = 0) -> tuple[Path, str]:
    content = random.Random(seed).randbytes(size)
    path.write_bytes(content)
    return path, hashlib.sha256(content).hexdigest()


def test_a_written_object_can_be_read_and_looked_up(bucket: Bucket) -> None:
    etag = bucket.put("a/b c+ü.json", b"content", expected=ABSENT)
    stored = bucket.get("a/b c+ü.json", max_bytes=7)
    assert stored is not None
    assert (stored.content, stored.etag) == (b"content", etag)
    found = bucket.head("a/b c+ü.json")
    assert found is not None
    assert (found.key, found.size, found.etag) == ("a/b c+ü.json", 7, etag)
    assert abs(found.modified - datetime.now(UTC)) < timedelta(minutes=5)


def test_a_missing_object_is_none(bucket: Bucket) -> None:
    assert bucket.get("nothing", max_bytes=10) is None
    assert bucket.head("nothing") is None
    assert list(bucket.list("")) == []
    assert bucket.folders("") == []
    bucket.delete(["nothing"])


def test_a_link_shows_one_object_to_those_without_credentials(bucket: Bucket) -> None:
    for name in ("a page.html", "other.html"):
        bucket.put(name, b"<p>all</p>", expected=ABSENT)
    link = bucket.link("a page.html", seconds=60, content_type="text/html")
    answer = httpx.get(link)
    assert (answer.status_code, answer.text) == (200, "<p>all</p>")
    assert answer.headers["content-type"] == "text/html"
    for forged in (link.partition("?")[0], link.replace("a%20page", "other")):
        assert httpx.get(forged).status_code == httpx.codes.FORBIDDEN


def test_an_object_larger_than_allowed_is_not_read(bucket: Bucket) -> None:
    bucket.put("large", b"12345", expected=ANY)
    with pytest.raises(DamagedObjectError, match="5 bytes, expected at most 4"):
        bucket.get("large", max_bytes=4)


def test_a_write_that_expects_no_object_is_refused_where_there_is_one(bucket: Bucket) -> None:
    first = bucket.put("key", b"first", expected=ABSENT)
    with pytest.raises(PreconditionError, match="another object is there") as refused:
        bucket.put("key", b"second", expected=ABSENT)
    assert refused.value.etag == first
    assert bucket.get("key", max_bytes=10).content == b"first"  # type: ignore[union-attr]


def test_a_write_that_expects_a_version_replaces_only_that_version(bucket: Bucket) -> None:
    first = bucket.put("key", b"first", expected=ABSENT)
    second = bucket.put("key", b"second", expected=first)
    with pytest.raises(PreconditionError) as refused:
        bucket.put("key", b"a longer third", expected=first)
    assert refused.value.etag == second
    bucket.delete(["key"])
    with pytest.raises(PreconditionError, match="no longer there") as refused:
        bucket.put("key", b"fourth", expected=second)
    assert refused.value.etag is None


def test_writing_the_same_content_again_succeeds(bucket: Bucket) -> None:
    etag = bucket.put("key", b"same", expected=ABSENT)
    assert bucket.put("key", b"same", expected=ABSENT) == etag


@pytest.mark.parametrize("size", SIZES)
def test_a_file_is_uploaded_and_downloaded_whole(bucket: Bucket, tmp_path: Path, size: int) -> None:
    path, sha256 = written(tmp_path / "file", size)
    sent: list[int] = []
    bucket.upload(path, "file", size=size, sha256=sha256, expected=ABSENT, count=sent.append)
    assert bucket.head("file").size == size  # type: ignore[union-attr]
    fetched: list[int] = []
    bucket.download("file", tmp_path / "copy", size=size, sha256=sha256, count=fetched.append)
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()
    read: list[int] = []
    assert bucket.sha256("file", size=size, count=read.append) == sha256
    assert [sum(counted) for counted in (sent, fetched, read)] == [size] * 3


@pytest.mark.parametrize("size", [1000, LARGE])
def test_uploads_honour_their_conditions(bucket: Bucket, tmp_path: Path, size: int) -> None:
    path, sha256 = written(tmp_path / "file", size)
    other, other_sha256 = written(tmp_path / "other", size, seed=1)
    bucket.upload(path, "file", size=size, sha256=sha256, expected=ABSENT)
    bucket.upload(path, "file", size=size, sha256=sha256, expected=ABSENT)
    with pytest.raises(PreconditionError) as refused:
        bucket.upload(other, "file", size=size, sha256=other_sha256, expected=ABSENT)
    assert bucket.sha256("file", size=size) == sha256
    first = refused.value.etag
    assert first is not None
    bucket.upload(other, "file", size=size, sha256=other_sha256, expected=first)
    with pytest.raises(PreconditionError):
        bucket.upload(path, "file", size=size, sha256=sha256, expected=first)
    assert bucket.sha256("file", size=size) == other_sha256
    bucket.upload(path, "file", size=size, sha256=sha256, expected=ANY)
    assert bucket.sha256("file", size=size) == sha256
    bucket.delete(["file"])
    with pytest.raises(PreconditionError) as refused:
        bucket.upload(path, "file", size=size, sha256=sha256, expected=first)
    assert refused.value.etag is None
    assert bucket.stale_uploads(timedelta(0)) == []


@pytest.mark.parametrize("size", [1000, LARGE])
@pytest.mark.parametrize("expected", [ABSENT, ANY])
def test_a_file_with_other_bytes_than_announced_is_not_stored(
    bucket: Bucket, tmp_path: Path, size: int, expected: Expect
) -> None:
    path, sha256 = written(tmp_path / "file", size)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(S3Error, match=r"the file changed|has SHA-256"):
        bucket.upload(path, "file", size=size, sha256=sha256, expected=expected)
    assert bucket.head("file") is None
    assert bucket.stale_uploads(timedelta(0)) == []


@pytest.mark.parametrize("size", [1000, LARGE])
def test_an_object_of_other_bytes_is_not_downloaded(
    bucket: Bucket, tmp_path: Path, size: int
) -> None:
    path, sha256 = written(tmp_path / "file", size)
    bucket.upload(path, "file", size=size, sha256=sha256, expected=ABSENT)
    target = tmp_path / "copy"
    with pytest.raises(DamagedObjectError, match="SHA-256"):
        bucket.download("file", target, size=size, sha256="0" * 64)
    with pytest.raises(DamagedObjectError, match=f"{size:,} bytes, expected {size + 1:,}"):
        bucket.download("file", target, size=size + 1, sha256=sha256)
    with pytest.raises(DamagedObjectError, match="no such object"):
        bucket.download("nothing", target, size=size, sha256=sha256)
    with pytest.raises(DamagedObjectError, match=f"{size:,} bytes, expected 5"):
        bucket.sha256("file", size=5)
    assert not target.exists()
    target.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        bucket.download("file", target, size=size, sha256=sha256)
    assert target.read_bytes() == b"mine"


def test_listings_are_sorted_by_bytes_and_stay_below_the_prefix(
    location: str, bucket: Bucket
) -> None:
    keys = ["a", "a/x", "a-", "a0", "Z", "ü", "sub/1", "sub/deep/2", "a b+c%2F&"]
    for key in keys:
        bucket.put(key, b"x", expected=ANY)
    Bucket(location + "-other").put("a", b"x", expected=ANY)
    assert [entry.key for entry in bucket.list("")] == sorted(keys, key=str.encode)
    assert [entry.key for entry in bucket.list("sub/")] == ["sub/1", "sub/deep/2"]
    assert [entry.key for entry in bucket.list("su")] == ["sub/1", "sub/deep/2"]
    assert bucket.folders("") == ["a", "sub"]
    assert bucket.folders("sub/") == ["deep"]
    assert bucket.folders("a0/") == []


@pytest.mark.slow
def test_more_objects_than_one_answer_holds_are_listed_and_deleted(bucket: Bucket) -> None:
    keys = [f"many/{number:04}" for number in range(1005)]

    def put(some: list[str]) -> None:
        for key in some:
            bucket.put(key, b"", expected=ANY)

    threads = [threading.Thread(target=put, args=(keys[start::4],)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [entry.key for entry in bucket.list("many/")] == keys
    bucket.delete(key for key in keys if key != "many/0500")
    assert [entry.key for entry in bucket.list("many/")] == ["many/0500"]


@pytest.mark.parametrize("size", [0, 1000, LARGE])
def test_a_copy_has_the_bytes_and_their_checksum(bucket: Bucket, tmp_path: Path, size: int) -> None:
    path, sha256 = written(tmp_path / "file", size)
    bucket.upload(path, "source", size=size, sha256=sha256, expected=ABSENT)
    bucket.copy("source", "target")
    bucket.delete(["source"])
    assert bucket.sha256("target", size=size) == sha256
    # The checksum was copied too: uploading the same bytes again is no conflict.
    bucket.upload(path, "target", size=size, sha256=sha256, expected=ABSENT)
    with pytest.raises(S3Error, match="no such object"):
        bucket.copy("source", "target")


def test_unfinished_uploads_are_found_and_aborted(bucket: Bucket, location: str) -> None:
    client = boto3.session.Session().client("s3")
    name, _, prefix = location.removeprefix("s3://").partition("/")
    client.create_multipart_upload(Bucket=name, Key=f"{prefix}/large")
    client.create_multipart_upload(Bucket=name, Key=f"{prefix}-other/large")
    assert bucket.stale_uploads(timedelta(hours=1)) == []
    [stale] = bucket.stale_uploads(timedelta(0))
    assert stale.key == "large"
    bucket.abort(stale)
    bucket.abort(stale)
    assert bucket.stale_uploads(timedelta(0)) == []


def test_checking_and_probing_a_bucket_leaves_nothing_in_it(bucket: Bucket) -> None:
    bucket.check()
    assert bucket.probe() == STANDARD
    assert list(bucket.list("")) == []
    assert bucket.stale_uploads(timedelta(0)) == []


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("s3://", "is not an S3 location, expected s3://bucket/prefix"),
        ("/local", "is not an S3 location"),
        ("s3:///key", "is not an S3 location"),
    ],
)
def test_a_malformed_location_is_refused(location: str, reason: str) -> None:
    with pytest.raises(S3Error, match=reason):
        Bucket(location)


def test_a_missing_bucket_is_named_with_a_cure(s3_server: RunningServer) -> None:
    with pytest.raises(S3Error, match=r"s3://no-such-bucket/x.*NoSuchBucket.*create the bucket"):
        Bucket("s3://no-such-bucket/x").check()


def test_missing_or_wrong_credentials_are_named(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-right-one")
    with pytest.raises(S3Error, match=r"SignatureDoesNotMatch.*AWS_SECRET_ACCESS_KEY"):
        bucket.check()
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(S3Error, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        bucket.check()


def test_objects_written_by_other_programs_can_be_read(bucket: Bucket, location: str) -> None:
    client = boto3.session.Session().client("s3")
    name, _, prefix = location.removeprefix("s3://").partition("/")
    client.put_object(Bucket=name, Key=f"{prefix}/other", Body=b"content")
    assert bucket.get("other", max_bytes=10).content == b"content"  # type: ignore[union-attr]
