"""The device of a training: of this machine's cards, or of those of the cluster's hosts."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from prefect import flow

import tasks.programs
from flows.train_sknet import train_sknet
from infra.artifacts import open_store
from infra.launch import Job, JobResult, Outcome
from infra.launch.cluster import ClusterError
from sknet.device import find_cards
from sknet.recipe import load_recipe
from tasks.errors import JobFailedError
from tasks.programs import THIS_HOST, LaunchSettings, cards_of_cluster, device_of
from tasks.results import TaskResult
from tasks.validate import validate
from tests.ray_clusters import cluster_of
from tests.refusals import refusal
from tests.sknet.recipes import recipe
from tests.tiny_pipeline import Trained

ON_RAY = LaunchSettings(launcher="ray://head:10001", hosts=2)


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Gives this machine cards and a driver: the files by which they are found."""
    dev, ascend = tmp_path / "dev", tmp_path / "Ascend"
    monkeypatch.setattr(
        tasks.programs,
        "find_cards",
        partial(find_cards, dev, ascend, install_info=tmp_path / "none"),
    )

    def put_in(number: int) -> None:
        for directory in (dev, ascend / "driver"):
            directory.mkdir(parents=True)
        (ascend / "driver/version.info").write_text("Version=25.5.0\n")
        for card in range(number):
            (dev / f"davinci{card}").touch()

    return put_in


class Cluster:
    """A Ray cluster that is asked what its hosts offer."""

    def __init__(self, resources: dict[str, float]) -> None:
        self._resources = resources
        self.asked: list[str] = []
        self.is_connected = False

    def connect(self, address: str) -> SimpleNamespace:
        self.asked.append(address)
        self.is_connected = True
        return SimpleNamespace(
            cluster_resources=lambda: self._resources, nodes=self._nodes, shutdown=self._disconnect
        )

    def _nodes(self) -> list[dict[str, object]]:
        """A head without CPUs, and two hosts that share what the cluster has."""
        shares = ({}, *[{name: value / 2 for name, value in self._resources.items()}] * 2)
        return [{"Alive": True, "Resources": share} for share in shares]

    def _disconnect(self) -> None:
        self.is_connected = False


def on_cluster(monkeypatch: pytest.MonkeyPatch, **resources: float) -> Cluster:
    cluster = Cluster(resources)
    monkeypatch.setattr(tasks.programs, "connect", cluster.connect)
    return cluster


def test_on_this_host_its_own_cards_count(cards: Callable[[int], None]) -> None:
    assert device_of(THIS_HOST, recipe(), None).target == "CPU"
    cards(8)
    assert str(device_of(THIS_HOST, recipe(), None)) == (
        "device Ascend: 8 Ascend cards, driver 25.5.0"
    )
    assert device_of(THIS_HOST, recipe(), "CPU").target == "CPU"
    assert device_of(THIS_HOST, recipe(device_target="CPU"), None).target == "CPU"


def test_ascend_by_option_without_a_card_is_refused_before_anything_starts(
    cards: Callable[[int], None],
) -> None:
    line = refusal(lambda: device_of(THIS_HOST, recipe(), "Ascend"))
    assert line.startswith("--device_target is Ascend, but this machine has no Ascend card (no ")
    cards(1)
    assert device_of(THIS_HOST, recipe(), "Ascend").target == "Ascend"


def test_cards_without_a_driver_are_refused_whatever_the_option(
    cards: Callable[[int], None], tmp_path: Path
) -> None:
    cards(8)
    (tmp_path / "Ascend/driver/version.info").unlink()
    for option in (None, "auto", "Ascend"):
        line = refusal(partial(device_of, THIS_HOST, recipe(), option))
        assert "8 Ascend cards, but no driver" in line
    assert device_of(THIS_HOST, recipe(), "CPU").target == "CPU"


def test_on_a_cluster_the_cards_of_its_hosts_count_and_not_those_of_this_machine(
    cards: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = on_cluster(monkeypatch, CPU=64, NPU=16)
    assert str(device_of(ON_RAY, recipe(), None)) == "device Ascend: 16 NPU in the Ray cluster"
    assert cluster.asked == ["ray://head:10001"]
    assert not cluster.is_connected
    cards(8)
    on_cluster(monkeypatch, CPU=64)
    assert str(device_of(ON_RAY, recipe(), None)) == "device CPU: no NPU in the Ray cluster"
    assert str(device_of(ON_RAY, recipe(device_target="Ascend"), None)) == (
        "warning: device CPU, but the recipe is for Ascend: no NPU in the Ray cluster"
    )


@pytest.mark.parametrize("option", ["CPU", "Ascend"])
def test_a_cluster_is_not_asked_if_the_option_says_the_device(
    monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    cluster = on_cluster(monkeypatch)
    assert device_of(ON_RAY, recipe(), option).target == option
    assert cluster.asked == []


def test_a_cluster_that_is_not_there_is_the_users_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(address: str) -> None:
        raise ClusterError(f"no Ray cluster at {address!r}: refused")

    monkeypatch.setattr(tasks.programs, "connect", connect)
    assert refusal(lambda: device_of(ON_RAY, recipe(), None)) == (
        "no Ray cluster at 'ray://head:10001': refused"
    )


@pytest.mark.long
@pytest.mark.alone
def test_a_real_cluster_offers_its_cards_as_npu() -> None:
    with cluster_of(1) as cluster:
        # Not through Ray's client, whose addresses begin with ray://.
        one = LaunchSettings.model_construct(launcher=cluster.address, hosts=1, wait_for_hosts=0.0)
        assert cards_of_cluster(one).number == 0
        two = one.model_copy(update={"hosts": 2, "wait_for_hosts": 60.0})
        with ThreadPoolExecutor(1) as beside:
            found = beside.submit(cards_of_cluster, two)
            cluster.add_node(num_cpus=1, resources={"NPU": 8}, object_store_memory=80_000_000)
            assert found.result().said == "8 NPU in the Ray cluster"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """The jobs that flows start; each fails at once."""
    jobs: list[Job] = []

    def run(job: Job, **_: object) -> JobResult:
        jobs.append(job)
        message = "failed by the test"
        return JobResult(
            status=Outcome.FAILED, message=message, return_code=1, seconds=0.0, log_tail=()
        )

    monkeypatch.setattr(tasks.programs, "run", run)
    return jobs


@pytest.mark.slow
def test_a_flow_takes_the_cards_of_this_machine_and_trains_under_another_key(
    trained: Trained,
    copied_store: Path,
    cards: Callable[[int], None],
    started: list[Job],
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = open_store(str(copied_store)).load("checkpoint", trained.of("train").key)
    assert before.manifest.params["device_target"] == "CPU"
    cards(2)
    caplog.set_level(logging.INFO)

    with pytest.raises(JobFailedError, match="failed by the test"):
        train_sknet(str(trained.recipe), str(trained.images), str(copied_store))

    (job,) = started
    assert job.program.stem == "train"
    assert "--device_target=Ascend" in job.args
    assert job.bind_core
    assert "device Ascend: 2 Ascend cards, driver 25.5.0" in caplog.messages


@pytest.mark.slow
def test_a_flow_with_a_recipe_for_ascend_warns_on_a_machine_without_cards(
    trained: Trained, copied_store: Path, started: list[Job], caplog: pytest.LogCaptureFixture
) -> None:
    results = train_sknet(
        str(trained.recipe),
        str(trained.images),
        str(copied_store),
        overrides=["device_target=Ascend"],
    )
    assert {result.status for result in results if result.task == "train"} == {"reused"}
    assert started == []
    (warning,) = [record for record in caplog.records if "the recipe is for" in record.message]
    assert warning.levelno == logging.WARNING
    assert warning.message.startswith("warning: device CPU, but the recipe is for Ascend: no ")


@pytest.mark.slow
def test_a_checkpoint_of_other_hosts_cards_is_evaluated_on_cpu_where_there_is_none(
    trained: Trained, copied_store: Path, started: list[Job], caplog: pytest.LogCaptureFixture
) -> None:
    @flow(name="validate-elsewhere")
    def validate_elsewhere() -> TaskResult:
        choices, store = load_recipe(str(trained.recipe)), str(copied_store)
        results = trained.of("train"), trained.of("convert")
        return validate(choices, *results, store, "Ascend").result()

    found = validate_elsewhere()

    # The one that was made on CPU.
    assert (found.status, found.key) == ("reused", trained.of("validate").key)
    assert started == []
    assert "evaluating on CPU, because this machine has no Ascend card" in caplog.text
