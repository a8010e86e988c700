"""Makes docs/troubleshooting.md from troubleshooting.yaml, and compares that with the code.

python -m tests.docs.troubleshooting            # writes the page; exits 1 if entries don't match
python -m tests.docs.troubleshooting --stubs    # prints entries for the messages that lack one

To add a message, add its text to the entry in troubleshooting.yaml that has the same cause and
cure, or add a new entry. Then run this program. An entry with a `source` explains messages of other
software, which are not looked for in the code.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from tests.docs.messages import Message, messages
from tests.processes import ROOT

SOURCE = Path(__file__).with_name("troubleshooting.yaml")
PAGE = ROOT / "docs" / "troubleshooting.md"
Line = Annotated[str, Field(min_length=1)]

INTRODUCTION = """\
# Troubleshooting

This page explains every message with which a command or a flow may end, and those of MindSpore and
HCCL on Ascend that users meet most. `…` stands for what a message fills in, so search for its
longest fixed words. The page is made from the code and tested against it
(`python -m tests.docs.troubleshooting`).

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | the work failed; after `stopped` or `interrupted`, the same command resumes |
| 2 | the input is wrong; one line says why |
| 2, naming `--help` | an option is misspelled, missing or malformed: `--help` lists all options |

A flow retries a task only if that can help (a rank or a host was lost, the disk or S3 failed for a
while), after 5, 20 and 60 s. Every other error ends the flow at once. The log names the images that
were left out, with the reasons: [data.md](data.md#what-is-accepted-what-is-quarantined).
"""


class Entry(BaseModel):
    """Messages that have the same cause and the same cure."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    says: Annotated[tuple[Line, ...], Field(min_length=1)]
    cause: Line
    cure: Line
    source: Annotated[str, Field(pattern=r"^https://\S+$")] | None = None
    """The page that documents the messages, if other software prints them; None: ours."""


class Group(BaseModel):
    """Entries about one part of the product."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    where: Line
    entries: tuple[Entry, ...]


def read_groups(path: Path = SOURCE) -> tuple[Group, ...]:
    """Return the groups in troubleshooting.yaml."""
    content = yaml.safe_load(path.read_text("utf-8"))
    return TypeAdapter(tuple[Group, ...]).validate_python(content)


def explained(groups: tuple[Group, ...]) -> Counter[str]:
    """Return the number of entries for each message of this project."""
    return Counter(
        text
        for group in groups
        for entry in group.entries
        if entry.source is None
        for text in entry.says
    )


def of_others(groups: tuple[Group, ...]) -> list[str]:
    """Return the messages of other software, whose entries name their sources."""
    entries = [entry for group in groups for entry in group.entries if entry.source]
    return [text for entry in entries for text in entry.says]


def without_entry(groups: tuple[Group, ...], found: list[Message]) -> list[Message]:
    """Return the messages of the code that have no entry."""
    known = explained(groups)
    return [message for message in found if message.text not in known]


def without_message(groups: tuple[Group, ...], found: list[Message]) -> list[str]:
    """Return the texts of entries that are not in the code any more."""
    return sorted(explained(groups).keys() - {message.text for message in found})


def render(groups: tuple[Group, ...]) -> str:
    """Return the page."""
    parts = [INTRODUCTION]
    for group in groups:
        parts.append(f"## {group.where}\n\n| message | cause | cure |\n|---|---|---|")
        for entry in group.entries:
            says = "<br>".join(f"`{_cell(text)}`" for text in map(_code, entry.says))
            source = f" ([source]({entry.source}))" if entry.source else ""
            parts[-1] += f"\n| {says} | {_cell(entry.cause)}{source} | {_cell(entry.cure)} |"
        parts[-1] += "\n"
    return "\n".join(parts)


def _code(text: str) -> str:
    # Backquotes in the message would end the code span around it.
    return text.replace("`", "'")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main(arguments: argparse.Namespace) -> int:
    """Write the page, or print stubs. Return 1 if the code and the entries don't match, else 0."""
    groups, found = read_groups(), messages()
    missing, stale = without_entry(groups, found), without_message(groups, found)
    if arguments.stubs:
        for message in missing:
            print(f"  # {message.path}: {message.error}")
            print(yaml.safe_dump([{"says": [message.text], "cause": "", "cure": ""}], width=1000))
        return 0
    for message in missing:
        print(f"no entry: {message.text}  ({message.path}, {message.error})", file=sys.stderr)
    for text in stale:
        print(f"no message for the entry: {text}", file=sys.stderr)
    PAGE.write_text(render(groups), "utf-8")
    return 1 if missing or stale else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--stubs",
        action="store_true",
        help="print entries without cause and cure for messages that have none",
    )
    sys.exit(main(parser.parse_args()))
