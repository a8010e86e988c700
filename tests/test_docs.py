"""Every command in the README has the form that the programs take, or is run by a named test."""

import argparse
import re
import shlex
from pathlib import Path

import pytest

import flows.train_sknet
import infra.artifacts.__main__
import sknet.convert
import sknet.train
import sknet.validate

ROOT = Path(__file__).parents[1]

PARSERS = {
    "flows.train_sknet": flows.train_sknet.parser,
    "sknet.train": sknet.train.parser,
    "sknet.validate": sknet.validate.parser,
    "sknet.convert": sknet.convert.parser,
    "infra.artifacts": infra.artifacts.__main__._parser,
}
# Run literally, each by the test that stands beside it.
RUN_ELSEWHERE = {
    "make demo": "tests/e2e/test_kill_and_resume.py",  # its flow command; set-up: .ci/run's clone
    "make test": ".ci/run",
    "python -m flows.report": "tests/flows/test_train_flow.py",
    "python -m flows.revalidate": "tests/flows/test_revalidate_flow.py",
    "prefect server start": "tests/e2e/test_deployment_cycle.py",
    "export PREFECT_API_URL": "tests/e2e/test_deployment_cycle.py",
    "prefect work-pool create": "tests/e2e/test_deployment_cycle.py",
    "prefect deploy --all --no-prompt": "tests/e2e/test_deployment_cycle.py",
    "prefect worker start": "tests/e2e/test_deployment_cycle.py",
    "prefect deployment run train-sknet": "tests/e2e/test_deployment_cycle.py",
}


def documented_commands() -> list[str]:
    return re.findall(r"^\$ (.+)$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)


def test_the_readme_has_commands() -> None:
    assert len(documented_commands()) > 10


@pytest.mark.parametrize("command", documented_commands())
def test_a_documented_command_is_one_that_works(command: str) -> None:
    words = shlex.split(command.removesuffix(" &"))
    module, arguments = _program(words)
    if module in PARSERS:
        parser: argparse.ArgumentParser = PARSERS[module]()
        parser.parse_args(arguments)  # exits on an option that is not there
        return
    home = next(
        (test for start, test in RUN_ELSEWHERE.items() if _plain(command).startswith(start)), None
    )
    assert home is not None, f"no test runs {command!r}"
    assert (ROOT / home).is_file()


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


def _plain(command: str) -> str:
    return command.replace(".venv/bin/", "")


def _program(words: list[str]) -> tuple[str, list[str]]:
    if "-m" in words:
        at = words.index("-m")
        return words[at + 1], words[at + 2 :]
    if "sknet/train.py" in words:
        return "sknet.train", words[words.index("sknet/train.py") + 1 :]
    return "", words
