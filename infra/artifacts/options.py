"""The options of `sknet store`: one dataclass for each command."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from infra.artifacts.inspection import Level
from infra.base.commands import STORE, ConsoleOptions, Flag, Texts, parsed_by
from infra.base.options import number


@dataclass(frozen=True, kw_only=True)
class Options(ConsoleOptions):
    """What all commands have."""

    store: Annotated[str | None, STORE] = None
    """The store: a path, file:///abs/path or s3://bucket/prefix."""
    json: Flag = False
    """Print JSON."""


@dataclass(frozen=True)
class AnyKind:
    """A positional argument. As a last base class, its field comes first."""

    kind: str | None = None
    """List artifacts of this kind only."""


@dataclass(frozen=True)
class OneArtifact:
    """A positional argument."""

    artifact: str
    """KIND/KEY, or the name of a ref."""


@dataclass(frozen=True)
class AnyArtifact:
    """A positional argument."""

    artifact: Annotated[str | None, Parameter(show_default="all artifacts")] = None
    """KIND/KEY, or the name of a ref."""


@dataclass(frozen=True)
class Words:
    """Positional arguments."""

    words: Texts = ()
    """NAME, to show a ref's history; rollback NAME; or set NAME KIND/KEY, to point it."""


@dataclass(frozen=True, kw_only=True)
class LsOptions(Options, AnyKind):
    """The options of ls."""


@dataclass(frozen=True, kw_only=True)
class ShowOptions(Options, OneArtifact):
    """The options of show."""


@dataclass(frozen=True, kw_only=True)
class RepairOptions(Options):
    """The options of repair."""

    level: Level = "full"
    """Which files are read: none, only sizes are compared (size); those that may have changed since
    they were last read (changed); all (full)."""


@dataclass(frozen=True, kw_only=True)
class VerifyOptions(RepairOptions, AnyArtifact):
    """The options of verify."""


@dataclass(frozen=True, kw_only=True)
class FetchOptions(ShowOptions):
    """The options of fetch."""

    out: Path
    """A new or empty directory."""


@dataclass(frozen=True, kw_only=True)
class PushOptions(ShowOptions):
    """The options of push."""

    to: str
    """The other store."""
    with_inputs: Flag = False
    """Copy everything it was made from, too."""


@dataclass(frozen=True, kw_only=True)
class RefsOptions(Options, Words):
    """The options of refs."""

    reason: str | None = None
    """Why the ref is set; its history keeps the text."""


@dataclass(frozen=True, kw_only=True)
class GcOptions(Options):
    """The options of gc."""

    days: Annotated[float, parsed_by(number(0, 36500))] = 30.0
    """Remove what hasn't been used for so many days."""
    delete: Flag = False
    """Remove it instead of showing it."""
    without_refs: Flag = False
    """Also remove from a store that has no refs, where only their age protects artifacts."""
