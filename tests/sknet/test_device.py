"""Which device computes: found on machines that the test makes, or chosen by option and recipe."""

import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from sknet.device import Cards, Device, choose_device, describe_failure, find_cards
from tests.processes import ROOT
from tests.refusals import refusal
from tests.sknet.recipes import recipe

MISSING = "libge_runner.so: cannot open shared object file: No such file or directory"
NO_CARD = "Unsupported device target Ascend. This process only supports one of the ['CPU']."
# What MindSpore 2.10 raises where CANN is missing.
NO_CANN = f"""{NO_CARD} Please check whether the Ascend environment is installed.

----------------------------------------------------
- Device load error message:
----------------------------------------------------
Load dynamic library: libmindspore_ascend.so.2 failed. {MISSING}
Load dynamic library: libmindspore_ops_ascend.so failed. libmindspore_ascend_res_manager.so: …
"""


class Machine:
    """The directories of a machine that hold the files of cards, driver and CANN."""

    def __init__(self, root: Path) -> None:
        self.dev, self.ascend = root / "dev", root / "usr/local/Ascend"
        self.install_info = root / "etc/ascend_install.info"
        self.dev.mkdir()

    def with_cards(self, number: int) -> "Machine":
        for card in range(number):
            (self.dev / f"davinci{card}").touch()
        # They exist on every machine with a driver, also in containers without a card.
        for name in ("davinci_manager", "devmm_svm", "hisi_hdc", "null"):
            (self.dev / name).touch()
        return self

    def with_driver(self, text: str = "Version=24.1.0\nascendhal_version=7.35.23\n") -> "Machine":
        (self.ascend / "driver").mkdir(parents=True)
        (self.ascend / "driver/version.info").write_text(text)
        return self

    def with_cann(self, directory: str) -> "Machine":
        (self.ascend / directory).mkdir(parents=True)
        (self.ascend / directory / "set_env.sh").touch()
        return self

    def cards(self) -> Cards:
        return find_cards(self.dev, self.ascend, install_info=self.install_info)

    def failure(self, error: str, **environment: str) -> str:
        return describe_failure(error, self.cards(), self.ascend, environment=environment)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_machine_with_cards_and_their_driver_is_found_even_without_cann(machine: Machine) -> None:
    cards = machine.with_cards(8).with_driver().cards()
    assert (cards.number, cards.usable) == (8, True)
    assert cards.said == "8 Ascend cards, driver 24.1.0"


def test_a_single_card_is_found(machine: Machine) -> None:
    assert machine.with_cards(1).with_driver().cards().said == "1 Ascend card, driver 24.1.0"


def test_a_driver_whose_version_cannot_be_read_is_still_one(machine: Machine) -> None:
    cards = machine.with_cards(2).with_driver("package_version: 1").cards()
    assert (cards.usable, cards.said) == (True, "2 Ascend cards, driver of unknown version")


def test_a_machine_without_cards_is_told_by_the_missing_device_files(machine: Machine) -> None:
    cards = machine.with_cards(0).with_driver().cards()
    assert (cards.number, cards.usable) == (0, False)
    assert cards.said == f"no Ascend card (no {machine.dev}/davinci<N>)"


def test_cards_without_a_driver_are_not_usable(machine: Machine) -> None:
    cards = machine.with_cards(2).cards()
    assert (cards.number, cards.usable) == (2, False)
    version = machine.ascend / "driver/version.info"
    assert cards.said == f"2 Ascend cards, but no driver (no {version})"


def test_the_driver_may_be_where_its_installer_says(machine: Machine, tmp_path: Path) -> None:
    other = tmp_path / "opt/Ascend"
    machine.install_info.parent.mkdir()
    machine.install_info.write_text(f"UserName=me\nDriver_Install_Path_Param={other}\n")
    missing = f"1 Ascend card, but no driver (no {other}/driver/version.info)"
    assert machine.with_cards(1).cards().said == missing
    machine.ascend = other
    machine.with_driver()
    machine.ascend = tmp_path / "usr/local/Ascend"
    assert machine.cards().said == "1 Ascend card, driver 24.1.0"


def test_this_machine_is_looked_at_without_parameters() -> None:
    assert find_cards() == find_cards(Path("/dev"), Path("/usr/local/Ascend"))


EIGHT = Cards(8, "8 Ascend cards, driver 24.1.0")
NONE = Cards(0, "no Ascend card (no /dev/davinci<N>)")
BROKEN = Cards(8, "8 Ascend cards, but no driver", have_driver=False)


@pytest.mark.parametrize(
    ("option", "by_recipe", "cards", "expected"),
    [
        (None, "auto", EIGHT, Device("Ascend", EIGHT.said)),
        (None, "auto", NONE, Device("CPU", NONE.said)),
        (None, "Ascend", EIGHT, Device("Ascend", EIGHT.said)),
        (None, "Ascend", NONE, Device("CPU", NONE.said, is_replacement=True)),
        (None, "CPU", EIGHT, Device("CPU", "chosen by the recipe")),
        ("auto", "CPU", EIGHT, Device("Ascend", EIGHT.said)),
        ("auto", "Ascend", NONE, Device("CPU", NONE.said)),
        ("CPU", "Ascend", EIGHT, Device("CPU", "chosen by --device_target")),
        ("Ascend", "CPU", EIGHT, Device("Ascend", "chosen by --device_target")),
        ("CPU", "Ascend", BROKEN, Device("CPU", "chosen by --device_target")),
        # MindSpore then says what is missing.
        ("Ascend", "auto", NONE, Device("Ascend", "chosen by --device_target")),
    ],
)
def test_the_option_comes_before_the_recipe_and_auto_takes_ascend_if_it_is_there(
    option: str | None, by_recipe: str, cards: Cards, expected: Device
) -> None:
    assert choose_device(option, recipe(device_target=by_recipe), lambda: cards) == expected


@pytest.mark.parametrize(
    ("option", "by_recipe"), [(None, "auto"), ("auto", "CPU"), (None, "Ascend")]
)
def test_cards_without_a_driver_are_refused_and_never_left_idle(
    option: str | None, by_recipe: str
) -> None:
    choices = recipe(device_target=by_recipe)
    assert refusal(lambda: choose_device(option, choices, lambda: BROKEN)) == (
        "8 Ascend cards, but no driver: install the driver or mount it, or give --device_target CPU"
    )


def test_without_option_and_recipe_the_device_is_found() -> None:
    assert choose_device(None, None, lambda: EIGHT).target == "Ascend"


def test_cards_are_looked_for_only_if_the_choice_depends_on_them() -> None:
    def look() -> NoReturn:
        raise AssertionError

    assert choose_device("Ascend", recipe(), look).target == "Ascend"
    assert choose_device(None, recipe(device_target="CPU"), look).target == "CPU"


def test_the_line_of_a_log_says_the_device_and_why() -> None:
    found, missing = (choose_device(None, recipe(), find) for find in (lambda: EIGHT, lambda: NONE))
    assert str(found) == "device Ascend: 8 Ascend cards, driver 24.1.0"
    assert str(missing) == "device CPU: no Ascend card (no /dev/davinci<N>)"


def test_a_recipe_for_ascend_on_a_machine_without_cards_warns() -> None:
    assert str(choose_device(None, recipe(device_target="Ascend"), lambda: NONE)) == (
        "warning: device CPU, but the recipe is for Ascend: no Ascend card (no /dev/davinci<N>)"
    )


def test_an_unknown_device_is_refused() -> None:
    assert refusal(lambda: choose_device("GPU", recipe())) == (
        "--device_target is 'GPU', expected one of auto, CPU, Ascend"
    )


@pytest.mark.parametrize("directory", ["cann", "ascend-toolkit"])
def test_a_broken_cann_is_reported_with_its_cause_and_the_script_to_source(
    machine: Machine, directory: str
) -> None:
    machine.with_cards(8).with_driver().with_cann(directory)
    script = machine.ascend / directory / "set_env.sh"
    assert machine.failure(NO_CANN) == (
        f"{MISSING}: `source {script}`, then run the same command again"
    )


def test_the_script_of_the_newer_layout_comes_first(machine: Machine) -> None:
    machine.with_cards(8).with_driver().with_cann("ascend-toolkit").with_cann("cann")
    told = machine.failure(NO_CANN)
    assert f"`source {machine.ascend}/cann/set_env.sh`" in told


def test_a_missing_cann_is_to_be_installed(machine: Machine) -> None:
    machine.with_cards(8).with_driver()
    assert machine.failure(NO_CANN) == (
        f"{MISSING}: install CANN and `source {machine.ascend}/cann/set_env.sh`, "
        "then run the same command again"
    )


DOCTOR = "`python -m infra.doctor --ascend` says what is missing"
NO_DRIVER = "libascend_hal.so: cannot open shared object file: No such file or directory"


def test_a_cann_that_is_sourced_already_is_a_matter_for_the_doctor(machine: Machine) -> None:
    machine.with_cards(8).with_driver().with_cann("cann")
    home = str(machine.ascend / "cann")
    assert machine.failure(NO_CANN, ASCEND_HOME_PATH=home) == f"{MISSING}: {DOCTOR}"


def test_a_missing_library_of_the_driver_is_a_matter_for_the_doctor(machine: Machine) -> None:
    machine.with_cards(8).with_driver().with_cann("cann")
    error = NO_CANN.replace(MISSING, NO_DRIVER)
    assert machine.failure(error) == f"{NO_DRIVER}: {DOCTOR}"


def test_without_a_card_a_sourced_cann_is_not_spoken_of(machine: Machine) -> None:
    told = machine.failure(NO_CANN, ASCEND_HOME_PATH="/mine")
    assert told == f"no Ascend card (no {machine.dev}/davinci<N>); {MISSING}: use CPU"


def test_the_script_that_a_variable_names_comes_first(machine: Machine, tmp_path: Path) -> None:
    machine.with_cards(8).with_driver().with_cann("cann")
    named = tmp_path / "mine.sh"
    end = "then run the same command again"
    assert machine.failure(NO_CANN, SKNET_SET_ENV=str(named)) == (
        f"{MISSING}: correct SKNET_SET_ENV ({named} can't be read), {end}"
    )
    named.touch()
    told = machine.failure(NO_CANN, SKNET_SET_ENV=str(named))
    assert told == f"{MISSING}: `source {named}`, {end}"


def test_without_a_card_the_reason_says_so_and_the_cause_too(machine: Machine) -> None:
    told = machine.failure(NO_CANN)
    assert told.startswith(f"no Ascend card (no {machine.dev}/davinci<N>); {MISSING}: use CPU; ")
    assert told.endswith("set_env.sh` first")


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (f"\n{NO_CARD}\n", NO_CARD),
        ("Initialize GE failed!\n\n----\n- C++ Call Stack\n----\n", "Initialize GE failed!"),
        ("", "MindSpore gives no reason"),
    ],
)
def test_another_failure_is_told_in_mindspores_first_line(
    machine: Machine, error: str, cause: str
) -> None:
    machine.with_cards(8).with_driver().with_cann("cann")
    told = machine.failure(error)
    assert told.startswith(f"{cause}: `source ")
    assert "\n" not in told


def test_a_wrong_choice_is_refused_before_mindspore_is_imported() -> None:
    program = """
import sys
from infra.base.commands import app_of, start
from sknet import export, train, validate
recipe = ["--config", "skresnet18_digits"]
options = [*recipe, "--data_dir", "none"]
weights = ["--ckpt_path", "none"]
for module, given in [
    (train, options),
    (validate, [*options, "--ckpt_path", "README.md"]),
    (export, [*recipe, *weights, "--format", "ONNX"]),
]:
    words = [*given, "--device_target", "GPU"]
    code = start(app_of(module.command, module.__name__), words)
    print(int(code), "mindspore" in sys.modules)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ended.stdout.splitlines() == ["2 False"] * 3
    line = "error: --device_target is 'GPU', expected one of auto, CPU, Ascend"
    assert ended.stderr.splitlines() == [line] * 3
