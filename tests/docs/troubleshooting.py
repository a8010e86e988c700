"""docs/troubleshooting.md from the messages in the code and the causes and cures written down.

python -m tests.docs.troubleshooting            # writes the page; lists what lacks an entry, exit 1
python -m tests.docs.troubleshooting --stubs    # entries for the missing ones, to be completed

To add a message: put its text, as listed, into the entry of troubleshooting.yaml whose cause and
cure are its own, or give it a new one; then run this.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from tests.docs.messages import ROOT, Message, messages

SOURCE = Path(__file__).with_name("troubleshooting.yaml")
PAGE = ROOT / "docs" / "troubleshooting.md"
Line = Annotated[str, Field(min_length=1)]

INTRODUCTION = """\
# Troubleshooting

Every message that a command or a run of a flow ends with, with its cause and its cure; `…` stands
for what the message fills in. Look for its longest fixed words. This page is made from the code and
tested against it (`python -m tests.docs.troubleshooting`).

| a command ends with | means |
|---|---|
| 0 | done |
| 1 | the work failed; after `stopped` or `interrupted` the same command goes on from there |
| 2 | the input is wrong, in one line |
| 2, after `usage:` | an option is misspelled, missing or of a wrong form: `--help` lists them |

A flow tries a stage again only where that can help (a lost rank or host, a disk or S3 that fails
for a while), after 5, 20 and 60 s; everything else ends it at once. Images that are left out are
named in the log with their reasons: [data.md](data.md#what-is-accepted-what-is-quarantined).
"""


class Entry(BaseModel):
    """Messages with one cause and one cure."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    says: Annotated[tuple[Line, ...], Field(min_length=1)]
    cause: Line
    cure: Line


class Group(BaseModel):
    """Where a user meets them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    where: Line
    entries: tuple[Entry, ...]


def read_groups(path: Path = SOURCE) -> tuple[Group, ...]:
    """What is written down."""
    content = yaml.safe_load(path.read_text("utf-8"))
    return TypeAdapter(tuple[Group, ...]).validate_python(content)


def explained(groups: tuple[Group, ...]) -> Counter[str]:
    """How often each message has an entry."""
    return Counter(text for group in groups for entry in group.entries for text in entry.says)


def without_entry(groups: tuple[Group, ...], found: list[Message]) -> list[Message]:
    """Messages of the code that nobody has explained."""
    known = explained(groups)
    return [message for message in found if message.text not in known]


def without_message(groups: tuple[Group, ...], found: list[Message]) -> list[str]:
    """Explained texts that the code does not say any more."""
    return sorted(explained(groups).keys() - {message.text for message in found})


def render(groups: tuple[Group, ...]) -> str:
    """The page."""
    parts = [INTRODUCTION]
    for group in groups:
        parts.append(f"## {group.where}\n\n| says | because | do |\n|---|---|---|")
        for entry in group.entries:
            says = "<br>".join(f"`{_cell(text)}`" for text in map(_code, entry.says))
            parts[-1] += f"\n| {says} | {_cell(entry.cause)} | {_cell(entry.cure)} |"
        parts[-1] += "\n"
    return "\n".join(parts)


def _code(text: str) -> str:
    # Within `…` a message's own backquotes would end the code.
    return text.replace("`", "'")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main(arguments: argparse.Namespace) -> int:
    """Write the page, or print stubs; 1 if code and entries don't match."""
    groups, found = read_groups(), messages()
    missing, stale = without_entry(groups, found), without_message(groups, found)
    if arguments.stubs:
        for message in missing:
            print(f"  # {message.place}: {message.error}")
            print(yaml.safe_dump([{"says": [message.text], "cause": "", "cure": ""}], width=1000))
        return 0
    for message in missing:
        print(f"no entry: {message.text}  ({message.place}, {message.error})", file=sys.stderr)
    for text in stale:
        print(f"no such message any more: {text}", file=sys.stderr)
    PAGE.write_text(render(groups), "utf-8")
    return 1 if missing or stale else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stubs", action="store_true", help="print entries to be completed")
    sys.exit(main(parser.parse_args()))
