"""What the README shows beside its commands is true: badges, the citation, figures of models."""

import re
import tomllib
from typing import Any

import pytest
import yaml

from flows.console import console
from infra.base.commands import start
from tests.docs.badges import COMMAND, DIRECTORY, badges
from tests.documented import documented
from tests.processes import ROOT

README = (ROOT / "README.md").read_text("utf-8")


def project() -> dict[str, Any]:
    content = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    declared: dict[str, Any] = content["project"]
    return declared


def test_the_badges_say_what_the_package_declares() -> None:
    found = {path.name: path.read_text("utf-8") for path in DIRECTORY.iterdir()}
    assert found == badges(), f"run {COMMAND}"
    assert "3.11 | 3.12" in found["python.svg"] and "2.10.0" in found["mindspore.svg"]
    assert all(f"(docs/badges/{name})" in README for name in found)


def test_no_picture_is_loaded_from_a_service() -> None:
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)|<img [^>]*src=\"([^\"]+)\"", README)
    assert len(pictures) >= 5
    assert all((ROOT / (one or other)).is_file() for one, other in pictures)


def test_the_citation_names_this_version_and_the_paper_as_the_readme_does() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    # What version 1.2.0 of the Citation File Format requires.
    assert citation["cff-version"] == "1.2.0"
    assert citation["message"] and citation["title"] and citation["authors"]
    assert citation["version"] == project()["version"]
    assert citation["license"] == project()["license"]
    (paper,) = citation["references"]
    names = " and ".join(f"{a['family-names']}, {a['given-names']}" for a in paper["authors"])
    (bibtex,) = re.findall(r"```bibtex\n(.*?)```", README, re.DOTALL)
    fields = dict(re.findall(r"(\w+) += \{(.+)\}", bibtex))
    assert (fields["title"], fields["author"]) == (paper["title"], names)
    assert fields["pages"] == f"{paper['start']}--{paper['end']}"
    assert fields["year"] == str(paper["year"])


def test_the_figures_of_the_models_are_those_that_the_command_prints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert start(console(), documented("sknet models")[1:]) == 0
    printed = {}
    for row in capsys.readouterr().out.splitlines()[2:]:
        name, params, *_, macs = (cell.strip() for cell in row.split("|")[1:-1])
        printed[name] = (f"{int(params.replace(',', '')) / 1e6:.2f} M", macs)
    shown: dict[str, tuple[str, str]] = {}
    for names, params, macs in re.findall(
        r"^\| ([\w, =]+?) \| ([\d.]+ M[\d., M]*) \| ([\d., ]+) \|", README, re.MULTILINE
    ):
        each_name = re.split(r", | = ", names)
        both = [cells * len(each_name) for cells in ([params], [macs])]
        if "," in params:
            both = [params.split(", "), macs.split(", ")]
        shown |= dict(zip(each_name, zip(*both, strict=True), strict=True))
    assert len(shown) == 8
    assert shown == {name: printed[name] for name in shown}
