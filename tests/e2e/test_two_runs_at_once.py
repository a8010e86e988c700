"""Two runs of one recipe at once: each stage is built by one of them, and both end alike."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.artifacts import open_store
from tests.places import S3Place
from tests.runs import SECONDS_TO_VANISH, Runs, wait_for
from tests.tiny_pipeline import Trained, digests, train_command

# Minutes each.
pytestmark = [pytest.mark.slow, pytest.mark.long]

SECONDS_TO_RUN = 240
BUILT_ONCE = {
    "stage": "dataset",
    "convert": "shards",
    "train": "checkpoint",
    "validate": "evaluation",
}


@pytest.fixture
def both() -> Iterator[list[Runs]]:
    runs: list[Runs] = []
    yield runs
    for each in runs:
        each.end()


def hosts(kind: str, tmp_path: Path) -> tuple[str, list[dict[str, str]]]:
    """A store, and the environment of each of two hosts that use it."""
    if kind == "directory":
        return str(tmp_path / "store"), [{}, {}]
    place = S3Place(tmp_path / "hosts")
    return place.uri, [place.environment(name) for name in ("one", "other")]


@pytest.mark.parametrize("kind", ["directory", "S3"])
def test_one_works_and_the_other_waits(
    kind: str, trained: Trained, s3_server: object, both: list[Runs], tmp_path: Path
) -> None:
    store, environments = hosts(kind, tmp_path)
    command = train_command(trained.recipe, trained.images, store, 2)
    with pytest.MonkeyPatch.context() as patch:
        for number, environment in enumerate(environments):
            for name, value in environment.items():
                patch.setenv(name, value)
            both.append(Runs(command, tmp_path / f"{number}.log"))
            both[-1].start()

    def codes() -> list[int | None]:
        return [runs.last.poll() for runs in both]

    def said() -> str:
        return "\n".join(runs.said() for runs in both)

    wait_for(lambda: None not in codes(), SECONDS_TO_RUN, said)
    assert codes() == [0, 0], said()
    for stage, kind_of in BUILT_ONCE.items():
        # `at work` is said where something is built, and `built` when it is.
        assert said().count(f"{stage}: at work on {kind_of}/") == 1
        assert said().count(f"{stage}: built in") == 1
        assert said().count(f"{stage}: reused in") == 1
    assert "waiting for another builder of" in said()
    assert digests(store) == digests(trained.store)
    promoted = open_store(store).refs.history("production")
    assert [ref.digest for ref in promoted] == [trained.of("train").digest]
    wait_for(lambda: not any(r.living() for r in both), SECONDS_TO_VANISH, said)
