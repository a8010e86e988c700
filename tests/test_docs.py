"""Every command of the README is run by a test, and its tree is the one that is there."""

import re

import pytest

import flows.revalidate
from sknet.judgement import SIGNIFICANCE, TOLERANCE, Candidate, Production, judge_promotion
from sknet.records import CheckpointChecks
from tests.documented import ROOT, commands

# Start of a command → the test that calls `documented` with it and runs what it gets.
RUN_BY = {
    "make demo": "tests/e2e/test_demo.py",
    "make test": "tests/e2e/test_demo.py",
    "python -m flows.train_sknet": "tests/e2e/test_readme.py",
    "msrun": "tests/e2e/test_readme.py",
    "python -m sknet.train": "tests/e2e/test_readme.py",
    "python -m sknet.validate": "tests/e2e/test_readme.py",
    "python -m sknet.convert": "tests/e2e/test_readme.py",
    "python -m sknet.models": "tests/sknet/models/test_network.py",
    "python -m sknet.export": "tests/e2e/test_readme.py",
    "python -m infra.artifacts ls": "tests/e2e/test_readme.py",
    "python -m infra.artifacts verify": "tests/e2e/test_readme.py",
    "python -m infra.artifacts refs": "tests/e2e/test_readme.py",
    "python -m flows.report": "tests/e2e/test_readme.py",
    "python -m flows.revalidate": "tests/e2e/test_readme.py",
    "prefect server start": "tests/e2e/test_deployment_cycle.py",
    "export PREFECT_API_URL": "tests/e2e/test_deployment_cycle.py",
    "prefect work-pool create": "tests/e2e/test_deployment_cycle.py",
    "prefect deploy --all": "tests/e2e/test_deployment_cycle.py",
    "prefect worker start": "tests/e2e/test_deployment_cycle.py",
    "prefect deployment run": "tests/e2e/test_deployment_cycle.py",
}


@pytest.mark.parametrize("command", commands())
def test_a_documented_command_is_run_by_a_test(command: str) -> None:
    (start,) = [start for start in RUN_BY if command.startswith(start)]
    assert f'documented("{start}"' in (ROOT / RUN_BY[start]).read_text("utf-8")


def test_no_test_runs_a_command_that_is_not_documented() -> None:
    assert {start for start in RUN_BY for c in commands() if c.startswith(start)} == set(RUN_BY)


def test_the_command_of_the_recipes_page_is_run_by_a_test() -> None:
    page = "docs/recipes.md"
    (command,) = commands(page)
    assert command.startswith("python -m sknet.train")
    text = (ROOT / "tests/e2e/test_readme.py").read_text("utf-8")
    assert f'documented("python -m sknet.train", weights, page="{page}")' in text


def test_the_command_of_the_evaluation_page_is_run_by_a_test() -> None:
    page = "docs/evaluation.md"
    (command,) = commands(page)
    assert command.startswith("python -m sknet.validate")
    text = (ROOT / "tests/e2e/test_readme.py").read_text("utf-8")
    assert f'page = "{page}"' in text
    assert 'documented("python -m sknet.validate", step, page=page)' in text


def test_every_file_of_the_documented_tree_exists() -> None:
    tree = re.search(r"```text\nprefect\.yaml.*?```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert tree is not None
    parent = ROOT
    for line in tree[0].splitlines()[1:-1]:
        names = re.match(r"( *)(\S+(?: \S+)*?)(?:   *|$)", line)
        assert names is not None
        if not names[1]:
            parent = ROOT
        for name in names[2].split():
            assert (parent / name).exists(), line
        if not names[1] and names[2].endswith("/"):
            parent = ROOT / names[2]


def test_the_page_on_nights_names_every_criterion_and_its_commands_are_understood() -> None:
    page = (ROOT / "docs/revalidation.md").read_text("utf-8")
    said = dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|$", page, re.MULTILINE))
    production = Production("a" * 64, ("cat",), None, "", None)
    candidate = Candidate("c" * 64, ("cat",), CheckpointChecks(checks=()), None, None, False)
    judgement = judge_promotion(candidate, production, floor=0.5, by_hand="")
    assert [name for name in said if name in {c.name for c in judgement.criteria}] == [
        criterion.name for criterion in judgement.criteria
    ]
    assert f"p at least {SIGNIFICANCE}" in said["not worse than production"]
    assert f"at most {TOLERANCE:.1%}".replace("%", " %") in page
    nights = [
        line.removeprefix("python -m flows.revalidate").split()
        for line in commands("docs/revalidation.md")
        if line.startswith("python -m flows.revalidate")
    ]
    assert len(nights) == 2
    for words in nights:
        flows.revalidate.parser().parse_args(words)
