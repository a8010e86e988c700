"""Python, installed packages, cores, memory and disk of this machine, compared with the needs."""

import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet

from infra.doctor.results import CheckResult, Status

DISTRIBUTION = "sknet"

BROWSERS = ("chromium", "chromium-browser", "google-chrome")

NAMED = ("mindspore", "numpy", "prefect", "fastapi", "sqlalchemy")
"""Packages whose other releases are known to break something: each gets a line of its own."""

INSTALL = "pip install -e . --constraint constraints.txt"

GIGABYTE = 10**9

RANK_MEMORY = 2.2 * GIGABYTE
"""Peak of a step of skresnet18 with 16 images of 224x224: 2,135 MiB, see
docs/internals/performance.md."""

SPARE_MEMORY = 1.5 * GIGABYTE
"""Prefect's server and worker, and the flow itself: 0.3 to 0.5 GB each."""


@dataclass(frozen=True, slots=True)
class Installation:
    """The installed Python and packages, and the requirements that this distribution declares."""

    python: str
    requires_python: str | None
    """None if the distribution itself isn't installed."""
    requirements: tuple[Requirement, ...] = ()
    """Required packages, without those of extras."""
    versions: Mapping[str, str] | None = None
    """Installed versions of the required packages; a missing package has no entry."""


@dataclass(frozen=True, slots=True)
class Resources:
    """The resources that a job could use now."""

    cores: int
    """Cores that this process may use."""
    free_memory: int
    """Bytes that are available without swapping."""
    disk: str
    """The existing directory whose disk was measured."""
    free_disk: int
    """Free bytes there."""
    browser: str | None
    """Path of a browser that can make screenshots."""


def installation(distribution: str = DISTRIBUTION) -> Installation:
    """Read what pip recorded at installation; no package is imported."""
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


def extra_requirements(extra: str, distribution: str = DISTRIBUTION) -> tuple[Requirement, ...]:
    """Return the packages of an extra; none if the installed distribution has no such extra."""
    try:
        declared = metadata.requires(distribution) or []
    except metadata.PackageNotFoundError:
        return ()
    requirements = map(Requirement, declared)
    return tuple(
        each
        for each in requirements
        if each.marker
        and each.marker.evaluate({"extra": extra})
        and not each.marker.evaluate({"extra": ""})
    )


def resources(disk: Path) -> Resources:
    """Measure the resources; `disk`, a directory, need not exist yet."""
    directory = existing_directory(disk)
    browsers = filter(None, map(shutil.which, BROWSERS))
    return Resources(
        cores=len(psutil.Process().cpu_affinity()),
        free_memory=psutil.virtual_memory().available,
        disk=str(directory),
        free_disk=shutil.disk_usage(directory).free,
        browser=next(browsers, None),
    )


def existing_directory(path: Path) -> Path:
    """Return the nearest directory that exists, from `path` upwards."""
    path = path.absolute()
    return next(each for each in (path, *path.parents) if each.is_dir())


def check_installation(facts: Installation) -> list[CheckResult]:
    """Compare Python and the packages with the requirements of the installed distribution."""
    if facts.requires_python is None:
        needed = "the distribution, whose metadata lists the required versions"
        missing = "sknet is not installed"
        return [CheckResult("installation", Status.FAIL, missing, needed, INSTALL)]
    results = [_check_python(facts.python, facts.requires_python)]
    versions = facts.versions or {}
    others = 0
    for requirement in sorted(facts.requirements, key=_order):
        result = _check_version(requirement, versions.get(requirement.name))
        if requirement.name in NAMED or result.status is not Status.OK:
            results.append(result)
        else:
            others += 1
    if others:
        results.append(CheckResult("other requirements", Status.OK, f"{others} fit"))
    return results


def check_resources(facts: Resources, *, workers: int, disk_gigabytes: float) -> list[CheckResult]:
    """Compare cores, memory and disk with the needs of `workers` ranks on this host."""
    memory = workers * RANK_MEMORY + SPARE_MEMORY
    disk = disk_gigabytes * GIGABYTE
    return [
        CheckResult.judge(
            "cores",
            facts.cores >= workers,
            found=str(facts.cores),
            needed=f"{workers}, one for each rank",
            advice=f"training works, but slowly; faster: --workers {facts.cores}",
            otherwise=Status.WARN,
        ),
        CheckResult.judge(
            "free memory",
            facts.free_memory >= memory,
            found=_gigabytes(facts.free_memory),
            needed=f"{_gigabytes(memory)} for {workers} ranks",
            advice="end other programs, or use fewer workers",
            otherwise=Status.WARN,
        ),
        CheckResult.judge(
            "free disk",
            facts.free_disk >= disk,
            found=f"{_gigabytes(facts.free_disk)} at {facts.disk}",
            needed=_gigabytes(disk),
            advice="free some (python -m infra.artifacts gc), or give another --store",
        ),
        CheckResult.judge(
            "Chromium",
            facts.browser is not None,
            found=facts.browser or "none",
            needed="" if facts.browser else "for screenshots of the UI and reports",
            advice="apt-get install chromium; nothing else needs it",
            otherwise=Status.WARN,
        ),
    ]


def _requirement(text: str) -> Requirement | None:
    """Parse a requirement; None if it is malformed or doesn't apply to this machine."""
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        return None
    return None if requirement.marker and not requirement.marker.evaluate() else requirement


def _check_python(version: str, required: str) -> CheckResult:
    return CheckResult.judge(
        "Python",
        SpecifierSet(required).contains(version, prereleases=True),
        found=version,
        needed=required,
        advice="make the environment with another Python: make demo PYTHON=…",
    )


def _check_version(requirement: Requirement, version: str | None) -> CheckResult:
    return CheckResult.judge(
        requirement.name,
        version is not None and requirement.specifier.contains(version, prereleases=True),
        found=version or "not installed",
        needed=str(requirement.specifier),
        advice=INSTALL,
    )


def _order(requirement: Requirement) -> tuple[int, str]:
    name = requirement.name
    return (NAMED.index(name) if name in NAMED else len(NAMED)), name


def _gigabytes(num_bytes: float) -> str:
    return f"{num_bytes / GIGABYTE:.1f} GB"
