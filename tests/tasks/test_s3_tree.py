"""A source on S3 gives the data set of its local copy, despite bad connections to a real server."""

import contextlib
import io
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from infra.s3 import DamagedObjectError, Prefix
from infra.s3.server import RunningServer
from sknet.data.conversion.conversion import write_shards
from sknet.data.sources import Sample, open_source
from sknet.data.staging import stage_source
from tasks.s3_tree import S3Tree
from tests.fault_proxy import Fault, running_proxy
from tests.imagenet import write_archives, write_folders
from tests.refusals import refusal
from tests.s3_imitations import IMITATIONS, imitating

BUCKET = "images"


@pytest.fixture(scope="module")
def uploaded(s3_server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The miniature of ImageNet below s3://images/archives and s3://images/data/folders."""
    root = tmp_path_factory.mktemp("imagenet")
    forms = {
        "archives": write_archives(root / "archives"),
        "data/folders": write_folders(root / "folders"),
    }
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    for prefix, form in forms.items():
        for path in form.rglob("*"):
            if path.is_file():
                key = f"{prefix}/{path.relative_to(form)}"
                client.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())
    client.put_object(Bucket=BUCKET, Key="data/folders/train/", Body=b"")
    client.put_object(Bucket=BUCKET, Key="data/folders-of-others/train/cat/1.png", Body=b"x")
    return forms


@pytest.mark.parametrize("prefix", ["archives", "data/folders", "data/folders/"])
def test_the_data_set_is_that_of_the_local_copy(uploaded: dict[str, Path], prefix: str) -> None:
    source = open_source(f"s3://{BUCKET}/{prefix}")
    local = stage_source(open_source(str(uploaded[prefix.rstrip("/")])))
    staged = stage_source(source)
    assert staged.dataset == local.dataset
    for row in list(staged.index.itertuples(index=False))[::7]:
        sample = Sample(*row)
        assert source.read(sample) == open_source(str(uploaded[prefix.rstrip("/")])).read(sample)


def test_a_flipped_bit_is_noticed_and_the_object_read_again(
    uploaded: dict[str, Path], s3_server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_proxy(s3_server.port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{proxy.port}")
        prefix = Prefix(f"s3://{BUCKET}/archives")
        (archive,) = uploaded["archives"].glob("*val.tar")
        proxy.inject(archive.name, Fault.FLIP_ANSWER, 0)
        assert prefix.read(archive.name) == archive.read_bytes()
        proxy.inject(archive.name, Fault.FLIP_ANSWER, 0, lasting=True)
        with pytest.raises(DamagedObjectError, match="checksum"):
            prefix.read(archive.name)
        with pytest.raises(DamagedObjectError, match="checksum"), prefix.open(archive.name) as file:
            shutil.copyfileobj(file, io.BytesIO())


def test_a_server_that_refuses_to_be_asked_for_checksums_is_read(
    uploaded: dict[str, Path], s3_server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with imitating(IMITATIONS["B2"], s3_server) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
        source = open_source(f"s3://{BUCKET}/data/folders")
        local = open_source(str(uploaded["data/folders"]))
        assert stage_source(source).dataset == stage_source(local).dataset


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("s3://no-such-bucket/x", "NoSuchBucket"),
        ("s3://", "is not an S3 location, expected s3://bucket/prefix"),
        (f"s3://{BUCKET}/nothing", "has none of the known forms"),
    ],
)
def test_a_location_without_data_is_refused(
    uploaded: dict[str, Path], uri: str, reason: str
) -> None:
    assert reason in refusal(lambda: open_source(uri))


def test_wrong_credentials_are_refused_and_not_shown(
    uploaded: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-right-one")
    message = refusal(lambda: open_source(f"s3://{BUCKET}/archives"))
    assert "SignatureDoesNotMatch" in message
    assert "not-the-right-one" not in message


def test_a_missing_object_is_reported(uploaded: dict[str, Path]) -> None:
    tree = S3Tree(f"s3://{BUCKET}/archives")
    assert tree.file("nothing") is None
    with pytest.raises(OSError, match="NoSuchKey"):
        tree.read("nothing")


def test_only_the_bytes_of_an_image_are_read_from_an_archive(uploaded: dict[str, Path]) -> None:
    prefix = Prefix(f"s3://{BUCKET}/archives")
    asked: list[str] = []
    prefix._client.meta.events.register(
        "before-send.s3.GetObject",
        lambda request, **_: asked.append(request.headers["Range"].decode()),
    )
    name = "ILSVRC2012_img_train.tar"
    archive = (uploaded["archives"] / name).read_bytes()
    assert prefix.read(name, 2048, 700) == archive[2048:2748]
    assert prefix.read(name, len(archive) - 10, 700) == archive[-10:]
    assert prefix.read(name, len(archive), 700) == b""
    assert asked == [f"bytes={at}-{at + 699}" for at in (2048, len(archive) - 10, len(archive))]


class CuttingProxy:
    """Forwards what a server sends, and cuts each connection after so many bytes."""

    def __init__(self, target: int, limit: int) -> None:
        self._target, self._limit = target, limit
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.cuts = 0
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for one in self._sockets:
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            self._sockets += [client, server]
            for way in ((client, server, None), (server, client, self._limit)):
                self._threads.append(threading.Thread(target=self._copy, args=way))
                self._threads[-1].start()

    def _copy(self, source: socket.socket, sink: socket.socket, limit: int | None) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while content := source.recv(1 << 14):
                if limit is not None and passed + len(content) > limit:
                    sink.sendall(content[: limit - passed])
                    self.cuts += 1
                    break
                sink.sendall(content)
                passed += len(content)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def cutting(s3_server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[CuttingProxy]:
    proxy = CuttingProxy(s3_server.port, limit=200_000)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{proxy.port}")
    yield proxy
    proxy.close()


def test_reading_resumes_where_a_connection_broke(
    uploaded: dict[str, Path], cutting: CuttingProxy
) -> None:
    archive = uploaded["archives"] / "ILSVRC2012_img_train.tar"
    assert archive.stat().st_size > 3 * 200_000
    with S3Tree(f"s3://{BUCKET}/archives").open(archive.name) as file:
        assert file.read() == archive.read_bytes()
    assert cutting.cuts >= 3


def test_an_object_that_is_replaced_while_it_is_read_is_an_error(
    uploaded: dict[str, Path], cutting: CuttingProxy, s3_server: RunningServer
) -> None:
    direct = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{s3_server.port}")
    direct.put_object(Bucket=BUCKET, Key="archives/changing", Body=b"a" * 4_000_000)
    with S3Tree(f"s3://{BUCKET}/archives").open("changing") as file:
        assert file.read(10) == b"a" * 10
        direct.put_object(Bucket=BUCKET, Key="archives/changing", Body=b"b" * 4_000_000)
        with pytest.raises(OSError, match="PreconditionFailed"):
            file.read()


@pytest.mark.long
def test_archives_on_s3_are_converted_to_the_shards_of_the_local_ones(
    uploaded: dict[str, Path], tmp_path: Path
) -> None:
    """The program's worker processes read ranges of the archives on S3."""
    from_s3, from_disk = tmp_path / "s3", tmp_path / "local"
    options = ["--source", f"s3://{BUCKET}/archives", "--out", from_s3, "--shards", 2]
    command = [sys.executable, "-m", "sknet.convert", *map(str, options), "--workers", "2"]
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
    archives = str(uploaded["archives"])
    from_disk.mkdir()
    write_shards(stage_source(open_source(archives)), archives, from_disk, num_shards=2)
    written = [
        {path.name: path.read_bytes() for path in directory.iterdir()}
        for directory in (from_s3, from_disk)
    ]
    assert written[0] == written[1]
    assert len(written[0]) == 9
