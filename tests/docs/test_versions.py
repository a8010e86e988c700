"""What `make test-versions` tries, what is required, and the table in docs/ascend.md."""

import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from infra.base.cann import accepted_versions
from tests import versions
from tests.processes import ROOT
from tests.versions import SUPPORTED, Tried, Version

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
(MINDSPORE,) = [
    SpecifierSet(requirement.removeprefix("mindspore"))
    for requirement in PROJECT["dependencies"]
    if requirement.startswith("mindspore")
]
MINDSPORES = {version.mindspore for version in SUPPORTED}
PYTHONS = {version.python for version in SUPPORTED}


def table() -> list[list[str]]:
    """Return the cells of the table in docs/ascend.md, without its header."""
    page = versions.PAGE.read_text("utf-8")
    marked = page.split(versions.BEGIN)[1].split(versions.END)[0]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in marked.splitlines()[3:]]


def test_the_requirement_is_what_is_tried_and_nothing_beyond() -> None:
    assert all(version in MINDSPORE for version in MINDSPORES)
    neighbours = ("2.7.0", "2.10.1", "2.11.0", "3.0.0")
    assert not any(version in MINDSPORE for version in neighbours)
    python = SpecifierSet(PROJECT["requires-python"])
    assert {f"3.{minor}" for minor in range(30) if f"3.{minor}.1" in python} == PYTHONS


def test_ci_installs_the_newest_version() -> None:
    constraints = (ROOT / "constraints.txt").read_text("utf-8")
    assert f"\nmindspore=={SUPPORTED[0].mindspore}\n" in constraints
    other = versions.with_mindspore(constraints, "2.7.1")
    assert set(other.splitlines()) ^ set(constraints.splitlines()) == {
        "mindspore==2.7.1",
        f"mindspore=={SUPPORTED[0].mindspore}",
    }
    with pytest.raises(ValueError, match="has 0 lines for mindspore"):
        versions.with_mindspore("numpy==1.26.4\n", "2.7.1")


@pytest.mark.slow  # not because of its time: `make test-versions` doesn't judge its own table
def test_the_page_has_a_row_for_each_version_and_each_passed() -> None:
    rows = table()
    assert [Version(*row[:2]) for row in rows] == list(SUPPORTED)
    for _, _, fast_suite, training, cann in rows:
        assert (fast_suite, training) == ("passed", "yes")
        assert cann
    installed = [row[-1] for row in rows if row[0] == metadata.version("mindspore")]
    assert set(installed) == {", ".join(accepted_versions() or ())}


@pytest.mark.parametrize(
    ("log", "counts"),
    [
        (
            "FAILED tests/a.py::b\n2 failed, 2166 passed, 1 skipped in 302.03s (0:05:02)\n",
            "2 failed",
        ),
        ("==== 1 passed, 2 skipped in 0.51s ====\n", "1 passed, 2 skipped"),
        ("error: 3 passed\n", "failed: exit code 2 before the tests"),
    ],
)
def test_the_result_of_a_suite_is_what_pytest_counted(log: str, counts: str) -> None:
    assert versions.summary_of(log, 2).startswith(counts)


def test_a_python_that_is_not_there_is_left_out_and_said() -> None:
    assert versions.interpreter("3.99") is None
    tried = versions.try_version(Version("2.10.0", "3.99"))
    assert (tried.fast_suite, tried.failed) == ("not run: no python3.99 was found", False)
    own = ".".join(map(str, sys.version_info[:2]))
    assert versions.interpreter(own) is not None


@pytest.mark.parametrize(("failed", "code"), [(False, 0), (True, 1)])
def test_a_version_that_fails_fails_the_command(
    failed: bool,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"above\n{versions.BEGIN}\nold\n{versions.END}\nbelow\n")
    monkeypatch.setattr(versions, "PAGE", page)
    monkeypatch.setattr(
        versions,
        "try_version",
        lambda version: Tried(version, "passed", "yes", ("9.0", "9.1"), failed),
    )
    assert versions.main(["2.9.0-py3.11"]) == code
    row = "| 2.9.0 | 3.11 | passed | yes | 9.0, 9.1 |\n"
    assert capsys.readouterr().out.endswith(row)
    assert "old" in page.read_text("utf-8")
    assert versions.main([]) == code
    assert row in page.read_text("utf-8")
    assert page.read_text("utf-8").startswith("above\n")
    assert page.read_text("utf-8").endswith("\nbelow\n")


def test_an_unknown_version_is_refused() -> None:
    with pytest.raises(SystemExit, match=r"^unknown: 2\.0-py3\.11; known: 2\.10\.0-py3\.11, "):
        versions.main(["2.0-py3.11"])


def test_the_script_needs_no_installed_package() -> None:
    command = [sys.executable, "-I", "-S", "-c"]
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import tests.versions"
    subprocess.run([*command, code], check=True, timeout=60)
