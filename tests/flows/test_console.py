"""The command `sknet` lists the commands at once, and they take the options of their modules."""

import os
import re
import resource
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import pytest
from cyclopts import App

from flows.console import COMMANDS, console
from infra.base.commands import start
from infra.base.interrupts import INTERRUPTED
from sknet.architectures import ARCHITECTURES
from tests.documented import commands as documented_commands
from tests.processes import ROOT, WITH_SIGINT
from tests.waiting import HANG_SECONDS

SKNET = Path(sys.executable).with_name("sknet")


def commands() -> Iterator[tuple[str, App]]:
    """Yield all commands that do something by themselves, as people type them."""
    for name, app in console().resolved_commands().items():
        if name.startswith("-"):
            continue
        if app.default_command:
            yield f"sknet {name}", app
        for inner, below in app.resolved_commands().items():
            if not inner.startswith("-"):
                yield f"sknet {name} {inner}", below


ALL = dict(commands())


def test_the_list_of_commands_imports_none_of_them() -> None:
    code = (
        "import sys; from flows.console import console; from infra.base.commands import start;"
        "start(console(), ['--help']);"
        "print(sorted({'mindspore', 'prefect', 'pandas', 'numpy'} & {*sys.modules}))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    *shown, imported = ended.stdout.splitlines()
    assert imported == "[]"
    listed = [line.split()[1] for line in shown if re.match(r"│ [a-z]", line)]
    assert listed == [*COMMANDS]


def test_the_help_of_no_command_waits_for_mindspore() -> None:
    code = (
        "import sys; from flows.console import console; console().resolved_commands();"
        "print(sorted({'mindspore', 'torch', 'matplotlib', 'ray', 'boto3'} & {*sys.modules}))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stdout == "[]\n"


@pytest.mark.parametrize(("words", "seconds"), [(["--help"], 0.7), (["models"], 2.0)])
def test_what_people_look_up_is_shown_at_once(words: list[str], seconds: float) -> None:
    """By the processor's time, of the best of three, as the machine may be busy."""
    taken = []
    while len(taken) < 3 and min(taken, default=seconds) >= seconds:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [SKNET, *words], env={}, capture_output=True, check=True, timeout=HANG_SECONDS
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(taken) < seconds


def test_the_version_is_that_of_the_package() -> None:
    ended = subprocess.run([SKNET, "--version"], capture_output=True, text=True, check=True)
    assert ended.stdout == f"sknet {version('sknet')}\n"


def test_it_ends_in_silence_when_nobody_reads_on() -> None:
    """As in `sknet recipes show skresnet18_digits | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [SKNET, "recipes", "show", "skresnet18_digits"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    os.close(writer)
    said = ended.stderr.splitlines()
    # On a loaded machine, the imports take long.
    assert [line for line in said if not line.endswith(" start: loading the libraries")] == []
    assert ended.returncode == 1


@pytest.mark.parametrize("name", ALL)
def test_the_help_of_a_command_has_one_example_which_it_understands(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(console(), [*name.split()[1:], "--help"]) == 0
    assert capsys.readouterr().out.count("Example: ") == 1
    (example,) = re.findall(r"Example: `(.+)`", str(ALL[name].default_command.__doc__))
    assert example.startswith(f"{name} ") or example == name
    assert len(example) <= 70  # help texts are 80 wide
    words = shlex.split(example.partition(" > ")[0])[1:]
    console().parse_args(words, exit_on_error=False, print_error=False)


@pytest.mark.parametrize("words", ["", "run", "recipes", "store", "passport verify"])
def test_the_help_has_a_short_option(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert start(console(), [*words.split(), "--help"]) == 0
    help_text = capsys.readouterr().out
    assert start(console(), [*words.split(), "-h"]) == 0
    assert capsys.readouterr().out == help_text


@pytest.mark.parametrize("name", ALL)
def test_every_option_has_a_help_and_is_found_in_kebab_case_and_in_snake_case(name: str) -> None:
    arguments = [
        each for each in ALL[name].assemble_argument_collection(parse_docstring=True) if each.show
    ]
    for argument in arguments:
        assert argument.parameter.help, argument.name
        # The library would take 1.5 for 2.
        is_number = {int, float} & {argument.hint, *get_args(argument.hint)}
        assert argument.parameter.converter or not is_number, argument.name
        for option in argument.names:
            body = option.removeprefix("--")
            for spelling in (f"--{body.replace('-', '_')}", f"--{body.replace('_', '-')}"):
                if len(body) > 1 and option.startswith("--"):
                    argument.match(spelling)  # raises ValueError if it doesn't


@pytest.mark.parametrize("option", ["--data-dir", "--data_dir"])
def test_options_are_those_of_the_module_in_both_spellings(
    capsys: pytest.CaptureFixture[str], option: str
) -> None:
    assert start(console(), ["train", option, "x"]) == 2
    assert capsys.readouterr().err == "error: --config is missing: --help lists all options\n"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("trian", "no command 'trian' (did you mean train?): expected run, train, "),
        ("recipes shw", "no command 'shw' (did you mean show?): expected list, show"),
        ("store lss", "no command 'lss' (did you mean ls?): expected ls, show, "),
        ("train --confg x", "no option --confg (did you mean --config?): --help lists all options"),
        (
            "train --data_dir d --config=r --ckpt_savedir=x",
            "no option --ckpt_savedir (did you mean --ckpt-save-dir?): --help lists all options",
        ),
        ("train --config", "--config needs a value: --help shows which"),
        ("train", "--data-dir is missing: --help lists all options"),
        ("store show", "ARTIFACT is missing: --help lists all options"),
        ("doctor here", "'here' is not understood here: --help lists all options"),
        (
            "train --config r --data-dir d --distribute maybe",
            "--distribute is 'maybe': expected True or False",
        ),
        ("run --on-leak hide", "--on-leak is 'hide': expected warn or refuse or drop"),
        ("models --resolution 31", "--resolution: '31' is not a whole number from 32 to 2048"),
        ("models --resolution 224.4", "--resolution: '224.4' is not a whole number"),
        ("store ls --quiet --verbose", "--quiet and --verbose contradict each other: leave one"),
        ("run --workers 0", "--workers: '0' is not a whole number of at least 1"),
    ],
)
def test_wrong_words_are_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], words: str, line: str
) -> None:
    assert start(console(), words.split()) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"error: {line}")
    assert said.err.count("\n") == 1


def test_the_page_has_all_commands_and_other_names_of_them() -> None:
    page = (ROOT / "docs/command.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| .+ \| (?:`python -m ([\w.]+)`)?", page, re.MULTILINE)
    assert [name for name, _ in rows] == [*COMMANDS]
    for name, module in rows[:-1]:
        assert callable(console()[name].default_command or console()[name])
        assert find_spec(module) is not None, module


@pytest.mark.parametrize("command", documented_commands("docs/command.md"))
def test_a_command_of_the_page_does_what_it_says(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    keep_handlers: None,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(ARCHITECTURES, "tiny", raising=False)  # that of tests is counted when asked
    name, *words = shlex.split(command.partition(" > ")[0])
    assert name == "sknet"
    assert start(console(), words) == 0
    said = capsys.readouterr()
    assert said.out
    assert "error" not in said.err
    assert [*tmp_path.iterdir()] == []


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script that `sknet completion bash` prints."""
    path = tmp_path_factory.mktemp("completion") / "sknet"
    with path.open("w") as file, redirect_stdout(file):
        assert start(console(), ["completion", "bash"]) == 0
    return path


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("sknet tra", ["train"]),
        ("sknet store re", ["refs", "repair"]),
        ("sknet run --on", ["--on-leak"]),
        ("sknet run --on-leak ", ["warn", "refuse", "drop"]),
    ],
)
def test_bash_completes_commands_options_and_choices(
    script: Path, typed: str, completed: list[str]
) -> None:
    # What bash itself does when a user presses Tab.
    press_tab = """
        source "$1"
        COMP_WORDS=($2); [[ $2 == *" " ]] && COMP_WORDS+=("")
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMP_LINE=$2 COMP_POINT=${#2}
        function=$(complete -p sknet | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
        "$function" sknet "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    ended = subprocess.run(
        ["bash", "-c", press_tab, "bash", script, typed],
        capture_output=True,
        text=True,
        check=True,
        timeout=HANG_SECONDS,
    )
    assert [word.strip() for word in ended.stdout.splitlines()] == completed
    assert ended.stderr == ""


# The console script, in which the import of a command takes for ever.
STUCK = """
import sys, time
from importlib.abc import MetaPathFinder

class Stuck(MetaPathFinder):
    def find_spec(self, name, *_):
        if name == "flows.train_sknet":
            print("importing", flush=True)
            time.sleep(600)

sys.meta_path.insert(0, Stuck())
from flows.console import main
sys.exit(main())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_command_is_imported_ends_it_with_one_line(
    tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "sknet").write_text(STUCK)
    process = subprocess.Popen(
        [*WITH_SIGINT, sys.executable, tmp_path / "sknet", "run", "--quiet"],
        env={"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=HANG_SECONDS)
    assert (process.returncode, errors) == (1, f"{INTERRUPTED}\n")
