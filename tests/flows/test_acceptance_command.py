"""python -m flows.acceptance: what it refuses, what it goes on after, and what it runs again.

The checks here are replaced by small ones of the tests: tests/flows/test_acceptance_miniature.py
runs the real ones.
"""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import flows.acceptance.__main__ as command
from flows.acceptance.bench import Bench, Measured
from flows.acceptance.checks import CHECKS
from flows.acceptance.figures import Setting
from flows.acceptance.lines import lines_of
from flows.acceptance.trainings import LineError
from infra.base.interrupts import INTERRUPTED
from infra.base.locks import exclusive
from sknet.device import Cards

Ended = subprocess.CompletedProcess[str]
LINES = lines_of(Setting(device_target="CPU", cards=2, hosts=1, miniature=True))
NOT_ON_CPU = {"losses", "step-time", "compile-time", "compile-cache", "data-wait", "bind-core"}
RUN = [line.name for line in LINES if line.name not in NOT_ON_CPU | {"hosts"}]


@pytest.fixture
def accept(capfd: pytest.CaptureFixture[str], keep_handlers: None) -> Callable[..., Ended]:
    """Calls the command with options."""

    def call(*options: object) -> Ended:
        words = [*map(str, options)]
        capfd.readouterr()
        try:
            code = int(command.run(command.parser().parse_args(words)))
        except SystemExit as ended:
            code = int(str(ended.code))
        return Ended(words, code, *capfd.readouterr())

    return call


class Checks:
    """Checks that pass at once, unless a test replaces them; it counts how often each is run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.run: list[str] = []
        self.replaced: dict[str, Callable[[Bench], Measured]] = {}
        for line in LINES:
            monkeypatch.setitem(CHECKS, line.name, self._check(line.name))

    def _check(self, name: str) -> Callable[[Bench], Measured]:
        figures = next(line for line in LINES if line.name == name).figures
        good = {
            figure.name: figure.bound if figure.bound is not None else 1.0 for figure in figures
        }

        def check(bench: Bench) -> Measured:
            self.run.append(name)
            if name in self.replaced:
                return self.replaced[name](bench)
            return Measured(good, bench.directory / name / "log.txt")

        return check


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> Checks:
    return Checks(monkeypatch)


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """What the machine says of itself, free to be changed."""
    machine = command.look_at("CPU")
    inputs = dict(machine.inputs)
    changed = command.Machine(machine.versions, inputs, None)
    monkeypatch.setattr(command, "look_at", lambda _: changed)
    yield inputs


def statuses(out: Path) -> dict[str, str]:
    document = json.loads((out / "acceptance.json").read_bytes())
    return {line["name"]: line["status"] for line in document["lines"]}


def fail(_: Bench) -> Measured:
    raise LineError("the device is on fire", Path("/var/log/fire"))


def break_down(_: Bench) -> Measured:
    raise ZeroDivisionError("a figure\nof two lines")


def interrupt(_: Bench) -> Measured:
    raise KeyboardInterrupt


CARDS = "8 Ascend cards, but no driver (no /usr/local/Ascend/driver/version.info)"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "device CPU (no Ascend card (no /dev/davinci<N>)): the published recipe would take"),
        (["--device_target=CPU"], "device CPU (chosen by --device_target): the published recipe"),
        (["--device_target=Ascend"], f"--device_target is Ascend, but this machine has {CARDS}"),
        (["--miniature", "--data=imagenet"], "--miniature trains on digits, not on imagenet"),
        (["--device_target=GPU", "--miniature"], "invalid choice: 'GPU'"),
        (["--miniature", "--cards=0"], "'0' is not a whole number of at least 1"),
        (["--miniature", "--hosts=two"], "'two' is not a whole number of at least 1"),
        (["--miniature", "--only=speed"], "invalid choice: 'speed'"),
    ],
)
def test_a_mistake_is_refused_in_one_line_before_anything_is_done(
    accept: Callable[..., Ended],
    checks: Checks,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    options: list[str],
    message: str,
) -> None:
    monkeypatch.setattr(command, "find_cards", lambda: Cards(8, CARDS, have_driver=False))
    ended = accept("--out", tmp_path / "out", *options)
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.removeprefix(command.parser().format_usage()).splitlines()
    assert message in line
    assert checks.run == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--data is missing: a directory of shards, or of ImageNet"),
        (["--data=nowhere"], "nowhere"),
        (["--data=damaged"], "shards.json is no valid Shards"),
    ],
)
def test_on_cards_the_data_is_looked_at_first(
    accept: Callable[..., Ended],
    checks: Checks,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    options: list[str],
    message: str,
) -> None:
    monkeypatch.setattr(command, "find_cards", lambda: Cards(8, "8 Ascend cards, driver 26.0"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "shards.json").write_text("{}")
    ended = accept("--out", tmp_path / "out", "--device_target=Ascend", *options)
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert message in line
    assert not (tmp_path / "out").exists()


def test_a_directory_with_other_files_is_refused(
    accept: Callable[..., Ended], checks: Checks, tmp_path: Path
) -> None:
    (tmp_path / "photo.jpg").touch()
    for out, message in (
        (tmp_path, f"error: --out {tmp_path} is not empty: give another directory\n"),
        (
            tmp_path / "photo.jpg",
            f"error: --out {tmp_path}/photo.jpg is a file: expected a directory\n",
        ),
    ):
        ended = accept("--miniature", "--out", out)
        assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", message)
    assert checks.run == []


def test_a_second_call_in_one_directory_is_refused(
    accept: Callable[..., Ended], checks: Checks, tmp_path: Path
) -> None:
    with exclusive(tmp_path / ".lock"):
        ended = accept("--miniature", "--out", tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"error: another acceptance is at work in {tmp_path}: wait for it\n"
    assert checks.run == []
    (tmp_path / ".lock").touch()  # of a call that was killed
    assert accept("--miniature", "--out", tmp_path).returncode == 0


def test_it_goes_on_after_lines_that_fail(
    accept: Callable[..., Ended], checks: Checks, tmp_path: Path
) -> None:
    checks.replaced = {"doctor": fail, "bits": break_down}
    ended = accept("--miniature", "--out", tmp_path)
    assert ended.returncode == 1
    assert checks.run == RUN
    found = statuses(tmp_path)
    assert {name for name in found if found[name] == "fail"} == {"doctor", "bits"}
    assert {name for name in found if found[name] == "not run"} == NOT_ON_CPU | {"hosts"}
    assert "the device is on fire; see /var/log/fire" in ended.stdout
    assert "ZeroDivisionError: a figure; see lines/bits/error.txt" in ended.stdout
    assert "of two lines" in (tmp_path / "lines/bits/error.txt").read_text()
    assert "--only doctor --only bits" in ended.stdout
    assert "| doctor | **fail** |" in (tmp_path / "acceptance.md").read_text()


def test_a_line_is_not_run_without_the_line_that_it_needs(
    accept: Callable[..., Ended], checks: Checks, tmp_path: Path
) -> None:
    checks.replaced = {"training": fail}
    accept("--miniature", "--out", tmp_path)
    assert checks.run == [
        *("doctor", "devices", "data", "training", "nan", "precision", "normalisation"),
    ]
    document = json.loads((tmp_path / "acceptance.json").read_bytes())
    (kill,) = (line for line in document["lines"] if line["name"] == "kill")
    assert (kill["status"], kill["reason"]) == ("not run", "needs line training: fail")
    assert (kill["minutes"], kill["log"], kill["inputs"]) == (None, None, None)
    assert all(figure["measured"] is None for figure in kill["figures"])


def test_an_interrupted_call_is_resumed_with_the_lines_that_are_missing(
    accept: Callable[..., Ended], checks: Checks, tmp_path: Path
) -> None:
    checks.replaced = {"kill": interrupt, "devices": fail}
    ended = accept("--miniature", "--out", tmp_path)
    assert ended.returncode == 1
    assert ended.stderr == f"{INTERRUPTED}\n"
    done = RUN[: RUN.index("kill")]
    assert checks.run == [*done, "kill"]
    found = statuses(tmp_path)
    assert found["kill"] == "not run"
    assert {name for name in found if found[name] != "not run"} == set(done)

    checks.run, checks.replaced = [], {}
    accept("--miniature", "--out", tmp_path)
    assert checks.run == RUN[RUN.index("kill") :]
    checks.run = []
    assert accept("--miniature", "--out", tmp_path).returncode == 1
    assert checks.run == []
    assert statuses(tmp_path)["devices"] == "fail"


def test_a_line_is_run_again_if_it_is_asked_for(
    accept: Callable[..., Ended], checks: Checks, tmp_path: Path
) -> None:
    checks.replaced = {"devices": fail}
    accept("--miniature", "--out", tmp_path)
    checks.run, checks.replaced = [], {}
    (tmp_path / "lines/devices/old.txt").touch()
    assert accept("--miniature", "--out", tmp_path, "--only=devices").returncode == 0
    assert checks.run == ["devices"]
    assert not (tmp_path / "lines/devices/old.txt").exists()


def test_a_line_is_measured_anew_with_all_lines_that_read_the_same_trainings(
    accept: Callable[..., Ended], checks: Checks, tmp_path: Path
) -> None:
    checks.replaced = {"training": fail}
    accept("--miniature", "--out", tmp_path)  # what waits for a line is run with it
    checks.run, checks.replaced = [], {}
    accept("--miniature", "--out", tmp_path, "--only=training")
    shared = ["training", "bits", "kill", "stop", "export", "jit-levels"]
    assert checks.run == shared
    trainings = ("training/undisturbed", "kill/killed", "bits/again", "nan/diverging")
    for name in trainings:
        (tmp_path / "lines" / name).mkdir(parents=True)
        (tmp_path / "lines" / name / "training.json").touch()
    checks.run = []
    ended = accept("--miniature", "--out", tmp_path, "--only=kill")
    assert checks.run == shared
    kept = [name for name in trainings if (tmp_path / "lines" / name).exists()]
    assert kept == ["bits/again", "nan/diverging"]
    assert (
        "also run, because of common trainings or needs: training, bits, stop, export, jit-levels\n"
    ) in ended.stdout
    checks.run = []
    accept("--miniature", "--out", tmp_path, "--only=nan")
    assert checks.run == ["nan"]


def test_lines_that_a_line_needs_are_run_before_it(
    accept: Callable[..., Ended], checks: Checks, tmp_path: Path
) -> None:
    accept("--miniature", "--out", tmp_path, "--only=bits")
    assert checks.run == ["data", "training", "bits"]
    assert statuses(tmp_path)["kill"] == "not run"


@pytest.mark.parametrize("options", [[], ["--only=kill"]])
def test_a_resumed_call_knows_which_lines_failed_before(
    accept: Callable[..., Ended], checks: Checks, tmp_path: Path, options: list[str]
) -> None:
    """The line kill compares no bytes if the line bits has failed."""
    seen: list[set[str]] = []

    def look(bench: Bench) -> Measured:
        seen.append(set(bench.failed))
        raise LineError("seen")

    checks.replaced = {"bits": fail, "kill": interrupt}
    accept("--miniature", "--out", tmp_path)
    checks.replaced = {"bits": fail, "kill": look}
    accept("--miniature", "--out", tmp_path, *options)
    assert seen == [{"bits"}]


def test_an_interrupted_repetition_does_not_keep_the_earlier_result(
    accept: Callable[..., Ended], checks: Checks, tmp_path: Path
) -> None:
    accept("--miniature", "--out", tmp_path)
    checks.replaced = {"bits": interrupt}
    accept("--miniature", "--out", tmp_path, "--only=bits")
    assert statuses(tmp_path)["bits"] == "not run"
    checks.run, checks.replaced = [], {}
    accept("--miniature", "--out", tmp_path)
    assert checks.run == ["bits", "kill", "stop", "export", "jit-levels"]


def test_lines_are_run_again_if_a_version_changes_and_say_which(
    accept: Callable[..., Ended], checks: Checks, versions: dict[str, str], tmp_path: Path
) -> None:
    versions["mindspore"] = "2.9.0"
    accept("--miniature", "--out", tmp_path)
    checks.run = []
    versions["mindspore"] = "2.10.0"
    ended = accept("--miniature", "--out", tmp_path)
    assert checks.run == RUN
    said = f"no longer valid (mindspore: 2.9.0 → 2.10.0): {', '.join(RUN)}\n"
    assert said in ended.stdout


def test_with_another_version_one_line_leaves_no_result_of_the_earlier_one(
    accept: Callable[..., Ended], checks: Checks, versions: dict[str, str], tmp_path: Path
) -> None:
    accept("--miniature", "--out", tmp_path)
    versions["mindspore"] = "2.11.0"
    accept("--miniature", "--out", tmp_path, "--only=doctor")
    found = statuses(tmp_path)
    assert [name for name in found if found[name] != "not run"] == ["doctor"]


@pytest.mark.parametrize("options", [[], ["--only=data"]])
def test_lines_are_run_again_if_the_data_changes(
    accept: Callable[..., Ended], checks: Checks, tmp_path: Path, options: list[str]
) -> None:
    """The shards are made by the line data, whose own result depends on them too."""
    shards = tmp_path / "out/shards/shards.json"
    figures = [figure.name for line in LINES if line.name == "data" for figure in line.figures]

    def make(bench: Bench) -> Measured:
        shards.parent.mkdir(exist_ok=True)
        shards.write_text("first" if not shards.exists() else "second")
        return Measured(dict.fromkeys(figures, 0.0), bench.directory)

    checks.replaced = {"data": make}
    accept("--miniature", "--out", tmp_path / "out")
    checks.run = []
    accept("--miniature", "--out", tmp_path / "out")
    assert checks.run == []
    if not options:
        shards.write_text("changed by hand")
    ended = accept("--miniature", "--out", tmp_path / "out", *options)
    assert checks.run == RUN[RUN.index("data") :]
    assert "no longer valid (shards: " in ended.stdout


def test_where_msrun_can_not_bind_cores_it_says_why(
    accept: Callable[..., Ended],
    checks: Checks,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(command, "find_cards", lambda: Cards(2, "2 Ascend cards, driver 26.0"))
    monkeypatch.setattr(command, "binding_obstacle", lambda: "there is no taskset")
    options = ("--miniature", "--device_target=Ascend", "--only=bind-core", "--out", tmp_path)
    ended = accept(*options)
    assert "bind_core has no effect on this host: there is no taskset" in ended.stdout
    assert checks.run == []
    assert statuses(tmp_path)["bind-core"] == "not run"


def test_programs_keep_their_caches_in_the_directory(
    accept: Callable[..., Ended], checks: Checks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a compilation of another day would make the first one fast."""
    monkeypatch.setenv("SKNET_CACHE", "before")
    seen: list[str] = []

    def look(bench: Bench) -> Measured:
        seen.append(command.os.environ["SKNET_CACHE"])
        raise LineError("seen")

    checks.replaced = {"doctor": look}
    accept("--miniature", "--out", tmp_path)
    assert seen == [str(tmp_path / "cache")]
    assert command.os.environ["SKNET_CACHE"] == "before"


def test_a_check_can_not_pass_without_a_figure(
    accept: Callable[..., Ended], checks: Checks, tmp_path: Path
) -> None:
    checks.replaced = {"export": lambda bench: Measured({}, bench.directory)}
    accept("--miniature", "--out", tmp_path)
    assert statuses(tmp_path)["export"] == "fail"
