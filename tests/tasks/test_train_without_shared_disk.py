"""Hosts that share nothing but an S3 server train to the bytes of ranks on one host.

Each host has directories of its own and its own way to the server, which counts what it fetches
(`tests/private_hosts.py`). Measured figures are printed: pytest -s.
"""

import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from infra.artifacts.partial_builds import UploadedParts
from infra.base.on_demand import LIMIT_VARIABLE
from infra.s3.server import RunningServer
from tests.fault_proxy import Fault, Injection
from tests.private_hosts import CACHE, PrivateHost
from tests.private_training import (
    Data,
    PrivateCluster,
    PrivateTraining,
    checkpoints,
    losses,
    metrics,
    paths_got,
    private_cluster,
)
from tests.processes import ROOT
from tests.store_roots import S3Root
from tests.tiny_pipeline import Trained, copy_shards, digests, write_images, write_recipe
from tests.waiting import HANG_SECONDS

pytestmark = pytest.mark.alone

BLOCKS = "shuffle: blocks\nshuffle_parts: {}\nshuffle_window: {}\n"
TRAIN, VAL = "/train-0", "/val-0"
"""In the paths of shards of a split, and of nothing else."""
SIDE = 512
"""Of the images of long tests: noise, which nothing compresses."""
NUM_SHARDS = 12
"""Of each split, in long tests; a shard has 4 training samples."""
SHARD_BYTES = 4_300_000
"""At most, with its index."""
LINK = 8 * 6_000_000
"""Bits per second of the server, at which the data of a step takes longer than its computation."""
SLOW_LINK = LINK // 3
FIRST_STEP_SECONDS = 10.0
"""Longest time that ranks may wait longer for their first batch."""
OUTAGE_SECONDS = 25.0
"""Longer than an attempt of the S3 client, and less than it tries in all."""
FETCH = """
import sys
from infra.artifacts import open_store
store = open_store(sys.argv[1])
for manifest in store.list("shards"):
    store.load("shards", manifest.key).directory
"""


@pytest.fixture
def root(s3_server: RunningServer, tmp_path: Path) -> S3Root:
    return S3Root(tmp_path / "hosts")


@contextmanager
def training_here(data: Data, store: Path, ranks: int) -> Iterator[None]:
    """Train on this machine, beside the body of the context, to which it is compared."""
    copy_shards(data.store, store)
    log = store.with_suffix(".log")
    with log.open("w") as out:
        process = subprocess.Popen(data.command(store, ranks), cwd=ROOT, stdout=out, stderr=out)
    try:
        yield
        assert process.wait(HANG_SECONDS) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def test_two_hosts_fetch_their_own_shards_and_train_like_one(
    trained: Trained, root: S3Root, s3_server: RunningServer, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", BLOCKS.format(2, 12), epochs=1)
    data = Data(recipe, trained.images, trained.store, num_shards=4)
    data.push(root)
    with training_here(data, tmp_path / "one", 2), private_cluster(s3_server, 2) as cluster:
        got = cluster.count(TRAIN)
        training = PrivateTraining(cluster, data, root.uri, 2, tmp_path / "flow.log")
        # What comes after the training is the same as elsewhere, and ends with the hosts.
        training.wait_for(lambda: checkpoints(root.uri))
        for number, host in enumerate(training.hosts_in_order()):
            own = data.files_of_host(number, 2, epoch=0)
            assert sorted(paths_got(got[host])) == sorted(own)
        assert not got[cluster.head].requests
    training.process.wait(HANG_SECONDS)
    assert checkpoints(root.uri) == checkpoints(tmp_path / "one")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of images of 0.8 MB each."""
    return write_images(tmp_path_factory.mktemp("large"), SIDE)


@pytest.fixture(scope="module")
def for_two(large: Path, tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Shards, and a finished training on two ranks of this machine."""
    return trained_here(large, tmp_path_factory.mktemp("two"), ranks=2)


@pytest.fixture(scope="module")
def for_four(large: Path, tmp_path_factory: pytest.TempPathFactory) -> Data:
    """The same with four ranks."""
    return trained_here(large, tmp_path_factory.mktemp("four"), ranks=4)


def trained_here(images: Path, directory: Path, ranks: int) -> Data:
    recipe = write_recipe(directory / "tiny.yaml", BLOCKS.format(ranks, 4))
    data = Data(recipe, images, directory / "store", NUM_SHARDS)
    command = data.command(data.store, ranks)
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return data


@contextmanager
def shards_held(hosts: list[PrivateHost]) -> Iterator[dict[PrivateHost, int]]:
    """Yield the most bytes of shards on demand that each host had, once the context has ended."""
    most = dict.fromkeys(hosts, 0)
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            for host in hosts:
                held = 0
                for path in host.at(CACHE / "hosts").glob("*/*/shards/*.mindrecord*"):
                    with suppress(FileNotFoundError):  # removed meanwhile
                        held += path.stat().st_size
                most[host] = max(most[host], held)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        ended.set()
        thread.join()


@pytest.mark.long
@pytest.mark.parametrize("num_hosts", [1, 2, 4])
def test_the_number_of_hosts_changes_no_byte(
    num_hosts: int, for_four: Data, root: S3Root, s3_server: RunningServer, tmp_path: Path
) -> None:
    for_four.push(root)
    with private_cluster(s3_server, num_hosts, num_cpus=4 // num_hosts) as cluster:
        train, val = cluster.count(TRAIN), cluster.count(VAL)
        training = PrivateTraining(cluster, for_four, root.uri, 4, tmp_path / "flow.log")
        training.finish()
        sizes = for_four.sizes("train")
        for number, host in enumerate(training.hosts_in_order()):
            epochs = [for_four.files_of_host(number, num_hosts, epoch) for epoch in (0, 1)]
            part = sum(sizes[name] for epoch in epochs for name in epoch)
            print(
                f"host {number + 1} of {num_hosts}: {train[host].num_bytes / 1e6:.1f} MB of "
                f"training shards, its part of two epochs is {part / 1e6:.1f}; "
                f"{val[host].num_bytes / 1e6:.1f} MB of validation shards"
            )
            assert {*paths_got(train[host])} == set.union(*epochs)
            assert train[host].num_bytes <= 1.05 * part
        assert not train[cluster.head].requests
    assert losses(root.uri) == losses(for_four.store)
    assert digests(root.uri) == digests(for_four.store)


def newest_uploaded(root: S3Root) -> str:
    """Return the name of the newest checkpoint that a training under way has uploaded, or ""."""
    for path in root.paths(".work/checkpoint/"):
        if path.endswith("/kept.json"):
            return UploadedParts.decode(root.read(path)).newest
    return ""


@pytest.mark.long
@pytest.mark.parametrize("number", [0, 1])
def test_a_lost_host_is_replaced_by_an_empty_one(
    number: int, for_two: Data, root: S3Root, s3_server: RunningServer, tmp_path: Path
) -> None:
    for_two.push(root)
    with private_cluster(s3_server, 2) as cluster:
        cluster.network.limit_server(LINK)
        log = tmp_path / "flow.log"
        training = PrivateTraining(cluster, for_two, root.uri, 2, log, "--wait-for-hosts", "120")
        training.wait_for(lambda: newest_uploaded(root))
        lost = training.hosts_in_order()[number]
        began = time.monotonic()
        cluster.replace(lost)
        training.finish()
        print(f"host {number + 1} of 2 lost: done {time.monotonic() - began:.1f} s after it")
        assert "Retry 1/3" in training.output()
        (step,) = re.findall(r"resuming from step-(\d+): ", training.output())
        assert 0 < int(step) < 12
    assert digests(root.uri) == digests(for_two.store)


def room_for_three_shards(data: Data) -> int:
    """Return the bytes of the validation split, which stays, and of three training shards."""
    return sum(data.sizes("val").values()) + 3 * SHARD_BYTES


@pytest.mark.long
def test_on_a_slow_link_the_first_step_comes_as_soon_as_with_cached_shards(
    for_two: Data, s3_server: RunningServer, tmp_path: Path
) -> None:
    # Without a limit, all of the little data would come while the graph is compiled.
    environment = {LIMIT_VARIABLE: f"{room_for_three_shards(for_two) / 1e9:.9f}"}
    roots = {name: S3Root(tmp_path / name) for name in ("cached", "fetched")}
    seconds, waiting, num_bytes = {}, {}, {}
    for root in roots.values():
        for_two.push(root)
    with private_cluster(s3_server, 2, environment) as cluster:
        for host in cluster.workers:
            command = (sys.executable, "-c", FETCH, roots["cached"].uri)
            assert cluster.start_on(host, *command).wait(HANG_SECONDS) == 0
        cluster.network.limit_server(LINK)
        for name, root in roots.items():
            got = cluster.count(TRAIN)
            training = PrivateTraining(cluster, for_two, root.uri, 2, tmp_path / f"{name}.log")
            training.finish()
            assert digests(root.uri) == digests(for_two.store)
            (first,), (end,) = (metrics(root.uri, kind) for kind in ("compile", "end"))
            seconds[name], waiting[name] = first["first_batch_seconds"], end["data_wait_share"]
            num_bytes[name] = sum(each.num_bytes for each in got.values())
            print(
                f"shards {name}: {seconds[name]:.1f} s of waiting for the first batch, later "
                f"{waiting[name]:.0%} of the time, {num_bytes[name] / 1e6:.1f} MB came"
            )
            for host in cluster.workers:
                shutil.rmtree(host.at(CACHE / "artifacts"))
    assert num_bytes["cached"] == 0
    assert waiting["cached"] < waiting["fetched"]
    assert seconds["fetched"] <= seconds["cached"] + FIRST_STEP_SECONDS


@pytest.mark.long
def test_what_comes_on_demand_stays_within_its_limit(
    for_two: Data, root: S3Root, s3_server: RunningServer, tmp_path: Path
) -> None:
    for_two.push(root)
    limit, train = room_for_three_shards(for_two), for_two.sizes("train")
    # Beside them: compiled graphs, checkpoints and logs.
    disk = limit + (20 << 20)
    read = set.union(*(for_two.files_of_host(0, 2, epoch) for epoch in (0, 1)))
    assert disk < sum(for_two.sizes("val").values()) + sum(train[name] for name in read)
    environment = {LIMIT_VARIABLE: f"{limit / 1e9:.9f}"}
    with private_cluster(s3_server, 2, environment, cache_megabytes=disk >> 20) as cluster:
        training = PrivateTraining(cluster, for_two, root.uri, 2, tmp_path / "flow.log")
        with shards_held(cluster.workers) as held:
            training.finish()
    for num_bytes in held.values():
        print(
            f"at most {num_bytes / 1e6:.1f} MB of shards at a time; {limit / 1e6:.1f} are allowed"
        )
        assert 0 < num_bytes <= limit
    assert digests(root.uri) == digests(for_two.store)


def slow(cluster: PrivateCluster, host: PrivateHost) -> Injection:
    cluster.network.limit_server(SLOW_LINK)
    return cluster.network.proxy(host).inject(TRAIN)


def dead(cluster: PrivateCluster, host: PrivateHost) -> Injection:
    with cluster.network.refusing(host):
        time.sleep(OUTAGE_SECONDS)
    return cluster.network.proxy(host).inject(TRAIN)


def lying(cluster: PrivateCluster, host: PrivateHost) -> Injection:
    return cluster.network.proxy(host).inject(TRAIN, Fault.FLIP_ANSWER)


@pytest.mark.long
@pytest.mark.parametrize("fault", [slow, dead, lying])
def test_a_fault_of_the_server_in_the_middle_changes_no_byte(
    fault: Callable[[PrivateCluster, PrivateHost], Injection],
    for_two: Data,
    root: S3Root,
    s3_server: RunningServer,
    tmp_path: Path,
) -> None:
    for_two.push(root)
    with private_cluster(s3_server, 2) as cluster:
        cluster.network.limit_server(LINK)
        host = cluster.workers[0]
        got = cluster.count(TRAIN)[host]
        training = PrivateTraining(cluster, for_two, root.uri, 2, tmp_path / "flow.log")
        training.wait_for(lambda: len(got.requests) >= 4)
        began = time.monotonic()
        rest = fault(cluster, host)
        training.finish()
        print(f"{fault.__name__}: done {time.monotonic() - began:.1f} s after it began")
        assert rest.requests
    assert digests(root.uri) == digests(for_two.store)


@pytest.mark.long
def test_a_server_that_goes_on_lying_ends_the_training_in_one_line_and_the_next_goes_on(
    for_two: Data, root: S3Root, s3_server: RunningServer, tmp_path: Path
) -> None:
    for_two.push(root)
    with private_cluster(s3_server, 2) as cluster:
        proxy = cluster.network.proxy(cluster.workers[1])
        proxy.inject(TRAIN, Fault.FLIP_ANSWER, at=16, lasting=True)
        training = PrivateTraining(cluster, for_two, root.uri, 2, tmp_path / "lied-to.log")
        assert training.process.wait(HANG_SECONDS) != 0, training.output()
        (line,) = re.findall(r"^error: .*train-0.*", training.output(), re.MULTILINE)
        print(line)
        assert "Traceback" not in training.output()
        assert training.ranks() == {}
        proxy.inject(TRAIN)
        training = PrivateTraining(cluster, for_two, root.uri, 2, tmp_path / "flow.log")
        training.finish()
        assert re.search(r"resuming from step-\d+: ", training.output())
    assert digests(root.uri) == digests(for_two.store)


@pytest.mark.long
def test_a_directory_that_the_hosts_do_not_share_is_named_before_a_rank_starts(
    for_two: Data, s3_server: RunningServer, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    copy_shards(for_two.store, store)
    with private_cluster(s3_server, 2) as cluster:
        cluster.head.copy(store)
        training = PrivateTraining(cluster, for_two, str(store), 2, tmp_path / "flow.log")
        assert training.process.wait(HANG_SECONDS) == 2, training.output()
        (line,) = re.findall(r"^error: .*", training.output(), re.MULTILINE)
        print(line)
        assert re.search(rf"host .* does not see .*{store}", line)
        assert "[rank" not in training.output()
