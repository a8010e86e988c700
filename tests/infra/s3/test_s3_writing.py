"""Writes keep their promises on servers that do less than AWS."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from infra.base.locks import exclusive
from infra.s3 import (
    ABSENT,
    ANY,
    STANDARD,
    Bucket,
    DamagedObjectError,
    Limits,
    PreconditionError,
    S3Error,
    Writing,
)
from infra.s3.profile import MAX_PUT_BYTES
from infra.s3.server import RunningServer
from tests.s3_imitations import IMITATIONS, PROFILES, Answer, Ask, Asked, heedless, imitating

SIZES = [1000, 6_000_000]
"""Bytes of a file that is sent whole, and of one that is sent in parts where that is safe."""


LIMITS = Limits(part_bytes=5 << 20, copied_bytes=5 << 20)


@pytest.fixture(scope="module", params=IMITATIONS)
def imitation(request: pytest.FixtureRequest, s3_server: RunningServer) -> Iterator[str]:
    """The name of a server that the AWS settings lead to."""
    with (
        imitating(IMITATIONS[request.param], s3_server) as address,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("AWS_ENDPOINT_URL_S3", address)
        yield request.param


@pytest.fixture
def guarded(imitation: str, location: str, tmp_path: Path) -> Bucket:
    @contextmanager
    def lock(name: str) -> Iterator[None]:
        with exclusive(tmp_path / hashlib.sha256(name.encode()).hexdigest()):
            yield

    writing = Writing(lambda: PROFILES[imitation], lock)
    return Bucket(location, budget=20, limits=LIMITS, writing=writing)


def written(path: Path, size: int, seed: int) -> tuple[Path, str]:
    content = random.Random(seed).randbytes(size)
    path.write_bytes(content)
    return path, hashlib.sha256(content).hexdigest()


def test_conditions_of_small_objects_hold(guarded: Bucket) -> None:
    first = guarded.put("key", b"first", expected=ABSENT)
    assert guarded.put("key", b"first", expected=ABSENT) == first
    with pytest.raises(PreconditionError, match="another object is there") as refused:
        guarded.put("key", b"second", expected=ABSENT)
    assert refused.value.etag == first
    second = guarded.put("key", b"second", expected=first)
    with pytest.raises(PreconditionError) as refused:
        guarded.put("key", b"third", expected=first)
    assert refused.value.etag == second
    guarded.delete(["key", "never there"])
    with pytest.raises(PreconditionError, match="no longer there"):
        guarded.put("key", b"fourth", expected=second)
    assert guarded.get("key", max_bytes=10) is None


@pytest.mark.parametrize("size", SIZES)
def test_conditions_and_checksums_of_files_hold(guarded: Bucket, tmp_path: Path, size: int) -> None:
    (path, sha256), (other, other_sha256) = (
        written(tmp_path / str(seed), size, seed) for seed in (0, 1)
    )
    guarded.upload(path, "file", size=size, sha256=sha256, expected=ABSENT)
    guarded.upload(path, "file", size=size, sha256=sha256, expected=ABSENT)
    with pytest.raises(PreconditionError) as refused:
        guarded.upload(other, "file", size=size, sha256=other_sha256, expected=ABSENT)
    first = refused.value.etag
    assert first is not None
    guarded.upload(other, "file", size=size, sha256=other_sha256, expected=first)
    with pytest.raises(PreconditionError):
        guarded.upload(path, "file", size=size, sha256=sha256, expected=first)
    assert guarded.sha256("file", size=size) == other_sha256
    guarded.upload(path, "file", size=size, sha256=sha256, expected=ANY)
    guarded.copy("file", "copy")
    assert guarded.sha256("copy", size=size) == sha256
    with pytest.raises(S3Error, match=r"the file changed|has SHA-256|read back"):
        guarded.upload(other, "damaged", size=size, sha256=sha256, expected=ABSENT)
    assert guarded.stale_uploads(timedelta(0)) == []


def test_what_a_server_does_not_compare_is_read_back_and_a_later_write_is_no_damage(
    location: str, s3_server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overtaken(asked: Asked, ask: Ask) -> Answer:
        answer = heedless(asked, ask)
        if asked.is_put:
            sha256 = hashlib.sha256(b"what came later").hexdigest()
            ask(Asked("PUT", asked.target, {"x-amz-meta-sha256": sha256}, b"what came later"))
        return answer

    def damaging(asked: Asked, ask: Ask) -> Answer:
        asked.body = asked.body.upper()
        return heedless(asked, ask)

    writing = Writing(lambda: PROFILES["heedless"])
    with imitating(overtaken, s3_server) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
        bucket = Bucket(location, writing=writing)
        assert bucket.put("key", b"content", expected=ANY)
        stored = bucket.get("key", max_bytes=20)
    assert stored is not None
    assert stored.content == b"what came later"
    with imitating(damaging, s3_server) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
        with pytest.raises(DamagedObjectError, match="don't have the checksum of the object"):
            Bucket(location, writing=writing).put("key", b"content", expected=ANY)


def test_without_a_lock_a_write_that_needs_one_is_refused(
    imitation: str, location: str, tmp_path: Path
) -> None:
    path, sha256 = written(tmp_path / "file", 1000, 0)
    bucket = Bucket(location, writing=Writing(lambda: PROFILES[imitation]))
    if PROFILES[imitation].is_shared:
        bucket.upload(path, "file", size=1000, sha256=sha256, expected=ABSENT)
        return
    for write in (
        lambda: bucket.upload(path, "file", size=1000, sha256=sha256, expected=ABSENT),
        lambda: bucket.put("file", b"content", expected="0" * 32),
    ):
        with pytest.raises(S3Error, match="does not honour the conditions of writes"):
            write()
    assert bucket.head("file") is None


def test_a_file_that_can_not_be_written_safely_is_refused_before_a_request(tmp_path: Path) -> None:
    only_whole = STANDARD.model_copy(update={"complete": "ignored"})
    bucket = Bucket("s3://no-such-bucket/x", writing=Writing(lambda: only_whole))
    with pytest.raises(S3Error, match=r"CompleteMultipartUpload: make several files of it"):
        bucket.upload(
            tmp_path / "absent", "file", size=MAX_PUT_BYTES + 1, sha256="0" * 64, expected=ABSENT
        )
