"""Fashion-MNIST, whole: trained by the flow, interrupted three times, as good as promised.

make test-long FASHION_MNIST=DIR

DIR holds the four IDX files, as Debian's `dataset-fashion-mnist` installs them.
"""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from infra.artifacts import open_store
from sknet.recipe import load_recipe
from sknet.records import Evaluation
from tests.runs import Runs, wait_for
from tests.tiny_pipeline import train_command

pytestmark = [pytest.mark.long, pytest.mark.alone, pytest.mark.slow]

RECIPE = "skresnet18_fashion_mnist"
DATA = Path(os.environ.get("FASHION_MNIST", "/usr/share/datasets/fashion-mnist"))
NUM_TRAINING, NUM_VALIDATION = 60_000, 10_000
MIN_ACCURACY = 0.91
HOURS = 3600


@pytest.fixture
def runs(flow_harness: None, tmp_path: Path) -> Iterator[Runs]:
    if not DATA.is_dir():
        pytest.skip(f"{DATA} is missing: make test-long FASHION_MNIST=DIR")
    command = train_command(Path(RECIPE), Path(f"fashion-mnist:{DATA}"), tmp_path / "store", 2)
    result = Runs(command, tmp_path / "runs.log")
    yield result
    result.end()


def steps_done(store: Path) -> int:
    """As the metrics of the training that is at work say."""
    lines = [
        line
        for log in store.glob(".work/checkpoint/*/checkpoints/metrics.jsonl")
        for line in log.read_text("utf-8").splitlines()
        if line.endswith("}")
    ]
    return json.loads(lines[-1])["step"] if lines else 0


def test_it_learns_fashion_mnist_though_interrupted_three_times(runs: Runs, tmp_path: Path) -> None:
    store = tmp_path / "store"
    recipe = load_recipe(RECIPE)
    total = recipe.epoch_size * (NUM_TRAINING // recipe.global_batch(2))

    def train_until(share: float) -> None:
        wait_for(
            lambda: flow.poll() is not None or steps_done(store) >= share * total,
            HOURS,
            runs.said,
        )
        assert flow.poll() is None, runs.said()

    # The flow's process alone: the supervisor ends the ranks, and nobody its temporary server.
    flow = runs.start()
    train_until(0.2)
    flow.kill()
    wait_for(lambda: "train.py" not in runs.programs(), 30, lambda: str(runs.living()))
    for server in runs.living():
        server.kill()
    wait_for(lambda: not runs.living(), 30, lambda: str(runs.living()))

    # A rank: the stage is tried again by the flow itself.
    flow = runs.start()
    train_until(0.45)
    rank_of(runs, 1).kill()
    time.sleep(1)

    # All of it, by the signal that asks for an end.
    train_until(0.7)
    flow.send_signal(signal.SIGTERM)
    assert flow.wait(120) == 1, runs.said()
    wait_for(lambda: not runs.living(), 30, lambda: str(runs.living()))

    flow = runs.start()
    assert flow.wait(HOURS) == 0, runs.said()

    opened = open_store(str(store))
    (manifest,) = opened.list("evaluation")
    artifact = opened.load("evaluation", manifest.key)
    evaluation = Evaluation.read(artifact.path("evaluation.json"))
    print(f"accuracy@1 {evaluation.correct_top1}/{evaluation.seen}")
    assert evaluation.seen == NUM_VALIDATION
    assert evaluation.accuracy_top1 >= MIN_ACCURACY
    (log,) = store.glob("training-log/*/metrics.jsonl")
    end = json.loads(log.read_text("utf-8").splitlines()[-1])
    assert (end["type"], end["step"], end["restarts"]) == ("end", total, 3)


def rank_of(runs: Runs, number: int) -> psutil.Process:
    """The process of a rank of the training."""
    for process in runs.living():
        environment = process.environ()
        if environment.get("MS_ROLE") == "MS_WORKER" and environment.get("RANK_ID") == str(number):
            return process
    raise AssertionError(f"no rank {number} among {runs.living()}")
