"""Is what is installed and what there is enough?"""

import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet

from infra.doctor.findings import Finding, Status

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


OK, WARN, FAIL = Status.OK, Status.WARN, Status.FAIL

NAMED = ("mindspore", "numpy", "prefect", "fastapi", "sqlalchemy")
"""Those whose other releases are known to break something: each gets a line of its own."""

INSTALL = "pip install -e . --constraint constraints.txt"

GIGABYTE = 10**9

MEMORY_OF_A_RANK = 2.2 * GIGABYTE
"""A step of skresnet18, 16 images of 224x224: 2,135 MiB at the peak (docs/performance.md)."""

SPARE_MEMORY = 1.5 * GIGABYTE
"""Prefect's server and worker, and the flow itself: 0.3 to 0.5 GB each."""


def check_installation(facts: Installation) -> list[Finding]:
    """Python and the pins, as the installed distribution declares them."""
    if facts.requires_python is None:
        needed = "the distribution, whose metadata holds the pins"
        return [Finding("installation", FAIL, "sknet is not installed", needed, INSTALL)]
    findings = [_python(facts.python, facts.requires_python)]
    versions = facts.versions or {}
    others = []
    for requirement in sorted(facts.requirements, key=_order):
        finding = _pin(requirement, versions.get(requirement.name))
        if requirement.name in NAMED or finding.status is not OK:
            findings.append(finding)
        else:
            others.append(requirement.name)
    if others:
        findings.append(Finding("other requirements", OK, f"{len(others)} fit"))
    return findings


def check_resources(facts: Resources, *, workers: int, disk_gigabytes: float) -> list[Finding]:
    """Cores, memory and disk for a training with so many ranks on this host."""
    needed = workers * MEMORY_OF_A_RANK + SPARE_MEMORY
    return [
        Finding(
            "cores",
            OK if facts.cores >= workers else WARN,
            str(facts.cores),
            f"{workers}, one a rank",
            "" if facts.cores >= workers else f"works, but slowly: --workers {facts.cores}",
        ),
        Finding(
            "free memory",
            OK if facts.free_memory >= needed else WARN,
            _gigabytes(facts.free_memory),
            f"{_gigabytes(needed)} for {workers} ranks",
            "" if facts.free_memory >= needed else "end other programs, or take fewer workers",
        ),
        Finding(
            "free disk",
            OK if facts.free_disk >= disk_gigabytes * GIGABYTE else FAIL,
            f"{_gigabytes(facts.free_disk)} at {facts.disk}",
            _gigabytes(disk_gigabytes * GIGABYTE),
            ""
            if facts.free_disk >= disk_gigabytes * GIGABYTE
            else "free it (python -m infra.artifacts gc), or give another --store",
        ),
        Finding("Chromium", OK, facts.browser)
        if facts.browser
        else Finding(
            *("Chromium", WARN, "none", "for screenshots of the UI and reports"),
            "apt-get install chromium; nothing else needs it",
        ),
    ]


def _python(version: str, required: str) -> Finding:
    fits = SpecifierSet(required).contains(version, prereleases=True)
    advice = "" if fits else "make the environment with another Python: make demo PYTHON=…"
    return Finding("Python", OK if fits else FAIL, version, required, advice)


def _pin(requirement: Requirement, version: str | None) -> Finding:
    needed = str(requirement.specifier)
    if version is None:
        return Finding(requirement.name, FAIL, "not installed", needed, INSTALL)
    fits = requirement.specifier.contains(version, prereleases=True)
    return Finding(requirement.name, OK if fits else FAIL, version, needed, "" if fits else INSTALL)


def _order(requirement: Requirement) -> tuple[int, str]:
    name = requirement.name
    return (NAMED.index(name) if name in NAMED else len(NAMED)), name


def _gigabytes(num_bytes: float) -> str:
    return f"{num_bytes / GIGABYTE:.1f} GB"
