"""Makes docs/troubleshooting.md and docs/messages.md from troubleshooting.yaml.

python -m tests.docs.troubleshooting            # writes the pages; exits 1 if entries don't match
python -m tests.docs.troubleshooting --stubs    # prints entries for the messages that lack one

To add a message, add its text to the entry in troubleshooting.yaml that has the same cause and
cure, or add a new entry. Then run this program. An entry with a `source` explains messages of other
software, which are not looked for in the code.

messages.md has all entries. troubleshooting.md leads to them: by what they are about, and by the
words of their messages that a reader can search for.
"""

import argparse
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from tests.docs.messages import Message, messages
from tests.processes import ROOT

SOURCE = Path(__file__).with_name("troubleshooting.yaml")
PAGE = ROOT / "docs" / "messages.md"
INDEX = ROOT / "docs" / "troubleshooting.md"
Line = Annotated[str, Field(min_length=1)]

INTRODUCTION = """\
# Troubleshooting

The line that ends a command says what is wrong, what was expected and what to do. Where that is
not enough, [messages.md](messages.md) has the cause and the cure of every message, also of those
of MindSpore and HCCL on Ascend that users meet most. Search it for words of the message that are
no names or numbers of yours, or find the entry [by place](#by-place) or [by word](#by-word).

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


PLACES = """\
## By place
"""
WORDS = """\
## By word

Options, recipe keys, files, variables and codes that are in the messages of few entries.
"""

MESSAGES = """\
# Messages

The causes and cures of all messages. To find one, search for its longest fixed words, or use the
[index](troubleshooting.md). `…` stands for what a message fills in. The page is made from the code
and tested against it (`python -m tests.docs.troubleshooting`).
"""

WORD = re.compile(
    r"(?<![\w-])--[a-z][a-z_-]+"  # an option
    r"|\b[a-z][a-z0-9]*(?:_[a-z0-9]+)+\b"  # a recipe's key
    r"|\b[A-Z]{2,}(?:_[A-Z0-9]+)+\b|\bEI\d{4}\b"  # a variable, an error code of HCCL
    r"|\b[\w.]+\.(?:csv|ckpt|jsonl?|mat|md|so|txt|yaml)\b"  # a file
)
"""What a reader of a message can search for, whatever it fills in."""

MAX_ENTRIES = 3
"""A word in more entries than this leads nowhere."""

MAX_SHOWN = 3
"""Entries with more messages than this show them folded."""


class Entry(BaseModel):
    """Messages that have the same cause and the same cure."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: Annotated[str, Field(min_length=4, max_length=60)]
    """What the messages are about, in a few words: the entry's heading, with which the index of the
    page leads to it. Each entry has its own."""
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


def render_index(groups: tuple[Group, ...]) -> str:
    """Return the page that leads to the messages."""
    places = [f"- **{group.where}**: {', '.join(map(_link, group.entries))}\n" for group in groups]
    words = [
        f"- `{word}`: {', '.join(map(_link, entries))}\n"
        for word, entries in words_of(groups).items()
    ]
    return "\n".join((INTRODUCTION, PLACES, "".join(places), WORDS, "".join(words)))


def render(groups: tuple[Group, ...]) -> str:
    """Return the page of all messages."""
    parts = [MESSAGES]
    for group in groups:
        parts += [f"## {group.where}\n", *map(_section, group.entries)]
    return "\n".join(parts)


def words_of(groups: tuple[Group, ...]) -> dict[str, list[Entry]]:
    """Return the few entries that have each word that a reader can search for, sorted by word."""
    found: dict[str, list[Entry]] = {}
    for group in groups:
        for entry in group.entries:
            for word in {word for text in entry.says for word in WORD.findall(text)}:
                found.setdefault(word, []).append(entry)
    telling = {word: entries for word, entries in found.items() if len(entries) <= MAX_ENTRIES}
    return dict(sorted(telling.items(), key=lambda item: item[0].strip("-").lower()))


def anchor(about: str) -> str:
    """Return the anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", about.lower()).replace(" ", "-")


def _link(entry: Entry) -> str:
    return f"[{entry.about}](messages.md#{anchor(entry.about)})"


def _section(entry: Entry) -> str:
    # Backquotes in a message would end the code span around it.
    says = "".join(f"- `{_line(text.replace('`', chr(39)))}`\n" for text in entry.says)
    if len(entry.says) > MAX_SHOWN:
        count = f"{len(entry.says)} messages"
        says = f"<details><summary>{count}</summary>\n\n{says}\n</details>\n"
    source = f" ([source]({entry.source}))" if entry.source else ""
    return (
        f"### {entry.about}\n\n{_line(entry.cause)}{source} **What to do:** {_line(entry.cure)}\n"
        f"\n{says}"
    )


def _line(text: str) -> str:
    return " ".join(text.split())


def main(arguments: argparse.Namespace) -> int:
    """Write the pages, or print stubs. Return 1 if the code and the entries don't match, else 0."""
    groups, found = read_groups(), messages()
    missing, stale = without_entry(groups, found), without_message(groups, found)
    if arguments.stubs:
        for message in missing:
            print(f"  # {message.path}: {message.error}")
            entry = {"about": "", "says": [message.text], "cause": "", "cure": ""}
            print(yaml.safe_dump([entry], width=1000, sort_keys=False))
        return 0
    for message in missing:
        print(f"no entry: {message.text}  ({message.path}, {message.error})", file=sys.stderr)
    for text in stale:
        print(f"no message for the entry: {text}", file=sys.stderr)
    PAGE.write_text(render(groups), "utf-8")
    INDEX.write_text(render_index(groups), "utf-8")
    return 1 if missing or stale else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--stubs",
        action="store_true",
        help="print entries without cause and cure for messages that have none",
    )
    sys.exit(main(parser.parse_args()))
