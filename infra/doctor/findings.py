"""What a check found, and how all of them are shown."""

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from tabulate import tabulate

SECRETS = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    *("PREFECT_API_KEY", "PREFECT_API_AUTH_STRING"),
)
"""Settings whose values never leave this process."""
# Greedy and over slashes, which secrets hold: rather too much is hidden than too little.
_USER_INFO = re.compile(r"(?<=://)\S*@")
_SHORTEST_SECRET = 4


class Status(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the table."""

    check: str
    status: Status
    found: str
    needed: str = ""
    advice: str = ""
    """What to do; empty if all is well."""


def redacted(text: str, environment: Mapping[str, str] | None = None) -> str:
    """The text without credentials, neither those of an address nor those of the environment."""
    values = os.environ if environment is None else environment
    for name in SECRETS:
        value = values.get(name, "")
        if len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, "***")
    return _USER_INFO.sub("***@", text)


def failed(findings: Iterable[Finding]) -> bool:
    """Whether the machine isn't fit."""
    return any(finding.status is Status.FAIL for finding in findings)


def as_table(findings: Sequence[Finding]) -> str:
    """For a terminal, without secrets."""
    headings = ["check", "", "found", "needed", "what to do"]
    rows = [[redacted(_one_line(value)) for value in asdict(each).values()] for each in findings]
    widths = [22, 4, 40, 34, 44]
    return str(tabulate(rows, headings, disable_numparse=True, maxcolwidths=widths))


def as_json(findings: Sequence[Finding]) -> str:
    """For programs, without secrets."""
    rows = [
        {name: redacted(_one_line(value)) for name, value in asdict(each).items()}
        for each in findings
    ]
    return json.dumps({"fit": not failed(findings), "findings": rows}, indent=2) + "\n"


def _one_line(value: object) -> str:
    """Without what could take a terminal over."""
    return "".join(c if c.isprintable() else " " for c in str(value))
