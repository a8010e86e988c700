"""Fashion-MNIST, whole: trained by the flow, interrupted three times, as good as promised.

make test-long FASHION_MNIST=DIR

DIR holds the four IDX files, as Debian's `dataset-fashion-mnist` installs them.
"""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.artifacts import open_store
from sknet.recipe import load_recipe
from sknet.records import Evaluation
from tests.flow_runs import CommandRun, harness_api
from tests.tiny_pipeline import train_command
from tests.waiting import wait_for

pytestmark = [pytest.mark.long, pytest.mark.alone]

RECIPE = "skresnet18_fashion_mnist"
DATA = Path(os.environ.get("FASHION_MNIST", "/usr/share/datasets/fashion-mnist"))
NUM_TRAINING, NUM_VALIDATION = 60_000, 10_000
MIN_ACCURACY = 0.91
MAX_SECONDS = 4 * 3600


@pytest.fixture
def run(flow_harness: None, tmp_path: Path) -> Iterator[CommandRun]:
    if not DATA.is_dir():
        pytest.skip(f"{DATA} is missing: make test-long FASHION_MNIST=DIR")
    command = train_command(Path(RECIPE), Path(f"fashion-mnist:{DATA}"), tmp_path / "store", 2)
    result = CommandRun(command, tmp_path / "run.log", harness_api())
    yield result
    result.end()


def steps_done(store: Path) -> int:
    """Return the last step in the metrics of the training that is at work."""
    lines = [
        line
        for log in store.glob(".work/checkpoint/*/checkpoints/metrics.jsonl")
        for line in log.read_text("utf-8").splitlines()
        if line.endswith("}")
    ]
    return json.loads(lines[-1])["step"] if lines else 0


def test_it_learns_fashion_mnist_though_interrupted_three_times(
    run: CommandRun, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    recipe = load_recipe(RECIPE)
    total = recipe.epoch_size * (NUM_TRAINING // recipe.global_batch(2))

    def train_until(fraction: float) -> None:
        wait_for(
            lambda: run.is_over() or steps_done(store) >= fraction * total,
            run.output,
            seconds=MAX_SECONDS,
        )
        assert not run.is_over(), run.output()

    # Kill the flow's process alone: the supervisor then ends the ranks.
    run.start()
    train_until(0.2)
    run.process.kill()
    run.wait_until_gone()

    # Kill a rank: the flow retries the task.
    run.start()
    train_until(0.45)
    run.ranks()[1].kill()

    # Stop all of it, by the signal that asks for an end.
    train_until(0.7)
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 1, run.output()
    run.wait_until_gone()

    run.start()
    wait_for(run.is_over, run.output, seconds=MAX_SECONDS)
    assert run.ended_as() == "0", run.output()

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
