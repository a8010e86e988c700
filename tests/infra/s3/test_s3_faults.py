"""A fault at any request: the call still succeeds, or ends with one clear error."""

import hashlib
import itertools
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import boto3
import pytest

from infra.s3 import ABSENT, STANDARD, Bucket, Limits, PreconditionError, Prefix, S3Error
from infra.s3.attempts import BUDGET_SECONDS
from infra.s3.server import RunningServer
from tests.fault_proxy import Fault, FaultProxy, Injection, running_proxy

# The smallest part that S3 lets us write.
PART = 5 << 20
# An answer that arrives byte by byte takes longer than these attempts may.
LIMITS = Limits(attempt_seconds=1, slowest_attempt=5 << 20, part_bytes=PART, copied_bytes=PART)
READ_IN_PARTS = Limits(attempt_seconds=1, part_bytes=50_000)
OLD, SMALL, MEDIUM, LARGE = (
    random.Random(size).randbytes(size) for size in (1000, 1001, 100_000, PART + 1000)
)


@pytest.fixture(scope="module")
def direct(s3_server: RunningServer, s3_bucket_name: str) -> Any:
    """The bucket without the proxy."""
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
    """Return the ETag that S3 gives to small objects."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def upload(bucket: Bucket, directory: Path, content: bytes) -> None:
    path = directory / "file"
    path.write_bytes(content)
    bucket.upload(path, "key", size=len(content), sha256=sha256(content), expected=ABSENT)


def download(bucket: Bucket, directory: Path, content: bytes) -> bytes:
    path = directory / "fetched"
    fetched: list[int] = []
    options = {"size": len(content), "sha256": sha256(content)}
    bucket.download("key", path, **options, count=fetched.append)
    assert sum(fetched) == len(content)
    return path.read_bytes()


@dataclass(frozen=True)
class Call:
    """A call, its result, and all objects of the bucket before and after it."""

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
    "upload": Call({}, lambda bucket, tmp: upload(bucket, tmp, SMALL), None, {"key": SMALL}),
    "upload-large": Call({}, lambda bucket, tmp: upload(bucket, tmp, LARGE), None, OF_LARGE),
    "download": Call(OF_OLD, lambda bucket, tmp: download(bucket, tmp, OLD), OLD, OF_OLD),
    "download-parts": Call(
        OF_MEDIUM,
        lambda bucket, tmp: download(bucket, tmp, MEDIUM),
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
class Outcome:
    """The result of a call through the proxy, and what it left on the server and on the disk."""

    injection: Injection
    returned: object
    error: S3Error | None
    stored: dict[str, bytes]
    files: list[str]
    seconds: float


_numbers = itertools.count(1)


def stored_under(prefix: str, direct: Any) -> dict[str, bytes]:
    """Return all objects under the prefix, by the rest of their keys."""
    while True:
        try:
            return {
                found.key.removeprefix(prefix): found.get()["Body"].read()
                for found in direct.objects.filter(Prefix=prefix)
            }
        except direct.meta.client.exceptions.NoSuchKey:
            continue  # an earlier deletion that timed out took effect meanwhile


def make(
    call: Call,
    proxy: FaultProxy,
    direct: Any,
    directory: Path,
    fault: Fault | None = None,
    at: int = 0,
    *,
    lasting: bool = False,
    budget: float = BUDGET_SECONDS,
) -> Outcome:
    """Make a call in a new directory of the bucket, with a fault at one of its requests."""
    name = f"fault-{next(_numbers)}-"
    directory = directory / name
    directory.mkdir()
    bucket = Bucket(f"s3://{direct.name}/{name}", budget=budget, limits=call.limits)
    for key, content in call.before.items():
        metadata = {"sha256": sha256(content)}
        direct.put_object(Key=f"{name}/{key}", Body=content, Metadata=metadata)
    injection = proxy.inject(name, fault, at, lasting=lasting)
    started = time.monotonic()
    returned, error = None, None
    try:
        returned = call.act(bucket, directory)
    except S3Error as raised:
        error = raised
    seconds = time.monotonic() - started
    stored = stored_under(f"{name}/", direct)
    files = [path.name for path in directory.iterdir()]
    return Outcome(injection, returned, error, stored, files, seconds)


@pytest.fixture(scope="module")
def num_requests(
    proxy: FaultProxy, direct: Any, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, int]:
    """The number of requests of each call without a fault."""
    directory = tmp_path_factory.mktemp("undisturbed")
    counts = {}
    for name, call in CALLS.items():
        outcome = make(call, proxy, direct, directory)
        assert (outcome.error, outcome.returned) == (None, call.returns), name
        assert outcome.stored == call.after, name
        counts[name] = len(outcome.injection.requests)
    return counts


def test_calls_make_few_requests(num_requests: dict[str, int]) -> None:
    assert num_requests == {
        "put": 1,
        "replace": 1,
        "get": 1,
        "head": 1,
        "list": 1,
        "delete": 1,
        "copy": 2,
        # Look-up, creation, two parts, completion.
        "copy-large": 5,
        "upload": 1,
        "upload-large": 5,
        "download": 1,
        "download-parts": 3,
        "sha256": 2,
    }


@dataclass(frozen=True)
class Case:
    """A fault at one request of a call, or at all requests from that one on."""

    name: str
    at: int
    fault: Fault


def outcomes_of(
    cases: list[Case], disturb: Callable[[Case], Outcome], threads: int
) -> Iterator[tuple[Case, Outcome]]:
    """Disturb several calls at a time, because most of them wait; return the outcome of each."""
    with ThreadPoolExecutor(threads) as pool:
        return zip(cases, list(pool.map(disturb, cases)), strict=True)


# 7 has no factor in common with the number of faults, so each is tried at many requests.
SOME_OR_ALL = pytest.mark.parametrize(
    "every",
    [
        pytest.param(7, id="every seventh case", marks=pytest.mark.slow),
        pytest.param(1, id="every case", marks=pytest.mark.long),
    ],
)


@SOME_OR_ALL
def test_a_fault_at_a_request_changes_nothing(
    proxy: FaultProxy, num_requests: dict[str, int], direct: Any, tmp_path: Path, every: int
) -> None:
    cases = [
        Case(name, at, fault)
        for name in CALLS
        for at in range(num_requests[name])
        for fault in Fault
        # Only the connection's own checksums protect a listing.
        if (name, fault) != ("list", Fault.FLIP_ANSWER)
    ][::every]

    def disturb(case: Case) -> Outcome:
        return make(CALLS[case.name], proxy, direct, tmp_path, case.fault, case.at)

    for case, outcome in outcomes_of(cases, disturb, threads=6):
        assert outcome.error is None, case
        assert outcome.returned == CALLS[case.name].returns, case
        assert outcome.stored == CALLS[case.name].after, case
        assert outcome.injection.hit, case


def test_an_endpoint_that_answers_https_with_http_is_refused_soon_with_the_cure(
    s3_server: RunningServer, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"https://127.0.0.1:{s3_server.port}")
    for work in (lambda: Bucket(location).check(), lambda: Prefix(location)):
        began = time.monotonic()
        with pytest.raises(S3Error, match="does not speak https on this port: write http://") as e:
            work()
        assert "AWS_CA_BUNDLE" not in e.value.strerror
        assert time.monotonic() - began < BUDGET_SECONDS / 2


@pytest.mark.parametrize(
    "every",
    [
        # 13 has no factor in common with the number of faults.
        pytest.param(13 * 13, id="a few cases", marks=pytest.mark.slow),
        pytest.param(7, id="every seventh case", marks=pytest.mark.long),
    ],
)
def test_a_fault_at_a_request_does_not_change_what_is_probed(every, proxy, direct, tmp_path):
    limits = replace(LIMITS, attempt_seconds=3)
    probing = Call({}, lambda bucket, _: bucket.probe(), STANDARD, {}, limits)
    whole = make(probing, proxy, direct, tmp_path)
    assert whole.returned == STANDARD
    cases = list(itertools.product(range(len(whole.injection.requests)), Fault))

    def check(case: tuple[int, Fault]) -> None:
        at, fault = case
        outcome = make(probing, proxy, direct, tmp_path, fault, at)
        assert (outcome.error, outcome.returned) == (None, STANDARD), case

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(check, cases[::every]))


@SOME_OR_ALL
def test_a_lasting_fault_ends_in_one_clear_error_in_time(
    proxy: FaultProxy, num_requests: dict[str, int], direct: Any, tmp_path: Path, every: int
) -> None:
    # From the request that makes a large object appear, or from the first request.
    points = [("upload-large", num_requests["upload-large"] - 1), *((name, 0) for name in CALLS)]
    cases = [Case(name, at, fault) for name, at in points for fault in Fault][::every]

    def disturb(case: Case) -> Outcome:
        call = CALLS[case.name]
        return make(call, proxy, direct, tmp_path, case.fault, case.at, lasting=True, budget=1)

    for case, outcome in outcomes_of(cases, disturb, threads=16):
        call = CALLS[case.name]
        # The server may have acted before its answer was lost, but then completely.
        assert outcome.stored in (call.before, call.after), case
        if outcome.error is None:
            # The answer has no body to flip a bit in, or the result shows the damage.
            assert case.fault is Fault.FLIP_ANSWER, case
            assert outcome.returned == call.returns or case.name in ("list", "sha256"), case
            continue
        assert not isinstance(outcome.error, PreconditionError), case
        message = outcome.error.strerror
        assert message.startswith(f"s3://{direct.name}/fault-"), case
        assert "\n" not in message, case
        assert "fetched" not in outcome.files, case
        assert outcome.seconds < 60, case  # some faults would last for hours
