"""Which releases of driver, firmware and CANN belong to a MindSpore: published ones only.

A release that isn't here was not found published; that is said, and nothing is guessed.
"""

import re
from dataclasses import dataclass

_MINDCV = "https://github.com/mindspore-lab/mindcv/blob/main/configs/sknet/README.md"
_TRANSFORMERS = "https://www.mindspore.cn/mindformers/docs/en/r1.9.0/installation.html"


@dataclass(frozen=True, slots=True)
class Release:
    """One line of a published table."""

    mindspore: str
    driver: str
    """Of the driver, and of the package that the firmware comes in."""
    cann: str
    source: str
    firmware: str | None = None
    """Its own number, where it was published."""


RELEASES = (
    Release("2.5.0", "24.1.0", "8.0.0.beta1", _MINDCV, firmware="7.5.0.3.220"),
    Release("2.6.0rc1", "25.0.RC1", "8.1.RC1", _TRANSFORMERS),
    Release("2.7.0", "25.2.0", "8.2.RC1", _TRANSFORMERS),
    Release("2.7.1", "25.3.RC1", "8.3.RC1", _TRANSFORMERS),
    Release("2.7.2", "25.5.0", "8.5.0", _TRANSFORMERS),
    Release("2.9.0", "26.0.RC1", "9.0.0", _TRANSFORMERS),
)


def release_of(mindspore: str) -> Release | None:
    """What was published for a MindSpore."""
    return next((each for each in RELEASES if each.mindspore == mindspore), None)


def same_release(one: str, other: str) -> bool:
    """Whether two names mean one release.

    Case differs between tables and version files (24.1.RC3, 24.1.rc3). The community edition's
    `.beta1` does too: tables of different years give 8.0.RC2.beta1 and 8.0.RC2 for one MindSpore.
    """
    return _canonical(one) == _canonical(other)


def _canonical(version: str) -> str:
    return re.sub(r"[.-]beta\.?\d+$", "", version.strip().lower())
