"""The doctor on trees of CANN that are right, and wrong in one way each.

Libraries are loaded by the system's loader and packages imported by Python, in the environment that
the tree's set_env.sh gives.
"""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from infra.base.cann import accepted_versions
from infra.doctor.cann import DOCUMENTED, SHARED, Needs, check_cann
from infra.doctor.cann_tools import Cann, Probe, gather_cann
from infra.doctor.machine import extra_requirements, installation
from infra.doctor.results import CheckResult
from tests.infra.ascend_trees import (
    LIBRARIES,
    CannTree,
    loadable,
    sourced,
    with_missing_dependency,
    write,
)

NEEDS = Needs(
    mindspore="2.10.0",
    accepted=("8.2", "8.3", "8.5", "9.0", "9.1"),
    shared={"numpy": SpecifierSet(">=1.25"), "protobuf": SpecifierSet(">=7.34.1")},
    packages=(Requirement("numpy>=1.19.2"), Requirement("cann-needs-this>=4.4")),
    python="3.11.7",
)
TREE = CannTree(packages={"cann-needs-this": "5.3"})
OK_CHECKS = {
    *("CANN", "CANN's environment", "CANN's libraries", "te (CANN)", "hccl (CANN)"),
    *("Python packages of CANN", "numpy for CANN", "protobuf for CANN"),
}


@pytest.fixture(autouse=True)
def without_cann(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*sourced(Path("/")), "SKNET_SET_ENV"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Let this process be one whose shell has sourced the set_env.sh of a home."""

    def apply(home: Path) -> None:
        for name, value in sourced(home).items():
            monkeypatch.setenv(name, value)

    return apply


def check(root: Path, needs: Needs = NEEDS) -> dict[str, CheckResult]:
    names = [*(each.name for each in needs.packages), *SHARED]
    return {each.check: each for each in check_cann(gather_cann(root, names), needs)}


def wrong(results: dict[str, CheckResult]) -> dict[str, str]:
    """Return the status of each check that is not ok."""
    return {name: str(each.status) for name, each in results.items() if each.status != "ok"}


@pytest.mark.parametrize(
    "tree",
    [
        TREE,
        dataclasses.replace(TREE, wheels=(), te="9.0.0", toolkit="9.0.1", compiler="9.0.0"),
        dataclasses.replace(TREE, directory="ascend-toolkit/latest"),
    ],
    ids=["9.1", "9.0", "in ascend-toolkit"],
)
def test_a_whole_cann_passes_every_check(
    tmp_path: Path, source: Callable[[Path], None], tree: CannTree
) -> None:
    source(tree.write(tmp_path))
    results = check(tmp_path)
    assert results.keys() == OK_CHECKS
    assert wrong(results) == ({"protobuf for CANN": "warn"} if "9.0" in tree.toolkit else {})


def test_a_machine_without_cann_gets_one_line(tmp_path: Path) -> None:
    results = check(tmp_path)
    assert wrong(results) == {"CANN": "fail"}
    assert results["CANN"].found == "not found"
    assert "9.1: accepted by MindSpore 2.10.0" in results["CANN"].needed


# Versions


@pytest.mark.parametrize(
    ("toolkit", "compiler", "status", "found"),
    [
        ("8.2.RC1", "8.2.0.1.1", "ok", "8.2.RC1, compiler 8.2.0.1.1"),
        ("8.0.0.beta1", "7.6.0.1.220", "fail", "8.0.0.beta1, compiler 7.6.0.1.220"),
        ("9.2.0", "9.1.0", "ok", "9.2.0, compiler 9.1.0"),  # MindSpore compares the compiler's
        ("9.1.0", "9.2.0", "fail", "9.1.0, compiler 9.2.0"),
        ("9.1.0", "", "fail", "9.1.0, compiler unknown"),
        ("9.1.0", None, "warn", "9.1.0, no compiler/version.info: MindSpore won't check it"),
        ("8.1.RC1", None, "fail", "8.1.RC1, no compiler/version.info: MindSpore won't check it"),
    ],
)
def test_the_version_is_judged_by_the_list_in_mindspores_wheel(
    tmp_path: Path,
    source: Callable[[Path], None],
    toolkit: str,
    compiler: str | None,
    status: str,
    found: str,
) -> None:
    source(dataclasses.replace(TREE, toolkit=toolkit, compiler=compiler).write(tmp_path))
    result = check(tmp_path)["CANN"]
    assert (str(result.status), result.found) == (status, found)
    assert ("docs/imagenet.md" in result.advice) is (status == "fail")


def test_the_published_set_is_accepted_by_no_mindspore_that_this_project_runs_on(
    tmp_path: Path,
) -> None:
    dataclasses.replace(TREE, toolkit="8.0.0.beta1", compiler="7.6.0.1.220").write(tmp_path)
    accepted = accepted_versions()
    assert accepted is not None
    result = check(tmp_path, dataclasses.replace(NEEDS, accepted=accepted))["CANN"]
    assert str(result.status) == "fail"
    assert result.advice == f"install CANN {accepted[-1]} and its driver: docs/imagenet.md"


def test_a_mindspore_without_a_list_is_a_warning(
    tmp_path: Path, source: Callable[[Path], None]
) -> None:
    source(TREE.write(tmp_path))
    results = check(tmp_path, dataclasses.replace(NEEDS, accepted=None))
    assert wrong(results) == {"CANN": "warn"}


def test_a_tree_without_version_files_fails(tmp_path: Path, source: Callable[[Path], None]) -> None:
    home = dataclasses.replace(TREE, compiler=None).write(tmp_path)
    source(home)
    next(home.glob("*-linux/ascend_toolkit_install.info")).unlink()
    result = check(tmp_path)["CANN"]
    assert (str(result.status), result.found) == ("fail", f"no version in {home}")


# The environment


def test_a_shell_without_set_env_fails_but_libraries_are_tried_as_with_it(tmp_path: Path) -> None:
    home = TREE.write(tmp_path)
    results = check(tmp_path)
    assert wrong(results) == {"CANN's environment": "fail"}
    result = results["CANN's environment"]
    for name in ("ASCEND_HOME_PATH", "ASCEND_OPP_PATH", "LD_LIBRARY_PATH", "PYTHONPATH"):
        assert name in result.found
    assert result.advice == f"source {home}/set_env.sh"


def test_a_variable_that_lost_cann_is_named(
    tmp_path: Path, source: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    source(TREE.write(tmp_path))
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/usr/lib64", prepend=":")
    result = check(tmp_path)["CANN's environment"]
    assert (str(result.status), result.found) == ("fail", "PYTHONPATH: not as set_env.sh sets them")


def test_without_a_set_env_the_variables_must_be_set(
    tmp_path: Path, source: Callable[[Path], None]
) -> None:
    home = TREE.write(tmp_path)
    (home / "set_env.sh").unlink()
    result = check(tmp_path)["CANN's environment"]
    assert (str(result.status), result.advice) == ("fail", "install CANN again: no set_env.sh")
    source(home)
    assert wrong(check(tmp_path)) == {}


def test_a_cann_elsewhere_is_found_by_its_set_env(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = TREE.write(tmp_path / "home of 'me'")
    monkeypatch.setenv("SKNET_SET_ENV", str(home / "set_env.sh"))
    results = check(tmp_path / "nothing here")
    assert wrong(results) == {"CANN's environment": "fail"}
    assert results["CANN"].found == "9.1.0"


@pytest.mark.parametrize("is_installed", [True, False])
@pytest.mark.parametrize("is_there", [True, False])
def test_a_named_set_env_that_cannot_be_read_is_reported_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_installed: bool, is_there: bool
) -> None:
    if is_installed:
        TREE.write(tmp_path)
    named = tmp_path / "named.sh"
    if is_there:
        named.mkdir()  # a file without rights would be readable for root
    monkeypatch.setenv("SKNET_SET_ENV", str(named))
    results = check(tmp_path)
    assert ("CANN" in results) == is_installed
    result = results["CANN's environment"]
    assert (str(result.status), result.found) == ("fail", f"{named}: can't be read")
    assert result.advice == "correct SKNET_SET_ENV, which names this file"


def test_the_selected_cann_comes_before_the_installed_one(
    tmp_path: Path, source: Callable[[Path], None]
) -> None:
    TREE.write(tmp_path / "installed")
    source(dataclasses.replace(TREE, toolkit="8.5.0", compiler="8.5.0").write(tmp_path / "mine"))
    assert check(tmp_path / "installed")["CANN"].found == "8.5.0"


def test_a_set_env_that_ends_the_shell_is_reported(tmp_path: Path) -> None:
    home = TREE.write(tmp_path)
    (home / "set_env.sh").write_text("exit 3\n")
    result = check(tmp_path)["CANN's environment"]
    assert (str(result.status), result.found) == ("fail", f"{home}/set_env.sh: code 3")


# Libraries


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "libascendcl.so",
            None,
            "{name}: cannot open shared object file: No such file or directory",
        ),
        ("libge_runner.so", b"no library" * 100, "{path}: invalid ELF header"),
        ("libhccl.so", loadable()[:40], "{path}: file too short"),
        (
            "libge_runner.so",
            with_missing_dependency(),
            "libX.so.6: cannot open shared object file: No such file or directory",
        ),
    ],
    ids=["absent", "text", "cut", "without a library that it needs"],
)
def test_a_library_that_does_not_load_fails_with_the_loaders_own_message(
    tmp_path: Path,
    source: Callable[[Path], None],
    name: str,
    content: bytes | None,
    message: str,
) -> None:
    home = TREE.write(tmp_path)
    source(home)
    path = home / "lib64" / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    results = check(tmp_path)
    assert wrong(results) == {name: "fail"}
    assert results[name].found == message.format(name=name, path=path)
    others = [each for each in LIBRARIES if each != name]
    assert results["CANN's libraries"].found == f"loaded: {', '.join(others)}"


def test_a_missing_library_of_the_driver_is_cured_in_the_driver() -> None:
    trouble = "libascend_hal.so: cannot open shared object file: No such file or directory"
    facts = Cann(home=Path("/cann"), libraries={"libascendcl.so": Probe(trouble)})
    (result,) = (each for each in check_cann(facts, NEEDS) if each.check == "libascendcl.so")
    assert "driver" in result.advice
    assert "LD_LIBRARY_PATH" in result.advice


# Python packages


def test_te_of_another_cann_fails_as_mindspore_warns(
    tmp_path: Path, source: Callable[[Path], None]
) -> None:
    """Wheels stay installed when CANN is replaced."""
    tree = dataclasses.replace(TREE, te="7.6.0.1.220", wheels=("te-9.1.0-py3-none-any.whl",))
    home = tree.write(tmp_path)
    source(home)
    results = check(tmp_path)
    assert wrong(results) == {"te (CANN)": "fail"}
    wheel = home / "lib64/te-9.1.0-py3-none-any.whl"
    assert results["te (CANN)"].found == "7.6.0.1.220"
    assert results["te (CANN)"].advice == f"pip install --force-reinstall --no-deps {wheel}"


@pytest.mark.parametrize(
    ("init", "found"),
    [
        (None, "ModuleNotFoundError: No module named 'te'"),
        ("import a_package_that_te_needs", "No module named 'a_package_that_te_needs'"),
        ("import os; os.kill(os.getpid(), 11)", "ended by SIGSEGV"),
        ("import sys; sys.exit(7)", "code 7"),
    ],
    ids=["absent", "without what it needs", "crashes", "ends"],
)
def test_a_te_that_cannot_be_imported_fails_with_the_cause(
    tmp_path: Path, source: Callable[[Path], None], init: str | None, found: str
) -> None:
    home = TREE.write(tmp_path)
    source(home)
    te = home / "python/site-packages/te"
    if init is None:
        shutil.rmtree(te)
    else:
        write(te / "__init__.py", init)
    results = check(tmp_path)
    assert wrong(results) == {"te (CANN)": "fail"}
    assert results["te (CANN)"].found.endswith(found)


def test_what_te_prints_is_not_taken_for_its_version(
    tmp_path: Path, source: Callable[[Path], None]
) -> None:
    home = TREE.write(tmp_path)
    source(home)
    write(home / "python/site-packages/te/__init__.py", "print('8.0.0', end='')")
    assert check(tmp_path)["te (CANN)"].found == "9.1.0"


@pytest.mark.parametrize("wheels", [TREE.wheels, ()], ids=["has wheel", "has none"])
def test_hccl_must_be_installed(
    tmp_path: Path, source: Callable[[Path], None], wheels: tuple[str, ...]
) -> None:
    home = dataclasses.replace(TREE, hccl=False, wheels=wheels).write(tmp_path)
    source(home)
    results = check(tmp_path)
    assert wrong(results) == {"hccl (CANN)": "fail"}
    assert results["hccl (CANN)"].found == "ModuleNotFoundError: No module named 'hccl'"
    assert (str(home / "lib64") in results["hccl (CANN)"].advice) is bool(wheels)


@pytest.mark.parametrize(
    ("packages", "found"),
    [({}, "not installed"), ({"cann-needs-this": "4.3"}, "4.3")],
    ids=["missing", "too old"],
)
def test_a_package_that_cann_needs_fails_by_name(
    tmp_path: Path, source: Callable[[Path], None], packages: dict[str, str], found: str
) -> None:
    source(dataclasses.replace(TREE, packages=packages).write(tmp_path))
    results = check(tmp_path)
    assert wrong(results) == {"cann-needs-this": "fail"}
    assert results["cann-needs-this"].found == found
    assert results["cann-needs-this"].advice == "pip install -e '.[ascend]' -c constraints.txt"


def test_the_extra_ascend_has_what_cann_names_and_an_installation_without_it_fails(
    tmp_path: Path, source: Callable[[Path], None]
) -> None:
    declared = {each.name: str(each.specifier) for each in extra_requirements("ascend")}
    named = ("attrs", "cython", "pyyaml", "pathlib2", "scipy", "requests", "psutil", "absl-py")
    limited = {"decorator": ">=4.4.0", "sympy": ">=1.5.1", "cffi": ">=1.12.3"}
    assert declared == dict.fromkeys(named, "") | limited
    source(TREE.write(tmp_path))
    results = check(tmp_path, dataclasses.replace(NEEDS, packages=()))
    assert wrong(results) == {"Python packages of CANN": "fail"}


@pytest.mark.parametrize(
    ("cann", "protobuf", "status", "needed"),
    [
        ("9.1.0", "7.36.2", "ok", ""),
        ("9.0.0", "7.36.2", "warn", ">=7.34.1 for MindSpore; CANN 9.0: ==3.20.*"),
        ("8.5.0", "7.36.2", "warn", ">=7.34.1 for MindSpore; CANN 8.5: ==3.20.*"),
        ("8.5.0", "3.20.3", "fail", ">=7.34.1 for MindSpore"),
        ("9.1.0", "3.20.3", "fail", ">=7.34.1 for MindSpore"),
        ("10.0.0", "7.36.2", "ok", ""),
    ],
)
def test_where_cann_and_mindspore_want_different_protobufs_mindspore_comes_first(
    cann: str, protobuf: str, status: str, needed: str
) -> None:
    facts = Cann(home=Path("/cann"), toolkit=cann, packages={"protobuf": protobuf})
    (result,) = (each for each in check_cann(facts, NEEDS) if each.check == "protobuf for CANN")
    assert (str(result.status), result.found, result.needed) == (status, protobuf, needed)


def test_a_python_that_cann_does_not_name_is_a_warning() -> None:
    facts = Cann(home=Path("/cann"), toolkit="8.3.RC1")
    needs = dataclasses.replace(NEEDS, python="3.12.4")
    (result,) = (each for each in check_cann(facts, needs) if each.check == "Python for CANN")
    assert (str(result.status), result.needed) == ("warn", ">=3.7,<3.11.5 for CANN 8.3")


def test_what_cann_documents_is_known_for_each_release_that_mindspore_accepts() -> None:
    # Before 2.8, MindSpore also lists versions of CANN's compiler, which differed from CANN's.
    assert DOCUMENTED.keys() >= set(accepted_versions() or ()) - {"7.7", "7.8"}
    assert all(each.source.startswith("https://www.hiascend.com/") for each in DOCUMENTED.values())
    of_mindspore = {each.name for each in installation("mindspore").requirements}
    assert of_mindspore >= set(SHARED)
