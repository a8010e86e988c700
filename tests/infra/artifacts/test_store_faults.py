"""Faults of a store's requests to S3 end in the whole artifact, or in one clear error."""

import itertools
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from artifact_examples import make_spec, read_files, write_files

from infra.artifacts import BuildOutput, Damage, resolve
from infra.artifacts.s3 import S3Store
from infra.s3 import Bucket, Limits
from infra.s3.attempts import BUDGET_SECONDS
from infra.s3.server import RunningServer
from tests.fault_proxy import Fault, FaultProxy, Injection, running_proxy
from tests.store_roots import S3Root

pytestmark = pytest.mark.slow

PART = 5 << 20
"""The smallest part that S3 allows in a multipart upload, in bytes."""
LIMITS = Limits(attempt_seconds=2, slowest_attempt=5 << 20, part_bytes=PART, copied_bytes=PART)
FILES = {
    "index.json": b"[]",
    "shards/0.bin": random.Random(0).randbytes(1000),
    "shards/1.bin": random.Random(1).randbytes(PART + 1000),
}
SPEC = make_spec()
_names = itertools.count(1)


@pytest.fixture(scope="module")
def proxy(s3_server: RunningServer) -> Iterator[FaultProxy]:
    with running_proxy(s3_server.port) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{proxy.port}")
        yield proxy


class Stage:
    """An empty store, as its hosts see it through the proxy."""

    def __init__(self, proxy: FaultProxy, server: RunningServer, directory: Path) -> None:
        self.directory = directory / f"stage-{next(_names)}"
        self.place = S3Root(self.directory, server.environment["AWS_ENDPOINT_URL_S3"])
        self._proxy = proxy

    def host(self, name: str, budget: float = BUDGET_SECONDS) -> S3Store:
        bucket = Bucket(self.place.uri, budget=budget, limits=LIMITS)
        return S3Store(bucket, self.directory / name)

    def put(self, store: S3Store) -> str:
        source = write_files(self.directory / f"source-{next(_names)}", FILES)
        return store.put(SPEC, source, stats={}, provenance={}).digest

    def inject(self, fault: Fault | None, at: int, *, lasting: bool = False) -> Injection:
        return self._proxy.inject(self.place.prefix, fault, at, lasting=lasting)


@dataclass(frozen=True)
class Operation:
    """An operation whose requests get faults."""

    prepare: Callable[[Stage], object]
    act: Callable[[Stage, S3Store], object]
    """Does it, and returns its result."""
    writes: bool = True


def nothing(stage: Stage) -> None:
    del stage


def set_ref(stage: Stage, store: S3Store) -> int:
    manifest = stage.host("reader").load(SPEC.kind, SPEC.key).manifest
    return store.refs.set("production", manifest, expected=None, reason="first").version


def fetch(stage: Stage, store: S3Store) -> dict[str, bytes]:
    del stage
    return read_files(store.load(SPEC.kind, SPEC.key))


def verify(stage: Stage, store: S3Store) -> tuple[Damage, ...]:
    del stage
    return store.verify(SPEC.kind, SPEC.key)


def lease(stage: Stage, store: S3Store) -> str:
    del stage
    with store.workspace(SPEC) as workspace:
        return workspace.name


OPERATIONS = {
    "put": Operation(nothing, lambda stage, store: stage.put(store)),
    "get": Operation(lambda stage: stage.put(stage.host("writer")), fetch, writes=False),
    "verify": Operation(lambda stage: stage.put(stage.host("writer")), verify, writes=False),
    "ref": Operation(lambda stage: stage.put(stage.host("writer")), set_ref),
    "lease": Operation(nothing, lease),
}


def played(
    name: str, stage: Stage, fault: Fault | None, at: int = 0, *, lasting: bool = False
) -> tuple[object, Injection]:
    operation = OPERATIONS[name]
    stage.inject(None, 0)
    operation.prepare(stage)
    store = stage.host("host", budget=3 if lasting else BUDGET_SECONDS)
    injection = stage.inject(fault, at, lasting=lasting)
    try:
        return operation.act(stage, store), injection
    except OSError as error:
        return error, injection


def undisturbed(stage: Stage) -> None:
    """Check that the store works for other hosts as if no fault had happened."""
    stage.inject(None, 0)
    host = stage.host("next")
    with host.workspace(SPEC):
        pass
    digest = stage.put(host)
    assert host.load(SPEC.kind, SPEC.key, level="full").digest == digest
    assert read_files(stage.host("another").load(SPEC.kind, SPEC.key)) == FILES


@pytest.fixture(scope="module")
def expected(
    proxy: FaultProxy, s3_server: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[object, int]]:
    """Name of each operation → its result without faults, and how many requests it makes."""
    results = {}
    for name in OPERATIONS:
        stage = Stage(proxy, s3_server, tmp_path_factory.mktemp("undisturbed"))
        returned, injection = played(name, stage, None)
        assert not isinstance(returned, OSError), returned
        results[name] = returned, len(injection.requests)
    return results


@pytest.fixture
def new_stage(proxy: FaultProxy, s3_server: RunningServer, tmp_path: Path) -> Callable[[], Stage]:
    return lambda: Stage(proxy, s3_server, tmp_path)


@pytest.mark.parametrize(
    "every",
    [
        # 37 has no factor in common with the number of faults, so each is tried at some requests.
        pytest.param(37, id="some cases"),
        pytest.param(1, id="every case", marks=pytest.mark.long),
    ],
)
def test_a_fault_at_a_request_changes_nothing(every, expected, new_stage):
    def check(case: tuple[str, int, Fault]) -> None:
        name, at, fault = case
        stage = new_stage()
        returned, injection = played(name, stage, fault, at)
        assert returned == expected[name][0], (case, returned)
        assert injection.hit, case
        if name == "put":
            assert [manifest.key for manifest in stage.host("next").list()] == [SPEC.key], case
        if OPERATIONS[name].writes:
            undisturbed(stage)

    cases = [
        (name, at, fault)
        for name in OPERATIONS
        for at in range(expected[name][1])
        for fault in Fault
    ]
    # Several at a time, because most of them wait.
    with ThreadPoolExecutor(5) as pool:
        assert list(pool.map(check, cases[::every]))


def test_a_server_that_is_gone_for_good_ends_in_one_clear_error_and_no_half_artifact(
    expected, new_stage
):
    def check(fault: Fault, at: int) -> None:
        stage = new_stage()
        began = time.monotonic()
        returned, _ = played("put", stage, fault, at, lasting=True)
        if isinstance(returned, OSError):
            assert str(returned).count("\n") == 0
            assert stage.place.uri in str(returned)
        else:
            # All that failed came after the commit.
            stage.inject(None, 0)
            assert returned == expected["put"][0]
            assert len(list(stage.host("next").addresses())) == 1
        # Several calls with a budget each, the heartbeat's last word, and the transfer's time.
        assert time.monotonic() - began < 60
        stage.inject(None, 0)
        direct = stage.host("direct")
        assert all(direct.verify(*address) == () for address in direct.addresses())
        undisturbed(stage)

    # The lease, the files, the manifest.
    points = (0, expected["put"][1] // 2, expected["put"][1] - 4)
    cases = list(itertools.product((Fault.RESET_BEFORE, Fault.RESET_AFTER, Fault.STALL), points))
    with ThreadPoolExecutor(len(cases)) as pool:
        assert list(pool.map(check, *zip(*cases, strict=True)))


def test_what_s3_did_not_take_is_committed_by_the_next_try_without_a_build(new_stage):
    stage = new_stage()
    store, healthy = stage.host("host", budget=1), stage.host("host")
    # A large file would get more time than the budget.
    files = {"index.json": b"[]", "shards/0.bin": b"small"}

    def build(workspace: Path) -> BuildOutput:
        output = write_files(workspace / "out", files)
        stage.inject(Fault.RESET_BEFORE, 0, lasting=True)
        return BuildOutput(output, stats={}, provenance={})

    def build_again(workspace: Path) -> BuildOutput:
        raise AssertionError(workspace)

    # Its client is made before the fault: on a busy machine that alone can use up the budget.
    assert list(store.addresses()) == []
    with pytest.raises(OSError, match=stage.place.uri):
        resolve(store, SPEC, build)
    stage.inject(None, 0)
    assert list(healthy.addresses()) == []
    resolution = resolve(healthy, SPEC, build_again)
    assert resolution.status == "built"
    assert read_files(resolution.artifact) == files
    assert read_files(stage.host("another").load(SPEC.kind, SPEC.key)) == files
