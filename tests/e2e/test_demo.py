"""`make demo`, `make test` and `make bench` run what the pages say.

Every demo proves that its recipe learns: below its minimum accuracy, nothing is promoted.
"""

import os
import subprocess

from flows.train_sknet import command
from infra.base.commands import parse
from sknet.recipe import load_recipe
from tests.documented import documented
from tests.processes import ROOT

MIN_ACCURACY = 0.95


def recipe_of_make(words: list[str]) -> list[list[str]]:
    """Return the commands that make would run after the set-up."""
    lines = dry_run(words)
    return [line.split() for line in lines if line.startswith(".venv/bin/")]


def dry_run(words: list[str]) -> list[str]:
    """Return what make prints that it would run, whatever options the tests were started with."""
    started_with = ("MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS", "PYTEST_OPTIONS")
    environment = {name: value for name, value in os.environ.items() if name not in started_with}
    printed = subprocess.run(
        [words[0], "--dry-run", "--no-print-directory", *words[1:]],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return printed.stdout.splitlines()


def demo_command() -> list[str]:
    (command,) = [w for w in recipe_of_make(documented("make demo")) if "flows.train_sknet" in w]
    return command


def test_the_demo_on_s3_installs_its_server_starts_it_and_stops_it_whatever_happens() -> None:
    lines = dry_run(["make", "--always-make", "demo", "STORE=s3"])
    assert any("pip install" in line and "'.[demo,s3server]'" in line for line in lines)
    started, trained = lines[-2:]
    assert started == ".venv/bin/python -m infra.s3 start"
    assert trained.startswith(". .s3/environment; trap '.venv/bin/python -m infra.s3 stop' EXIT; ")
    flow = " ".join(demo_command()).replace("--store artifacts", "--store s3://artifacts/demo")
    assert trained.endswith(flow)
    typed = documented("python -m flows.train_sknet", page="infra/s3/README.md")
    assert flow == " ".join([".venv/bin/python", *typed[1:]])


def test_make_test_runs_linters_types_layers_and_tests() -> None:
    programs = [" ".join(words) for words in recipe_of_make(documented("make test"))]
    for program in ("ruff check .", "ruff format --check .", "mypy", "lint-imports"):
        assert f".venv/bin/{program}" in programs
    tests = [program for program in programs if "pytest" in program]
    pytest = ".venv/bin/python -m pytest"
    groups = "-n 3 --dist loadgroup --no-loadscope-reorder"
    assert tests == [
        f'{pytest} {groups} --ignore tests/bench -m "not timed and not long"',
        f'{pytest} --ignore tests/bench -m "timed and not long"',
    ]


def test_make_bench_runs_every_benchmark_in_small_form() -> None:
    (words,) = [w for w in recipe_of_make(documented("make bench")) if "pytest" in w]
    assert words[1:] == ["-m", "pytest", "--durations", "0", "-m", '"not', 'long"', "tests/bench"]


def test_make_demo_trains_the_digits_on_two_workers() -> None:
    arguments = parse(command, demo_command()[3:])
    assert arguments.recipe == "skresnet18_digits"
    assert (arguments.data, arguments.store, arguments.workers) == ("digits", "artifacts", 2)
    assert load_recipe(arguments.recipe).min_accuracy == MIN_ACCURACY
