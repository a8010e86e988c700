"""Two runs of one recipe at once: each task's work is done by one of them, and both end alike."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.artifacts import open_store
from tests.flow_runs import CommandRun, harness_api
from tests.store_roots import S3Root
from tests.tiny_pipeline import Trained, digests, train_command
from tests.waiting import wait_for

pytestmark = pytest.mark.long

BUILT_ONCE = {
    "stage": "dataset",
    "convert": "shards",
    "train": "checkpoint",
    "validate": "evaluation",
}


@pytest.fixture
def runs() -> Iterator[list[CommandRun]]:
    result: list[CommandRun] = []
    yield result
    for run in result:
        run.end()


def store_and_hosts(kind: str, tmp_path: Path) -> tuple[str, list[dict[str, str]]]:
    """Return a store, and the environment of each of two hosts that use it."""
    if kind == "directory":
        return str(tmp_path / "store"), [{}, {}]
    root = S3Root(tmp_path / "hosts")
    return root.uri, [root.environment(name) for name in ("one", "other")]


@pytest.mark.parametrize("kind", ["directory", "S3"])
def test_one_works_and_the_other_waits(
    kind: str, trained: Trained, s3_server: object, runs: list[CommandRun], tmp_path: Path
) -> None:
    store, environments = store_and_hosts(kind, tmp_path)
    command = train_command(trained.recipe, trained.images, store, 2)
    for number, environment in enumerate(environments):
        log = tmp_path / f"{number}.log"
        runs.append(CommandRun(command, log, {**harness_api(), **environment}))
        runs[-1].start()

    def output() -> str:
        return "\n".join(run.output() for run in runs)

    wait_for(lambda: all(run.is_over() for run in runs), output)
    assert [run.ended_as() for run in runs] == ["0", "0"], output()
    for task, kind_of in BUILT_ONCE.items():
        # `at work` is logged where something is built, and `built` when it is.
        assert output().count(f"{task}: building {kind_of}/") == 1
        assert output().count(f"{task}: built in") == 1
        assert output().count(f"{task}: reused in") == 1
    assert "waiting for another builder of" in output()
    assert digests(store) == digests(trained.store)
    promoted = open_store(store).refs.history("production")
    assert [ref.digest for ref in promoted] == [trained.of("train").digest]
    for run in runs:
        run.wait_until_gone()
