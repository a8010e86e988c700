"""Is what is installed and what there is enough?"""

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from infra.doctor.findings import Finding, Status
from infra.doctor.gathering import Installation, Resources

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
