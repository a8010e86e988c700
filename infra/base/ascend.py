"""Where the files of Ascend's devices, driver and CANN are, and how their version files are read.

CANN is what Ascend devices are programmed with; its set_env.sh sets what its programs need.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

ROOT = Path("/usr/local/Ascend")
"""Where driver, firmware and CANN are installed, or mounted in a container."""

DEVICE_FILES = Path("/dev")
"""Directory of the device files: davinci0 is the first card."""

INSTALL_INFO = Path("/etc/ascend_install.info")
"""File in which the driver's installer writes where it installed, if that isn't the root, too."""

SET_ENV = "SKNET_SET_ENV"
"""Variable with the path of CANN's set_env.sh, which comes before any other."""

DRIVER_LIBRARY = "libascend_hal.so"
"""The driver's library that CANN's are linked with, in driver/lib64/driver."""

MAX_FILE = 1 << 20
"""Bytes read from a version file or from MindSpore's check of versions, which has 24 KB."""


def count_device_files(directory: Path = DEVICE_FILES) -> int:
    """Return the number of cards for which the driver has made a file, such as `davinci0`."""
    names = (path.name for path in directory.glob("davinci*"))
    return sum(re.fullmatch(r"davinci\d+", name, re.ASCII) is not None for name in names)


def driver_directory(root: Path = ROOT, install_info: Path = INSTALL_INFO) -> Path:
    """Return where the driver is, or would be: what holds its version.info.

    Args:
        root: The usual place. A container may have the driver here and the host's `install_info`.
        install_info: What the driver's installer wrote. If it names a place, that comes first.
    """
    usual = root / "driver"
    place = read_names(install_info).get("driver_install_path_param")
    if not place:
        return usual
    named = Path(place) / "driver"
    has_usual = (usual / "version.info").is_file() and not (named / "version.info").is_file()
    return usual if has_usual else named


def read_names(path: Path) -> dict[str, str]:
    """Return the `name=value` lines of a file, with names in lower case; none if it's unreadable.

    It may be a version.info, or ascend_toolkit_install.info or ascend_install.info.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE).decode("utf-8", "replace")
    except OSError:
        return {}
    return parse_version_file(text)


def parse_version_file(text: str) -> dict[str, str]:
    """Parse `name=value` lines, and return the values by names in lower case."""
    lines = (line.partition("=") for line in text.splitlines())
    return {name.strip().lower(): value.strip() for name, equals, value in lines if equals}


def selected_home(environment: Mapping[str, str]) -> Path | None:
    """Return the directory of the CANN that an environment selects."""
    home = environment.get("ASCEND_HOME_PATH") or environment.get("ASCEND_TOOLKIT_HOME")
    return Path(home) if home else None


def find_set_env(environment: Mapping[str, str], root: Path = ROOT) -> Path | None:
    """Return the set_env.sh of the CANN to use, in the order of infra/cann.sh.

    The file that SKNET_SET_ENV names is returned even if it can't be read; nothing replaces it.
    Then comes that of the selected CANN, beside or above its directory, else an installed one: CANN
    8.5 and later is in `cann`, older ones are in `ascend-toolkit`.
    """
    if given := environment.get(SET_ENV):
        return Path(given)
    if selected := selected_home(environment):
        homes = [selected, selected.parent]
    else:
        homes = [root / "cann", root / "ascend-toolkit"]
    return next((file for home in homes if is_readable(file := home / "set_env.sh")), None)


def is_readable(file: Path) -> bool:
    """Tell whether this is a file that may be read."""
    return file.is_file() and os.access(file, os.R_OK)
