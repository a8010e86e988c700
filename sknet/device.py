"""The device that computes, and why: what was chosen, and whether Ascend cards are there.

Nothing here imports MindSpore, which takes seconds and on Ascend needs CANN. So a machine with
cards and a broken CANN counts as one with cards, and its training fails instead of crawling on CPU.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from sknet.errors import UserError
from sknet.recipe import Recipe

Target = Literal["CPU", "Ascend"]
"""A device as MindSpore names it."""

Choice = Literal["auto", "CPU", "Ascend"]
"""What a user can choose."""

CHOICES: tuple[str, ...] = get_args(Choice)

DEVICE_FILES = Path("/dev")
"""Directory of the device files: davinci0 is the first card."""

ASCEND = Path("/usr/local/Ascend")
"""Where driver and CANN are installed, or mounted in a container."""

# Since CANN 8.5, and before.
CANN_DIRECTORIES = ("cann", "ascend-toolkit")

MAX_VERSION_BYTES = 1 << 16


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


def find_cards(device_files: Path = DEVICE_FILES, ascend: Path = ASCEND) -> Cards:
    """Look for Ascend cards on this machine.

    Args:
        device_files: Directory in which a card N has the file `davinciN`.
        ascend: Directory in which the driver has the file `driver/version.info`.
    """
    names = [path.name for path in device_files.glob("davinci*")]
    number = sum(re.fullmatch(r"davinci\d+", name, re.ASCII) is not None for name in names)
    if not number:
        return Cards(0, f"no Ascend card (no {device_files}/davinci<N>)")
    cards = f"{number} Ascend card{'s' if number > 1 else ''}"
    version = ascend / "driver" / "version.info"
    if not version.is_file():
        return Cards(number, f"{cards}, but no driver (no {version})", have_driver=False)
    return Cards(number, f"{cards}, driver {_version(version)}")


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
        UserError: The option is no device.
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
    return Device("CPU", cards.said, is_replacement=chosen == "Ascend")


def describe_failure(error: str, cards: Cards, ascend: Path = ASCEND) -> str:
    """Return in one line why MindSpore can't use Ascend, and the cure.

    Args:
        error: MindSpore's message. If a library can't be loaded, it names that in a line of its
            own; the libraries of the following lines are missing because of the first.
        cards: The cards of this machine.
        ascend: Directory in which CANN is installed.
    """
    lines = [line.strip() for line in error.splitlines()]
    loading = re.compile(r"Load dynamic library: \S+ failed\. (.+)")
    causes = [match[1] for line in lines if (match := loading.fullmatch(line))]
    cause = causes[0] if causes else next(filter(None, lines), "MindSpore gives no reason")
    scripts = [ascend / directory / "set_env.sh" for directory in CANN_DIRECTORIES]
    script = next((path for path in scripts if path.is_file()), None)
    cure = f"`source {script}`" if script else f"install CANN and `source {scripts[0]}`"
    if not cards.number:
        return f"{cards.said}; {cause}: use CPU; on a machine with cards, {cure} first"
    return f"{cause}: {cure}, then run the same command again"


def _version(file: Path) -> str:
    """Return the version in a `version.info`, whose lines are `Version=24.1.0` and the like."""
    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            text = lines.read(MAX_VERSION_BYTES)
    except OSError:
        text = ""
    found = re.search(r"^version\s*=\s*(\S+)", text, re.IGNORECASE | re.MULTILINE)
    return found[1] if found else "of unknown version"
