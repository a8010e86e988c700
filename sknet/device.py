"""The device that computes, and why: what was chosen, and whether Ascend cards are there.

Nothing here imports MindSpore, which takes seconds and on Ascend needs CANN. So a machine with
cards and a broken CANN counts as one with cards, and its training fails instead of crawling on CPU.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from infra.base.ascend import (
    DEVICE_FILES,
    DRIVER_LIBRARY,
    INSTALL_INFO,
    ROOT,
    SET_ENV,
    count_device_files,
    driver_directory,
    find_set_env,
    is_readable,
    read_names,
)
from sknet.errors import UserError
from sknet.recipe import Recipe

Target = Literal["CPU", "Ascend"]
"""A device as MindSpore names it."""

Choice = Literal["auto", "CPU", "Ascend"]
"""What a user can choose."""

CHOICES: tuple[str, ...] = get_args(Choice)

DOCTOR = "`python -m infra.doctor --ascend` says what is missing"


@dataclass(frozen=True)
class Cards:
    """The Ascend cards of a machine or a cluster."""

    number: int
    said: str
    """What was found or is missing, for people."""
    have_driver: bool = True

    @property
    def usable(self) -> bool:
        """Whether a training can use them."""
        return self.number > 0 and self.have_driver


@dataclass(frozen=True)
class Device:
    """The device that computes."""

    target: Target
    reason: str
    is_replacement: bool = False
    """Whether it replaces Ascend, which the recipe asks for and which isn't there."""

    def __str__(self) -> str:
        if self.is_replacement:
            return f"warning: device {self.target}, but the recipe is for Ascend: {self.reason}"
        return f"device {self.target}: {self.reason}"


def find_cards(
    device_files: Path = DEVICE_FILES, ascend: Path = ROOT, *, install_info: Path = INSTALL_INFO
) -> Cards:
    """Look for Ascend cards on this machine.

    Args:
        device_files: Directory in which a card N has the file `davinciN`.
        ascend: Directory in which the driver has the file `driver/version.info`.
        install_info: File in which the driver's installer says that it is in another directory.
    """
    number = count_device_files(device_files)
    if not number:
        return Cards(0, f"no Ascend card (no {device_files}/davinci<N>)")
    cards = f"{number} Ascend card{'s' if number > 1 else ''}"
    file = driver_directory(ascend, install_info) / "version.info"
    if not file.is_file():
        return Cards(number, f"{cards}, but no driver (no {file})", have_driver=False)
    version = read_names(file).get("version") or "of unknown version"
    return Cards(number, f"{cards}, driver {version}")


def choose_device(
    option: str | None, recipe: Recipe | None, find: Callable[[], Cards] = find_cards
) -> Device:
    """Return the device that an option or, without one, a recipe chooses.

    Args:
        option: Value of --device_target. Ascend is then taken as it is, without looking for cards.
        recipe: The recipe, if there is one. If it asks for Ascend and there is none, CPU replaces
            it.
        find: Looks for cards, if the choice depends on them.

    Raises:
        UserError: The option is no device; or there are cards without a driver, and nobody chose.
    """
    if option is not None and option not in CHOICES:
        raise UserError(f"--device_target is {option!r}, expected one of {', '.join(CHOICES)}")
    chosen = option or (recipe.device_target if recipe else "auto")
    by = "--device_target" if option else "the recipe"
    match chosen:
        case "CPU":
            return Device("CPU", f"chosen by {by}")
        case "Ascend" if option:
            return Device("Ascend", f"chosen by {by}")
    cards = find()
    if cards.usable:
        return Device("Ascend", cards.said)
    if cards.number:
        raise UserError(
            f"{cards.said}: install the driver or mount it, or give --device_target CPU"
        )
    return Device("CPU", cards.said, is_replacement=chosen == "Ascend")


def describe_failure(
    error: str, cards: Cards, ascend: Path = ROOT, *, environment: Mapping[str, str] = os.environ
) -> str:
    """Return in one line why MindSpore can't use Ascend, and the cure.

    Args:
        error: MindSpore's message. If a library can't be loaded, it names that in a line of its
            own; the libraries of the following lines are missing because of the first.
        cards: The cards of this machine.
        ascend: Directory in which CANN is installed.
        environment: The environment of this process, which CANN's set_env.sh may have changed.
    """
    lines = [line.strip() for line in error.splitlines()]
    loading = re.compile(r"Load dynamic library: \S+ failed\. (.+)")
    causes = [match[1] for line in lines if (match := loading.fullmatch(line))]
    cause = causes[0] if causes else next(filter(None, lines), "MindSpore gives no reason")
    # The driver's library isn't CANN's, so that sourcing doesn't help either.
    is_sourced = environment.get("ASCEND_HOME_PATH") or cause.startswith(DRIVER_LIBRARY)
    cure = "" if is_sourced else _how_to_source(find_set_env(environment, ascend), ascend)
    if not cards.number:
        elsewhere = f"; on a machine with cards, {cure} first" if cure else ""
        return f"{cards.said}; {cause}: use CPU{elsewhere}"
    return f"{cause}: " + (f"{cure}, then run the same command again" if cure else DOCTOR)


def _how_to_source(script: Path | None, ascend: Path) -> str:
    if script is None:
        return f"install CANN and `source {ascend / 'cann' / 'set_env.sh'}`"
    if not is_readable(script):
        return f"correct {SET_ENV} ({script} can't be read)"
    return f"`source {script}`"
