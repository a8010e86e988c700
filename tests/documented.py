"""The commands in the README and other pages, for the tests that run them."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def commands(page: str = "README.md") -> list[str]:
    """Return a page's commands, without the path of the virtual environment and a final `&`."""
    text = (ROOT / page).read_text("utf-8")
    found = re.findall(r"^\$ (.+)$", text, re.MULTILINE)
    return [command.replace(".venv/bin/", "").removesuffix(" &") for command in found]


def documented(
    start: str, replace: Mapping[str, object] | None = None, *, page: str = "README.md"
) -> list[str]:
    """Return the words of the one command with this start, after replacing some of them."""
    (command,) = [command for command in commands(page) if command.startswith(start)]
    values = replace or {}
    return [str(values.get(word, word)) for word in shlex.split(command)]
