"""Training and evaluation with shards on S3: what is read comes to the host, when it is read."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from prefect import flow
from prefect.client.schemas.objects import State

from infra.artifacts import Artifact, DamagedArtifactError, open_store
from infra.artifacts.transfer import push
from infra.base.on_demand import Demands, SupplyError
from infra.s3.server import RunningServer
from sknet.errors import UserError
from sknet.recipe import Recipe, load_recipe
from sknet.records import Shards
from tasks.convert import ConversionSettings, convert
from tasks.results import TaskResult
from tasks.stage import stage
from tasks.train import train
from tasks.training_host import shards_for
from tasks.validate import validate
from tests.fault_proxy import FaultProxy, Injection, running_proxy
from tests.store_roots import S3Root

pytestmark = pytest.mark.slow

NUM_SHARDS = 12
"""Shards of each split. A shard has 4 training samples: each of two ranks reads two at a time."""
WINDOW = {"shuffle": "blocks", "shuffle_parts": 2, "shuffle_window": 4}


@dataclass(frozen=True)
class Case:
    """The same shards in a directory and on S3, where this host has none of them yet."""

    recipe: Recipe
    local: Path
    root: S3Root
    shards: TaskResult

    def train(self, store: Path | S3Root) -> State[TaskResult]:
        uri = store.uri if isinstance(store, S3Root) else str(store)

        @flow(name="only-train")
        def only_train() -> TaskResult:
            return train(self.recipe, self.shards, uri, 2, "CPU").result()

        return only_train(return_state=True)

    @property
    def artifact(self) -> Artifact:
        return open_store(self.root.uri).load(self.shards.kind, self.shards.key)

    @property
    def record(self) -> Shards:
        return Shards.read(self.artifact.path("shards.json"))

    def sizes(self, split: str) -> list[int]:
        return [file.size + file.index_size for file in self.record.files_of(split)]


@pytest.fixture(scope="module")
def proxy(s3_server: RunningServer) -> Iterator[FaultProxy]:
    with running_proxy(s3_server.port) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{proxy.port}")
        yield proxy


@pytest.fixture(scope="module")
def case(
    proxy: FaultProxy,
    flow_harness: None,
    images: Path,
    recipe: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Case]:
    directory = tmp_path_factory.mktemp("on-demand")
    store, root = str(directory / "store"), S3Root(directory / "hosts")

    @flow(name="until-convert")
    def until_convert() -> tuple[TaskResult, TaskResult]:
        staged = stage(str(images), store).result()
        settings = ConversionSettings(shards=NUM_SHARDS)
        return staged, convert(str(images), staged, store, settings, 2).result()

    made = until_convert()
    with pytest.MonkeyPatch.context() as patch:
        for host in ("builder", "one"):
            for name, value in root.environment(host).items():
                patch.setenv(name, value)
            if host == "builder":
                local, remote = open_store(store), open_store(root.uri)
                for result in made:
                    push(local, local.load(result.kind, result.key).manifest, remote)
        values = {**load_recipe(str(recipe)).model_dump(), **WINDOW}
        yield Case(Recipe.model_validate(values), directory / "store", root, made[1])


@pytest.fixture
def limit(case: Case, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], int]:
    """Allow the validation split and so many training shards on the host; returns the bytes."""

    def allow(num_shards: float) -> int:
        num_bytes = sum(case.sizes("val")) + int(num_shards * max(case.sizes("train")))
        monkeypatch.setenv("SKNET_ON_DEMAND_GB", f"{num_bytes / 1e9:.9f}")
        return num_bytes

    return allow


def downloads(injection: Injection) -> list[str]:
    return [asked.path for asked in injection.requests if asked.method == "GET"]


@pytest.mark.long
def test_a_training_with_a_third_of_the_shards_at_a_time_gives_the_bytes_of_a_local_one(
    case: Case, proxy: FaultProxy, limit: Callable[[float], int]
) -> None:
    limit(5)
    gets = {split: proxy.inject(f"/{split}-") for split in ("train", "val")}
    on_s3 = case.train(case.root).result()
    assert on_s3.digest == case.train(case.local).result().digest

    # Training shards were removed and fetched again, those of the evaluations were not.
    paths = {split: downloads(each) for split, each in gets.items()}
    assert len(paths["train"]) > len({*paths["train"]}) == 2 * NUM_SHARDS
    assert len(paths["val"]) == len({*paths["val"]}) == 2 * NUM_SHARDS
    assert not any(case.root.cache("one").glob("artifacts/*/files/train-*"))

    case.root.clear_cache("one")
    gets = {split: proxy.inject(f"/{split}-") for split in ("train", "val")}

    @flow(name="only-validate")
    def only_validate() -> TaskResult:
        return validate(case.recipe, on_s3, case.shards, case.root.uri, "CPU").result()

    assert only_validate().facts["seen"] == 18
    assert (downloads(gets["train"]), len(downloads(gets["val"]))) == ([], 2 * NUM_SHARDS)


def test_a_task_whose_ranks_ended_for_want_of_a_shard_says_why(
    case: Case, limit: Callable[[float], int], tmp_path: Path
) -> None:
    limit(5)
    name = case.record.files_of("train")[0].name
    path = f"shards/{case.shards.key}/{name}"
    content = case.root.read(path)
    case.root.rot(path, bytes(len(content)))
    try:
        with shards_for(case.recipe, case.artifact, tmp_path) as (directory, failure):
            assert failure() is None
            with pytest.raises(SupplyError, match=name), Demands(directory).holding([name]):
                pass
            found = failure()
    finally:
        case.root.rot(path, content)
    assert isinstance(found, DamagedArtifactError)
    assert name in str(found)
    assert "\n" not in str(found)


def test_too_small_a_limit_says_what_the_ranks_need(
    case: Case, limit: Callable[[float], int], tmp_path: Path
) -> None:
    limit(0.5)
    first = case.record.files_of("train")[0].name
    with shards_for(case.recipe, case.artifact, tmp_path) as (directory, failure):
        demands = Demands(directory)
        demands.keep(file.name for file in case.record.files_of("val"))
        with pytest.raises(SupplyError), demands.holding([first]):
            pass
        found = failure()
    assert isinstance(found, UserError)
    assert str(found).endswith("raise SKNET_ON_DEMAND_GB, or choose a smaller shuffle_window")
    assert not any(tmp_path.iterdir())


def test_the_cache_has_all_shards_of_a_training_in_the_full_order(
    case: Case, tmp_path: Path
) -> None:
    recipe = case.recipe.model_copy(update={"shuffle": "full"})
    with shards_for(recipe, case.artifact, tmp_path) as (directory, _):
        assert len([*directory.glob("train-*")]) == 2 * NUM_SHARDS
