from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from infra.artifacts import ArtifactStore, LocalStore, open_store
from infra.s3 import STANDARD, Profile
from tests import moto_server
from tests import radosgw as ceph
from tests.s3_imitations import IMITATIONS, PROFILES, imitating
from tests.store_roots import LocalRoot, S3Root, StoreRoot

MOTO = STANDARD.model_copy(update={"complete": "ignored", "put_sum": "none", "part_sum": "none"})
"""What the probe finds moto's server to do."""


@pytest.fixture
def other(store_root: StoreRoot) -> ArtifactStore:
    """The same store, as another host opens it."""
    return store_root.host("other")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    opened = open_store(str(tmp_path / "store"))
    assert isinstance(opened, LocalStore)
    return opened


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """The AWS settings that lead to moto's server."""
    with moto_server.serving(tmp_path_factory.mktemp("moto") / "log") as settings:
        yield settings


@pytest.fixture(scope="session")
def radosgw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """The AWS settings that lead to Ceph's server."""
    with ceph.serving(tmp_path_factory.mktemp("ceph")) as settings:
        yield settings


REAL = {"moto": MOTO, "radosgw": PROFILES["Ceph"]}
"""Name of the fixture of another real server → what the probe finds it to do."""
SERVERS = [*IMITATIONS, *REAL]


@pytest.fixture(params=REAL)
def real_server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Profile:
    """What the real server does to which the AWS settings lead."""
    for name, value in request.getfixturevalue(request.param).items():
        monkeypatch.setenv(name, value)
    return REAL[request.param]


@pytest.fixture(params=["local", "s3", *(pytest.param(s, marks=pytest.mark.long) for s in SERVERS)])
def store_root(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[StoreRoot]:
    """Of an empty store in a directory, then in buckets of servers that differ."""
    if request.param == "local":
        yield LocalRoot(tmp_path / "store")
    elif request.param in REAL:
        for name, value in request.getfixturevalue(request.param).items():
            monkeypatch.setenv(name, value)
        yield S3Root(tmp_path / "hosts", profile=REAL[request.param])
    else:
        server = request.getfixturevalue("s3_server")
        if request.param == "s3":
            yield S3Root(tmp_path / "hosts")
            return
        with imitating(IMITATIONS[request.param], server) as address:
            monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
            direct = server.environment["AWS_ENDPOINT_URL_S3"]
            yield S3Root(tmp_path / "hosts", direct, PROFILES[request.param])
