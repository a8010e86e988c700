"""Single files of a store on S3, brought to a host on demand."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from artifact_examples import make_spec, write_files

from infra.artifacts import Artifact, DamagedArtifactError
from infra.base.on_demand import Demands, SupplyError
from infra.s3.server import RunningServer
from tests.fault_proxy import FaultProxy, running_proxy
from tests.store_roots import S3Root

NAMES = ("one", "other", "third")


@pytest.fixture
def proxy(s3_server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    with running_proxy(s3_server.port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{proxy.port}")
        yield proxy


@pytest.fixture
def root(proxy: FaultProxy, tmp_path: Path) -> S3Root:
    return S3Root(tmp_path / "hosts")


@pytest.fixture
def stored(root: S3Root, tmp_path: Path) -> Artifact:
    """Three files, of which this host has none."""
    files = {name: name.encode() * 10 for name in NAMES}
    source = write_files(tmp_path / "source", files)
    root.host("builder").put(make_spec(), source, stats={}, provenance={})
    return root.host("reader").load(*address())


def address() -> tuple[str, str]:
    spec = make_spec()
    return spec.kind, spec.key


def in_store(name: str) -> str:
    return "/".join([*address(), name])


def test_a_file_comes_when_it_is_demanded_and_once_for_the_cache_and_the_directory(
    proxy: FaultProxy, root: S3Root, stored: Artifact, tmp_path: Path
) -> None:
    counted = {name: proxy.inject(in_store(name)) for name in NAMES}
    stored.path("one")
    assert stored.supplier is not None
    with stored.supplier(tmp_path / "files", ["other"]):
        demands = Demands(tmp_path / "files")
        with demands.holding(["one", "other"]):
            for name in ("one", "other"):
                assert (tmp_path / "files" / name).read_bytes() == name.encode() * 10
    # The first one was in the cache, and the other one is there from now on.
    stored.path("other")
    assert {name: len(each.requests) for name, each in counted.items()} == {
        "one": 1,
        "other": 1,
        "third": 0,
    }
    with stored.supplier(tmp_path / "files", []), Demands(tmp_path / "files").holding(["third"]):
        pass
    stored.path("third")
    assert len(counted["third"].requests) == 2


def test_a_damaged_file_and_a_missing_one_are_named_in_one_line(
    root: S3Root, stored: Artifact, tmp_path: Path
) -> None:
    root.rot(in_store("one"), b"ONE" * 10)
    root.remove(in_store("other"))
    assert stored.supplier is not None
    for name in ("one", "other"):
        with stored.supplier(tmp_path / "files", []) as supplier:
            with (
                pytest.raises(SupplyError) as caught,
                Demands(tmp_path / "files").holding([name]),
            ):
                pass
            assert type(supplier.failure) is DamagedArtifactError
            assert in_store(name) in str(caught.value)
            assert "\n" not in str(caught.value)
