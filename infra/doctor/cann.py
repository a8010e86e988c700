"""Whether the installed CANN fits MindSpore, loads, and has the Python packages that it needs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from infra.base.ascend import DRIVER_LIBRARY, SET_ENV
from infra.base.cann import release
from infra.doctor.cann_tools import UNREADABLE, Cann
from infra.doctor.results import CheckResult, Status


@dataclass(frozen=True, slots=True)
class Documented:
    """What a release of CANN says about Python and about packages that MindSpore limits, too."""

    python: str
    limits: Mapping[str, str]
    """Version specifiers by package; a package without limits is left out."""
    source: str


_DOCS = "https://www.hiascend.com/document/detail"
# CANN 8.2 and 8.3 name Python up to 3.11.4.
_UNTIL_8_3 = {"numpy": ">=1.19.2,<=1.24", "protobuf": "==3.20.*"}
DOCUMENTED = {
    "8.2": Documented(
        ">=3.7,<3.11.5",
        _UNTIL_8_3,
        f"{_DOCS}/zh/CANNCommunityEdition/82RC1alpha001/softwareinst/instg/instg_0045.html",
    ),
    "8.3": Documented(
        ">=3.7,<3.11.5",
        _UNTIL_8_3,
        f"{_DOCS}/zh/CANNCommunityEdition/83RC1alpha001/index/instg_quick.html",
    ),
    "8.5": Documented(
        ">=3.7,<3.14",
        {"numpy": ">=1.19.2,<2", "protobuf": "==3.20.*"},
        f"{_DOCS}/zh/canncommercial/850/softwareinst/instg/instg_0045.html",
    ),
    "9.0": Documented(
        ">=3.7,<3.14",
        {"numpy": ">=1.19.2", "protobuf": "==3.20.*"},
        f"{_DOCS}/zh/canncommercial/900/softwareinst/instg/instg_0045.html",
    ),
    "9.1": Documented(
        ">=3.7,<3.15",
        {"numpy": ">=1.19.2"},
        f"{_DOCS}/en/CANNCommunityEdition/910/softwareinst/instg/instg_0045.html",
    ),
}
"""The lists of dependencies in CANN's installation guides, by release."""

SHARED = ("numpy", "protobuf")
"""Packages for which CANN and MindSpore both give limits, which may contradict each other."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What MindSpore and this project ask of CANN and of the Python packages around it."""

    mindspore: str | None
    """The installed version of MindSpore."""
    accepted: tuple[str, ...] | None
    """The releases of CANN that it accepts; None if they can't be read."""
    shared: Mapping[str, SpecifierSet]
    """MindSpore's limits for the packages in SHARED."""
    packages: tuple[Requirement, ...]
    """The packages that CANN needs: the extra `ascend` of this distribution."""
    python: str
    """The running Python's version."""


def check_cann(facts: Cann, needs: Needs) -> list[CheckResult]:
    """Judge CANN and what surrounds it; if there is none, nothing else is judged."""
    if facts.home is None and facts.trouble:
        return [_check_environment(facts)]
    if facts.home is None:
        advice = f"install it; if it is elsewhere, set {SET_ENV} to the path of its set_env.sh"
        return [CheckResult("CANN", Status.FAIL, "not found", _accepted(needs), advice)]
    return [
        _check_version(facts, needs),
        _check_environment(facts),
        *_check_libraries(facts),
        *_check_modules(facts, needs),
        *_check_packages(facts, needs),
        *_check_documented(facts, needs),
    ]


def _accepted(needs: Needs) -> str:
    if needs.accepted is None:
        return "a release that MindSpore accepts"
    return f"{', '.join(needs.accepted)}: accepted by MindSpore {needs.mindspore}"


def _release(facts: Cann) -> str:
    return release(facts.toolkit or facts.compiler or "")


def _check_version(facts: Cann, needs: Needs) -> CheckResult:
    """Judge the version as MindSpore does, by its compiler's version file.

    Without that file, MindSpore doesn't check, and the version of the whole is judged instead.
    """
    check, needed = "CANN", _accepted(needs)
    if facts.toolkit is None and facts.compiler is None:
        advice = "install CANN again: its version files are missing"
        return CheckResult(check, Status.FAIL, f"no version in {facts.home}", needed, advice)
    compared = facts.toolkit if facts.compiler is None else facts.compiler
    found = facts.toolkit or facts.compiler or ""
    if facts.compiler is None:
        found += ", no compiler/version.info: MindSpore won't check it"
    elif facts.compiler != found:
        found += f", compiler {facts.compiler or 'unknown'}"
    if needs.accepted is None:
        advice = "compare it with MindSpore's installation page"
        return CheckResult(check, Status.WARN, found, "unknown: no list in MindSpore", advice)
    if release(compared or "") not in needs.accepted:
        advice = f"install CANN {needs.accepted[-1]} and its driver: docs/imagenet.md"
        return CheckResult(check, Status.FAIL, found, needed, advice)
    return CheckResult(check, Status.WARN if facts.compiler is None else Status.OK, found, needed)


def _check_environment(facts: Cann) -> CheckResult:
    check, needed = "CANN's environment", "what its set_env.sh sets, in every process"
    if facts.trouble:
        found = f"{facts.set_env}: {facts.trouble}"
        if facts.trouble == UNREADABLE:
            advice = f"correct {SET_ENV}, which names this file"
        else:
            advice = "repair it, or install CANN again"
        return CheckResult(check, Status.FAIL, found, needed, advice)
    if facts.unset:
        found = f"{', '.join(facts.unset)}: not as set_env.sh sets them"
        advice = f"source {facts.set_env}" if facts.set_env else "install CANN again: no set_env.sh"
        return CheckResult(check, Status.FAIL, found, needed, advice)
    return CheckResult(check, Status.OK, str(facts.home), needed)


def _check_libraries(facts: Cann) -> Iterable[CheckResult]:
    libraries = facts.libraries or {}
    for name, probe in libraries.items():
        if probe.trouble:
            if probe.trouble.startswith(DRIVER_LIBRARY):
                advice = (
                    "install the driver; add its lib64/driver and lib64/common to LD_LIBRARY_PATH"
                )
            else:
                advice = "install CANN's toolkit and operators again, with all their parts"
            yield CheckResult(name, Status.FAIL, probe.trouble, "it can be loaded", advice)
    loaded = [name for name, probe in libraries.items() if not probe.trouble]
    if loaded:
        yield CheckResult("CANN's libraries", Status.OK, f"loaded: {', '.join(loaded)}")


def _check_modules(facts: Cann, needs: Needs) -> Iterable[CheckResult]:
    """Judge CANN's own Python packages, te also by its version, as MindSpore does.

    CANN's installer puts them into its python/site-packages, which set_env.sh adds to PYTHONPATH;
    those of older releases are wheels to install.
    """
    for name, probe in (facts.modules or {}).items():
        wheel = (facts.wheels or {}).get(name)
        install = f"pip install --force-reinstall --no-deps {wheel}" if wheel else ""
        check, needed = f"{name} (CANN)", "Python can import it"
        if probe.trouble:
            if probe.trouble == f"ModuleNotFoundError: No module named '{name}'":
                advice = install or "install CANN's toolkit again: it brings this package"
            else:
                advice = "install what the message names"
            yield CheckResult(check, Status.FAIL, probe.trouble, needed, advice)
        elif name == "te" and needs.accepted and release(probe.version) not in needs.accepted:
            found = probe.version or "it states no version"
            advice = install or "pip uninstall te: it hides the one of this CANN"
            yield CheckResult(check, Status.FAIL, found, "as CANN", advice)
        else:
            yield CheckResult(check, Status.OK, probe.version or "imported", needed)


def _check_packages(facts: Cann, needs: Needs) -> Iterable[CheckResult]:
    check, install = "Python packages of CANN", "pip install -e '.[ascend]' -c constraints.txt"
    if not needs.packages or facts.packages is None:
        found = "no list of them" if not needs.packages else "can't be read"
        yield CheckResult(check, Status.FAIL, found, "the extra ascend", install)
        return
    fitting = 0
    for requirement in needs.packages:
        version = facts.packages.get(requirement.name)
        if version is not None and requirement.specifier.contains(version, prereleases=True):
            fitting += 1
            continue
        needed = str(requirement.specifier) or "any version"
        yield CheckResult(
            requirement.name, Status.FAIL, version or "not installed", needed, install
        )
    if fitting:
        yield CheckResult(check, Status.OK, f"{fitting} fit")


def _check_documented(facts: Cann, needs: Needs) -> Iterable[CheckResult]:
    """Judge what CANN documents and MindSpore or this project may contradict.

    MindSpore comes first, because it can't be imported otherwise.
    """
    found = _release(facts)
    documented = DOCUMENTED.get(found)
    if documented and not SpecifierSet(documented.python).contains(needs.python):
        needed = f"{documented.python} for CANN {found}"
        advice = "if operators don't compile, use a Python that CANN names, or CANN 8.5 or later"
        yield CheckResult("Python for CANN", Status.WARN, needs.python, needed, advice)
    for name in SHARED:
        limits = documented.limits.get(name, "") if documented else ""
        yield _check_shared(name, facts, needs.shared.get(name), SpecifierSet(limits))


def _check_shared(
    name: str, facts: Cann, of_mindspore: SpecifierSet | None, of_cann: SpecifierSet
) -> CheckResult:
    check, version = f"{name} for CANN", (facts.packages or {}).get(name)
    if version is None or (of_mindspore and not of_mindspore.contains(version, prereleases=True)):
        advice = f"pip install '{name}{of_mindspore or ''}': MindSpore can't do without"
        needed = f"{of_mindspore or 'any'} for MindSpore"
        return CheckResult(check, Status.FAIL, version or "not installed", needed, advice)
    if not of_cann.contains(version, prereleases=True):
        needed = f"{of_mindspore} for MindSpore; CANN {_release(facts)}: {of_cann}"
        advice = "keep it: MindSpore comes first; CANN's own tools may need a second environment"
        return CheckResult(check, Status.WARN, version, needed, advice)
    return CheckResult(check, Status.OK, version)
