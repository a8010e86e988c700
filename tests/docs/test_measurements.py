"""The commands in the pages on speed are benchmarks, with options that these have."""

import importlib
import shlex

import pytest

from tests.documented import commands

PAGE = "docs/internals/performance.md"


@pytest.mark.parametrize("command", commands(PAGE))
def test_a_documented_benchmark_understands_its_options(command: str) -> None:
    python, flag, module, *options = shlex.split(command)
    assert (python, flag) == ("python", "-m")
    importlib.import_module(module).parser().parse_args(options)
