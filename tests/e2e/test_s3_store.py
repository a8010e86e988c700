"""The whole flow with its artifacts on S3: begun on one host, ended on another, the same bytes."""

import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from infra.artifacts import open_store
from tests.places import S3Place
from tests.runs import SECONDS_TO_START, SECONDS_TO_VANISH, Runs, wait_for
from tests.tiny_pipeline import Trained, digests, train_command

pytestmark = pytest.mark.slow


@pytest.fixture
def place(s3_server: object, tmp_path: Path) -> S3Place:
    return S3Place(tmp_path / "hosts")


@pytest.fixture
def runs(trained: Trained, place: S3Place, tmp_path: Path) -> Iterator[Runs]:
    command = train_command(trained.recipe, trained.images, place.uri, 2)
    result = Runs(command, tmp_path / "runs.log")
    yield result
    result.end()


def on_host(place: S3Place, name: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The commands from now on run with this host's cache; compiled graphs are shared."""
    for variable, value in place.environment(name).items():
        monkeypatch.setenv(variable, value)
    return place.cache(name)


def ranks(runs: Runs) -> list[psutil.Process]:
    return [p for p in runs.living() if p.environ().get("MS_ROLE") == "MS_WORKER"]


def test_a_run_begun_on_one_host_ends_on_another_like_an_undisturbed_local_one(
    trained: Trained, place: S3Place, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = on_host(place, "one", monkeypatch)
    flow = runs.start()
    wait_for(
        lambda: flow.poll() is not None or any(cache.glob("work/*/checkpoint/*/*/step-*")),
        SECONDS_TO_START,
        runs.said,
    )
    for rank in ranks(runs):
        rank.send_signal(signal.SIGSTOP)
    wait_for(
        lambda: flow.poll() is not None or any("kept.json" in p for p in place.paths(".work/")),
        SECONDS_TO_VANISH,
        runs.said,
    )
    assert flow.poll() is None, runs.said()
    flow.kill()
    wait_for(lambda: not runs.living(), SECONDS_TO_VANISH, lambda: str(runs.living()))
    assert place.paths("checkpoint/") == []

    on_host(place, "other", monkeypatch)
    assert runs.start().wait(180) == 0, runs.said()
    said = runs.said()
    assert "kept by another host" in said
    assert "resuming from step-" in said
    assert "reused      stage, convert" in said
    assert digests(place.uri) == digests(trained.store)
    promoted = open_store(place.uri).refs.get("production")
    assert promoted is not None
    assert promoted.digest == trained.of("train").digest
    assert place.paths(".work/") == []
    assert runs.living() == []
