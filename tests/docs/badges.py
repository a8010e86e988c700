"""Makes the badges of the README from pyproject.toml: what can be said without asking a service.

python -m tests.docs.badges
"""

import tomllib
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tests.processes import ROOT

DIRECTORY = ROOT / "docs" / "badges"
COMMAND = "python -m tests.docs.badges"

WIDTH_OF_LETTER = 7
"""In pixels, of the font at its size of 11."""

SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img" aria-label="{text}">
<title>{text}</title>
<rect width="{left}" height="20" fill="#555"/>
<rect x="{left}" width="{right}" height="20" fill="#1f6feb"/>
<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">
<text x="{middle}" y="14">{name}</text>
<text x="{centre}" y="14">{value}</text>
</g>
</svg>
"""


def facts() -> dict[str, tuple[str, str]]:
    """Return the two sides of each badge, by the name of its file."""
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = {each.name: each for each in map(Requirement, project["dependencies"])}
    python = SpecifierSet(project["requires-python"])
    minors = [f"3.{minor}" for minor in range(8, 30) if f"3.{minor}" in python]
    limits = sorted(each.version for each in requirements["mindspore"].specifier)
    return {
        "python": ("Python", " | ".join(minors)),
        "mindspore": ("MindSpore", " – ".join(sorted(limits, key=_numbers))),  # noqa: RUF001
        "licence": ("licence", project["license"]),
    }


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def render(name: str, value: str) -> str:
    """Return a badge as SVG."""
    left, right = (WIDTH_OF_LETTER * len(text) + 12 for text in (name, value))
    return SVG.format(
        name=name,
        value=value,
        text=f"{name}: {value}",
        left=left,
        right=right,
        width=left + right,
        middle=left / 2,
        centre=left + right / 2,
    )


def badges() -> dict[str, str]:
    """Return the content of each badge's file."""
    return {f"{file}.svg": render(*sides) for file, sides in facts().items()}


if __name__ == "__main__":
    DIRECTORY.mkdir(exist_ok=True)
    for file, content in badges().items():
        (DIRECTORY / file).write_text(content, "utf-8")
