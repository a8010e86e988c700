"""The result of a check, and how results are shown."""

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Self

from tabulate import tabulate

SECRETS = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    *("PREFECT_API_KEY", "PREFECT_API_AUTH_STRING"),
)
"""Environment variables whose values are never shown."""
# Greedy, and across slashes because secrets contain them: better to hide too much than too little.
_USER_INFO = re.compile(r"(?<=://)\S*@")
_SHORTEST_SECRET = 4


class Status(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One line of the table."""

    check: str
    status: Status
    found: str
    needed: str = ""
    advice: str = ""
    """What to do; empty if nothing needs to be done."""

    @classmethod
    def judge(
        cls,
        check: str,
        fits: bool,
        *,
        found: str,
        needed: str = "",
        advice: str = "",
        otherwise: Status = Status.FAIL,
    ) -> Self:
        """Return OK if what was found fits, else `otherwise` with the advice."""
        if fits:
            return cls(check, Status.OK, found, needed)
        return cls(check, otherwise, found, needed, advice)


def redacted(text: str, environment: Mapping[str, str] | None = None) -> str:
    """Return the text without credentials, whether they come from a URL or the environment."""
    values = os.environ if environment is None else environment
    for name in SECRETS:
        value = values.get(name, "")
        if len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, "***")
    return _USER_INFO.sub("***@", text)


def any_failed(results: Iterable[CheckResult]) -> bool:
    """Tell whether any check failed, so that the machine can't be used as it is."""
    return any(result.status is Status.FAIL for result in results)


def as_table(results: Sequence[CheckResult]) -> str:
    """Return a table for a terminal, without secrets."""
    headings = ["check", "", "found", "needed", "what to do"]
    rows = [[redacted(_one_line(value)) for value in asdict(each).values()] for each in results]
    widths = [22, 4, 40, 34, 44]
    return str(tabulate(rows, headings, disable_numparse=True, maxcolwidths=widths))


def as_json(results: Sequence[CheckResult]) -> str:
    """Return a JSON document for programs, without secrets."""
    rows = [
        {name: redacted(_one_line(value)) for name, value in asdict(each).items()}
        for each in results
    ]
    return json.dumps({"fit": not any_failed(results), "findings": rows}, indent=2) + "\n"


def _one_line(value: object) -> str:
    """Replace line breaks and the control characters that could take over a terminal."""
    return "".join(c if c.isprintable() else " " for c in str(value))
