"""Options that several commands share. Names and values are MindCV's where MindCV has the option.

What is declared here holds for `python -m sknet.train` as for `sknet train`: see
`infra.base.commands`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from infra.base.commands import HIDDEN, ConsoleOptions, Texts, parsed_by
from infra.base.options import fraction
from sknet.data.copies.leaks import ON_LEAK, OnLeak
from sknet.data.quarantine import DEFAULT_LIMIT

MaxQuarantine = Annotated[
    float | None, parsed_by(fraction), Parameter(show_default=str(DEFAULT_LIMIT))
]
"""A fraction of images; None: the default of `sknet.data.quarantine`."""


@dataclass(frozen=True, kw_only=True)
class LaunchedOptions(ConsoleOptions):
    """What a launcher tells a program, and what a program shows."""

    outcome_file: Annotated[Path | None, HIDDEN] = None
    """File for the outcome, because msrun loses the exit codes of its ranks."""
    progress_file: Annotated[Path | None, HIDDEN] = None
    """File for how far the program is."""


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """What happens to images that can't be used or are in several splits."""

    max_quarantine: MaxQuarantine = None
    """Largest fraction of unreadable images tolerated, from 0 to 1."""
    on_leak: OnLeak = ON_LEAK
    """What to do if an image is in several splits: record it (warn), refuse the source, or drop its
    copies from the split that matters less."""


@dataclass(frozen=True, kw_only=True)
class DeviceOptions:
    """The device, which MindCV's programs have too."""

    device_target: Annotated[str | None, Parameter(show_default="the recipe's, which is auto")] = (
        None
    )
    """CPU, Ascend, or auto: Ascend if this machine has cards and their driver, else CPU."""


@dataclass(frozen=True, kw_only=True)
class RankOptions:
    """Whether a process is one of several ranks."""

    distribute: Annotated[Literal[True, False] | None, Parameter(show_default="detected")] = None
    """True for a rank that msrun started, False to work alone."""


@dataclass(frozen=True, kw_only=True)
class DataOptions(RankOptions, DeviceOptions, ImageOptions, LaunchedOptions):
    """What training and validation share."""

    data_dir: str
    """Directory of image folders or of shards, or `digits`."""
    set: Texts = ()
    """KEY=VALUE: replace a value of the recipe; may be repeated."""
    shards_dir: Path = Path("shards")
    """Directory for shards converted from `--data-dir`."""
