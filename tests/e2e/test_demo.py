"""`make demo` and `make test` run what they say, and the demo's recipe learns its digits."""

import subprocess
import sys
from pathlib import Path

import pytest

from flows.train_sknet import parser
from sknet.records import Checkpoint
from tests.documented import documented
from tests.tiny_pipeline import ROOT, run_command

MIN_ACCURACY = 0.95


def recipe_of_make(words: list[str]) -> list[list[str]]:
    """What make would run after the set-up, without running it."""
    said = subprocess.run(
        [words[0], "--dry-run", *words[1:]], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [line.split() for line in said.stdout.splitlines() if line.startswith(".venv/bin/")]


def demo_command() -> list[str]:
    (command,) = [w for w in recipe_of_make(documented("make demo")) if "flows.train_sknet" in w]
    return command


def test_make_test_runs_linters_types_layers_and_tests() -> None:
    programs = [" ".join(words) for words in recipe_of_make(documented("make test"))]
    for program in ("ruff check .", "ruff format --check .", "mypy", "lint-imports"):
        assert f".venv/bin/{program}" in programs
    assert programs[-1] == ".venv/bin/python -m pytest"


def test_make_demo_trains_the_digits_on_two_workers() -> None:
    arguments = parser().parse_args(demo_command()[3:])
    assert arguments.recipe == "skresnet18_digits"
    assert (arguments.data, arguments.store, arguments.workers) == ("digits", "artifacts", 2)


@pytest.mark.slow
def test_the_demos_recipe_learns_the_digits(tmp_path: Path) -> None:
    """On one worker with all cores: the same steps as in the demo, without the all-reduce."""
    arguments = parser().parse_args(demo_command()[3:])
    ended = run_command(
        [
            *(sys.executable, "-m", "sknet.train", "--config", arguments.recipe),
            *("--data_dir", arguments.data, "--distribute", "False"),
            *("--ckpt_save_dir", str(tmp_path / "ckpt"), "--shards_dir", str(tmp_path / "shards")),
        ],
        OMP_NUM_THREADS="2",
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    state = Checkpoint.read(max((tmp_path / "ckpt").glob("step-*")) / "state.json")
    _, evaluation = state.evaluations[-1]
    assert evaluation.seen == 360
    assert evaluation.accuracy_top1 >= MIN_ACCURACY
