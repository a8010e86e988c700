"""Ceph's S3 server with a cluster of one in memory: Debian's radosgw, ceph-mon and ceph-osd."""

import contextlib
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from infra.s3.server import settings
from tests.moto_server import listens
from tests.prefect_services import free_port
from tests.waiting import wait_for

PROGRAMS = ("radosgw", "ceph-mon", "ceph-osd")
KEYS = ("radosgw", "not-a-secret")
CONFIGURATION = """\
[global]
fsid = {fsid}
mon host = v1:127.0.0.1:{mon_port}
auth cluster required = none
auth service required = none
auth client required = none
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind msgr2 = false
osd pool default size = 1
osd pool default pg num = 8
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
run dir = {directory}
log file = {directory}/$name.log
admin socket = {directory}/$name.asok
[mon.a]
mon data = {directory}/mon
[osd.0]
osd data = {directory}/osd
osd objectstore = memstore
memstore device bytes = 2147483648
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{port}
"""


@contextlib.contextmanager
def serving(directory: Path) -> Iterator[Mapping[str, str]]:
    """Run the server, and yield the AWS settings that lead to it."""
    if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
        pytest.skip(f"not installed: apt-get install {' '.join(missing)}")
    fsid, osd, mon_port, port = str(uuid.uuid4()), str(uuid.uuid4()), free_port(), free_port()
    configuration = directory / "ceph.conf"
    configuration.write_text(
        CONFIGURATION.format(fsid=fsid, mon_port=mon_port, port=port, directory=directory)
    )
    environment = {**os.environ, "CEPH_CONF": str(configuration)}
    environment.pop("PYTHONPATH", None)  # `ceph` is a program of the system's Python

    def run(*command: str) -> None:
        subprocess.run(
            command, env=environment, check=True, capture_output=True, text=True, timeout=300
        )

    with contextlib.ExitStack() as stack:

        def start(*command: str) -> None:
            daemon = subprocess.Popen(
                [*command, "-f"],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(daemon.wait)
            stack.callback(daemon.kill)

        for name in ("mon", "osd"):
            (directory / name).mkdir()
        monitors = str(directory / "monitors")
        address = f"v1:127.0.0.1:{mon_port}"
        run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, monitors)
        run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monitors)
        start("ceph-mon", "-i", "a")
        run("ceph", "osd", "new", osd)
        run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        start("ceph-osd", "-i", "0")
        start("radosgw", "--name", "client.rgw")
        wait_for(lambda: listens(port))
        key, secret = KEYS
        names = ("--uid", "tests", "--display-name", "tests")
        run("radosgw-admin", "user", "create", *names, "--access-key", key, "--secret-key", secret)
        yield settings(port, key, secret)
