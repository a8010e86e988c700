"""Which CANN MindSpore accepts is read from its wheel, and judged as MindSpore itself does."""

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from infra.base.cann import CHECK, accepted_versions, release, selected_version, version_warning
from tests.infra.ascend_trees import CannTree, write

# The part of MindSpore's check in which its wheels list the releases.
SOURCE = """
class GPUEnvChecker(EnvChecker):
    def __init__(self, library_path):
        self.version = ["10.1", "11.1"]

class AscendEnvChecker(EnvChecker):
    def __init__(self, library_path):
        self.library_path = library_path
        self.version = {versions}
"""
# Asks MindSpore's own check about each home, and prints whether it warns.
MINDSPORE = """
import json, os, sys
from mindspore.run_check import _check_version as check
warned = []
check.logger.warning = lambda text, *_: warned.append(text)
answers = []
for home in sys.argv[1:]:
    warned.clear()
    os.environ["ASCEND_HOME_PATH"] = home
    check.AscendEnvChecker(None).check_version()
    answers.append(bool(warned))
print(json.dumps(answers))
"""


def test_the_installed_wheel_states_what_it_accepts_and_is_not_imported() -> None:
    accepted = accepted_versions()
    assert accepted is not None
    if metadata.version("mindspore") == "2.10.0":
        assert accepted == ("8.2", "8.3", "8.5", "9.0", "9.1")
    code = "import sys; from infra.base.cann import *; accepted_versions(); print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "mindspore" not in ended.stdout.split()


@pytest.mark.parametrize(
    ("source", "accepted"),
    [
        (SOURCE.format(versions='["8.5"]'), ("8.5",)),
        (SOURCE.format(versions="load_versions()"), None),
        (SOURCE.format(versions='["8.5", newest()]'), None),
        ("def check_version(): ...", None),
        ("class AscendEnvChecker(", None),
        ("\0", None),
        (None, None),
    ],
)
def test_a_list_in_another_form_is_unknown_and_not_guessed(
    tmp_path: Path, source: str | None, accepted: tuple[str, ...] | None
) -> None:
    if source is not None:
        write(tmp_path / CHECK, source)
    assert accepted_versions(tmp_path) == accepted


@pytest.mark.parametrize(
    ("text", "version", "part"),
    [
        ("Version=9.1.0\n", "9.1.0", "9.1"),
        ("# CANN\nVersion=7.6.0.1.220\nVersion=9.1.0\n", "7.6.0.1.220", "7.6"),
        ("version=9.1.0\n", "", ""),  # MindSpore wants the capital
    ],
)
def test_the_version_is_read_as_mindspore_reads_it(
    tmp_path: Path, text: str, version: str, part: str
) -> None:
    write(tmp_path / "compiler/version.info", text)
    assert selected_version({"ASCEND_HOME_PATH": str(tmp_path)}) == version
    assert release(version) == part


def test_without_a_selected_cann_there_is_nothing_to_warn_of() -> None:
    for environment in ({}, {"ASCEND_HOME_PATH": ""}):
        assert selected_version(environment) is None
        assert version_warning(environment) is None


def test_a_cann_without_its_version_file_is_said_not_to_be_checked(tmp_path: Path) -> None:
    home = CannTree(compiler=None).write(tmp_path)
    environment = {"ASCEND_HOME_PATH": str(home)}
    assert selected_version(environment) is None
    assert version_warning(environment) == (
        f"MindSpore doesn't check the version of CANN, because there is no {home}/compiler/"
        "version.info"
    )


def test_the_warning_names_the_version_the_file_and_what_is_accepted(tmp_path: Path) -> None:
    home = CannTree(compiler="7.6.0.1.220").write(tmp_path)
    assert version_warning({"ASCEND_HOME_PATH": str(home)}) == (
        f"CANN 7.6.0.1.220 of {home}/compiler/version.info is not accepted by MindSpore "
        f"{metadata.version('mindspore')}, which accepts {', '.join(accepted_versions() or ())}: "
        "install one of these (docs/imagenet.md)"
    )


@pytest.mark.slow  # imports MindSpore
def test_mindspores_own_check_warns_of_the_same_versions(tmp_path: Path) -> None:
    compilers = ["9.1.0", "8.5.0", "8.2.RC1", "7.6.0.1.220", "10.0.0", "", None]
    homes = [
        str(CannTree(compiler=compiler, libraries=()).write(tmp_path / str(number)))
        for number, compiler in enumerate(compilers)
    ]
    ended = subprocess.run(
        [sys.executable, "-c", MINDSPORE, *homes],
        env={**os.environ, "GLOG_v": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    warned = json.loads(ended.stdout.splitlines()[-1])
    ours = [version_warning({"ASCEND_HOME_PATH": home}) is not None for home in homes]
    assert warned == ours
    if metadata.version("mindspore") == "2.10.0":
        assert ours == [False, False, False, True, True, True, True]
