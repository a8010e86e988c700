"""Whatever befalls a request: the right result, or one clear error, and nothing in between."""

import hashlib
import itertools
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from infra.s3 import ABSENT, Bucket, Limits, PreconditionError, S3Error
from infra.s3.server import RunningServer
from tests.fault_proxy import Fault, FaultProxy, Scene, running_proxy

# The least that S3 allows for a part that is written.
PART = 5 << 20
# An answer that drips takes longer than an attempt may.
LIMITS = Limits(attempt_seconds=1, slowest_attempt=5 << 20, part_bytes=PART, copied_bytes=PART)
READ_IN_PARTS = Limits(attempt_seconds=1, part_bytes=50_000)
OLD, SMALL, MEDIUM, LARGE = (
    random.Random(size).randbytes(size) for size in (1000, 1001, 100_000, PART + 1000)
)


@pytest.fixture(scope="module")
def direct(s3_server: RunningServer, s3_bucket_name: str) -> Any:
    """The bucket as boto3 sees it, past the faults."""
    address = s3_server.environment["AWS_ENDPOINT_URL_S3"]
    return boto3.session.Session().resource("s3", endpoint_url=address).Bucket(s3_bucket_name)


@pytest.fixture(scope="module")
def proxy(s3_server: RunningServer) -> Iterator[FaultProxy]:
    with running_proxy(s3_server.port) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{proxy.port}")
        yield proxy


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def md5(content: bytes) -> str:
    """What S3 gives small objects for an ETag."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def upload(bucket: Bucket, directory: Path, content: bytes) -> None:
    path = directory / "file"
    path.write_bytes(content)
    bucket.upload(path, "key", size=len(content), sha256=sha256(content), expected=ABSENT)


def download(bucket: Bucket, directory: Path, content: bytes) -> bytes:
    path = directory / "fetched"
    bucket.download("key", path, size=len(content), sha256=sha256(content))
    return path.read_bytes()


@dataclass(frozen=True)
class Call:
    """One call, with all objects of its bucket before and afterwards, and what it returns."""

    before: dict[str, bytes]
    act: Callable[[Bucket, Path], object]
    returns: object
    after: dict[str, bytes]
    limits: Limits = LIMITS


OF_OLD = {"key": OLD}
OF_MEDIUM = {"key": MEDIUM}
OF_LARGE = {"key": LARGE}
CALLS = {
    "put": Call(
        {},
        lambda bucket, _: bucket.put("key", SMALL, expected=ABSENT),
        md5(SMALL),
        {"key": SMALL},
    ),
    "replace": Call(
        OF_OLD,
        lambda bucket, _: bucket.put("key", SMALL, expected=md5(OLD)),
        md5(SMALL),
        {"key": SMALL},
    ),
    "get": Call(OF_OLD, lambda bucket, _: bucket.get("key", max_bytes=1000).content, OLD, OF_OLD),  # type: ignore[union-attr]
    "head": Call(OF_OLD, lambda bucket, _: bucket.head("key").etag, md5(OLD), OF_OLD),  # type: ignore[union-attr]
    "list": Call(
        {"a/1": OLD, "a/2": SMALL},
        lambda bucket, _: [(entry.key, entry.size) for entry in bucket.list("a/")],
        [("a/1", 1000), ("a/2", 1001)],
        {"a/1": OLD, "a/2": SMALL},
    ),
    "delete": Call(
        {"key": OLD, "b": OLD}, lambda bucket, _: bucket.delete(["key"]), None, {"b": OLD}
    ),
    "copy": Call(OF_OLD, lambda bucket, _: bucket.copy("key", "to"), None, {"key": OLD, "to": OLD}),
    "copy-large": Call(
        OF_LARGE, lambda bucket, _: bucket.copy("key", "to"), None, {"key": LARGE, "to": LARGE}
    ),
    "upload": Call({}, lambda bucket, place: upload(bucket, place, SMALL), None, {"key": SMALL}),
    "upload-large": Call({}, lambda bucket, place: upload(bucket, place, LARGE), None, OF_LARGE),
    "download": Call(OF_OLD, lambda bucket, place: download(bucket, place, OLD), OLD, OF_OLD),
    "download-parts": Call(
        OF_MEDIUM,
        lambda bucket, place: download(bucket, place, MEDIUM),
        MEDIUM,
        OF_MEDIUM,
        READ_IN_PARTS,
    ),
    "sha256": Call(
        OF_MEDIUM,
        lambda bucket, _: bucket.sha256("key", size=len(MEDIUM)),
        sha256(MEDIUM),
        OF_MEDIUM,
        READ_IN_PARTS,
    ),
}


@dataclass
class Played:
    """A call that went through the proxy."""

    scene: Scene
    returned: object
    error: S3Error | None
    stored: dict[str, bytes]
    files: list[str]
    seconds: float


_places = itertools.count(1)


def stored_under(prefix: str, direct: Any) -> dict[str, bytes]:
    """What the server has there, by the rest of its key."""
    while True:
        try:
            return {
                found.key.removeprefix(prefix): found.get()["Body"].read()
                for found in direct.objects.filter(Prefix=prefix)
            }
        except direct.meta.client.exceptions.NoSuchKey:
            continue  # a removal that nobody waited for was carried out meanwhile


def play(
    call: Call,
    proxy: FaultProxy,
    direct: Any,
    directory: Path,
    fault: Fault | None = None,
    at: int = 0,
    *,
    lasting: bool = False,
    budget: float = 20,
) -> Played:
    name = f"fault-{next(_places)}-"
    directory = directory / name
    directory.mkdir()
    bucket = Bucket(f"s3://{direct.name}/{name}", budget=budget, limits=call.limits)
    for key, content in call.before.items():
        recorded = {"sha256": sha256(content)}
        direct.put_object(Key=f"{name}/{key}", Body=content, Metadata=recorded)
    scene = proxy.scene(name, fault, at, lasting=lasting)
    started = time.monotonic()
    returned, error = None, None
    try:
        returned = call.act(bucket, directory)
    except S3Error as raised:
        error = raised
    seconds = time.monotonic() - started
    stored = stored_under(f"{name}/", direct)
    files = [path.name for path in directory.iterdir()]
    return Played(scene, returned, error, stored, files, seconds)


@pytest.fixture(scope="module")
def requests(
    proxy: FaultProxy, direct: Any, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, int]:
    """How many requests each call makes when nothing befalls them."""
    place = tmp_path_factory.mktemp("undisturbed")
    counts = {}
    for name, call in CALLS.items():
        played = play(call, proxy, direct, place)
        assert (played.error, played.returned) == (None, call.returns), name
        assert played.stored == call.after, name
        counts[name] = len(played.scene.requests)
    return counts


def test_calls_make_few_requests(requests: dict[str, int]) -> None:
    assert requests == {
        "put": 1,
        "replace": 1,
        "get": 1,
        "head": 1,
        "list": 1,
        "delete": 1,
        "copy": 2,
        # Looked up, begun, two parts, completed.
        "copy-large": 5,
        "upload": 1,
        "upload-large": 5,
        "download": 1,
        "download-parts": 3,
        "sha256": 2,
    }


@pytest.mark.parametrize("fault", Fault)
@pytest.mark.parametrize("name", CALLS)
def test_a_fault_at_any_request_changes_nothing(
    proxy: FaultProxy,
    requests: dict[str, int],
    direct: Any,
    tmp_path: Path,
    name: str,
    fault: Fault,
) -> None:
    if (name, fault) == ("list", Fault.FLIP_ANSWER):
        pytest.skip("nothing protects a listing but the connection's own checksums")
    call = CALLS[name]

    def disturbed(at: int) -> Played:
        return play(call, proxy, direct, tmp_path, fault, at)

    with ThreadPoolExecutor(3) as pool:
        for played in pool.map(disturbed, range(requests[name])):
            assert played.error is None
            assert played.returned == call.returns
            assert played.stored == call.after
            assert played.scene.hit


@pytest.mark.parametrize("fault", Fault)
def test_a_fault_that_lasts_ends_in_one_clear_error_in_time(
    proxy: FaultProxy,
    requests: dict[str, int],
    direct: Any,
    tmp_path: Path,
    fault: Fault,
) -> None:
    # From the first request on, and at what makes a large object appear.
    cases = [*((name, 0) for name in CALLS), ("upload-large", requests["upload-large"] - 1)]

    def disturbed(case: tuple[str, int]) -> Played:
        name, at = case
        return play(CALLS[name], proxy, direct, tmp_path, fault, at, lasting=True, budget=1)

    with ThreadPoolExecutor(16) as pool:
        played = list(pool.map(disturbed, cases))
    for (name, at), one in zip(cases, played, strict=True):
        call = CALLS[name]
        # What the server did before its answer was lost stands, whole.
        assert one.stored in (call.before, call.after), (name, at)
        if one.error is None:
            # There is no body whose bits could be flipped; or what came out tells of the damage.
            assert fault is Fault.FLIP_ANSWER
            assert one.returned == call.returns or name in ("list", "sha256")
            continue
        assert not isinstance(one.error, PreconditionError)
        message = one.error.strerror
        assert message.startswith(f"s3://{direct.name}/fault-")
        assert "\n" not in message
        assert "fetched" not in one.files
        # With what a transfer gets for its size, and a tidying attempt.
        assert one.seconds < 1 + len(LARGE) / (1 << 20) + 1 + 3
