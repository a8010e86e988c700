"""Facts about this machine; nothing is judged here."""

import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil
from packaging.requirements import InvalidRequirement, Requirement

DISTRIBUTION = "sknet"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True, slots=True)
class Installation:
    """What is installed, beside what the distribution says it needs."""

    python: str
    requires_python: str | None
    """None if the distribution itself isn't installed."""
    requirements: tuple[Requirement, ...] = ()
    """Without those of extras."""
    versions: Mapping[str, str] | None = None
    """Of those that are installed."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What there is to work with."""

    cores: int
    """That this process may use."""
    free_memory: int
    """Bytes that are available without swapping."""
    disk: str
    """The existing directory that was measured."""
    free_disk: int
    browser: str | None
    """The path of one that can make screenshots."""


def installation(distribution: str = DISTRIBUTION) -> Installation:
    """Read the metadata that pip left; nothing of it is imported."""
    python = platform.python_version()
    try:
        own = metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return Installation(python, None)
    requirements = tuple(filter(None, map(_requirement, own.requires or [])))
    versions = {}
    for requirement in requirements:
        try:
            versions[requirement.name] = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            continue
    required = (own.metadata.get_all("Requires-Python") or [""])[0]
    return Installation(python, required, requirements, versions)


def resources(disk: Path) -> Resources:
    """Measure now; `disk` need not exist yet."""
    place = existing(disk)
    browsers = filter(None, map(shutil.which, BROWSERS))
    return Resources(
        cores=len(psutil.Process().cpu_affinity()),
        free_memory=psutil.virtual_memory().available,
        disk=str(place),
        free_disk=shutil.disk_usage(place).free,
        browser=next(browsers, None),
    )


def existing(path: Path) -> Path:
    """The nearest directory that is there, from `path` upwards."""
    path = path.absolute()
    return next(each for each in (path, *path.parents) if each.is_dir())


def _requirement(text: str) -> Requirement | None:
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        return None
    return None if requirement.marker and not requirement.marker.evaluate() else requirement
