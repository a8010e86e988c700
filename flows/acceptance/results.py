"""What the acceptance writes: acceptance.json for programs, and acceptance.md for people."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self, get_args

from flows.acceptance.figures import Figure, Line, Setting, bound_text, failures, number
from infra.base.files import replace_file
from infra.base.outcomes import UserError
from infra.base.records import Record
from sknet.report.markdown import escape

JSON_FILE = "acceptance.json"
PAGE_FILE = "acceptance.md"

Status = Literal["pass", "fail", "not run"]
STATUSES: tuple[Status, ...] = get_args(Status)

NOT_REACHED = "not reached yet"


class FigureResult(Record):
    """A figure of a line, and what was measured."""

    name: str
    unit: str
    measured: float | None
    """None if the line was not run, or the number can't be known."""
    compare: float | None
    """The figure to compare with; None: there is none for this setting."""
    source: str
    """Where `compare` comes from; empty without it."""
    limit: str
    """What the measured number has to be, such as `at most 49.17 ms`; empty: it isn't judged."""
    holds: bool | None
    """Whether it is; None if it isn't judged."""


class LineResult(Record):
    """A line, and how it ended."""

    name: str
    proves: str
    status: Status
    reason: str
    """Why it failed or was not run; notes of a line that passed."""
    figures: tuple[FigureResult, ...]
    minutes: float | None = None
    """How long it took in all; None if it was not run."""
    log: str | None = None
    """The file or directory to look at, relative to that of this file."""
    ended: str | None = None
    """When it ended, ISO 8601 in UTC."""
    inputs: dict[str, str] | None = None
    """What the result depends on: it is run again if any of these changes."""

    def is_current(self, inputs: Mapping[str, str]) -> bool:
        """Tell whether the line was run with these inputs, so that it need not be run again."""
        return self.status != "not run" and self.inputs == dict(inputs)

    def changed(self, inputs: Mapping[str, str]) -> list[str]:
        """Return which inputs have changed since it was run, as `name: before → now`."""
        before = self.inputs or {}
        names = sorted(before.keys() | inputs.keys())
        return [
            f"{name}: {before.get(name, 'nothing')} → {inputs.get(name, 'nothing')}"
            for name in names
            if before.get(name) != inputs.get(name)
        ]


class Acceptance(Record):
    """The content of acceptance.json."""

    format_version: Literal[1] = 1
    device_target: str
    cards: int
    hosts: int
    miniature: bool
    data: str
    versions: dict[str, str]
    """Version of everything that takes part; empty where it can't be known."""
    lines: tuple[LineResult, ...]

    @classmethod
    def read_or_none(cls, directory: Path) -> Self | None:
        """Return the record in a directory; None if the directory has none.

        Raises:
            UserError: It can't be read.
        """
        path = directory / JSON_FILE
        return cls.read(path) if path.exists() else None

    def line(self, name: str) -> LineResult:
        """Return the result of a line."""
        return next(each for each in self.lines if each.name == name)

    def with_line(self, result: LineResult) -> Self:
        """Return the record with another result of a line."""
        lines = tuple(result if each.name == result.name else each for each in self.lines)
        return self.model_copy(update={"lines": lines})

    def write_to(self, directory: Path) -> None:
        """Write the JSON file and the page, each of them whole or not at all.

        Raises:
            UserError: They can't be written.
        """
        try:
            replace_file(directory / JSON_FILE, self.encode(), durable=True)
            replace_file(directory / PAGE_FILE, page(self).encode(), durable=True)
        except OSError as error:
            raise UserError(f"--out {directory} can't be written: {error.strerror}") from None


def not_run(line: Line, reason: str) -> LineResult:
    """Return the result of a line that was not run: nothing is measured."""
    return LineResult(
        name=line.name,
        proves=line.proves,
        status="not run",
        reason=reason,
        figures=tuple(_figure(figure, None) for figure in line.figures),
    )


def ended(
    line: Line,
    measured: Mapping[str, float | None],
    *,
    wrong: list[str],
    notes: str,
    minutes: float,
    log: str | None,
    inputs: Mapping[str, str],
) -> LineResult:
    """Return the result of a line that was run.

    Args:
        line: The line.
        measured: Its figures by name; those that are missing could not be measured.
        wrong: What is wrong beside the figures, such as that nothing could be measured.
        notes: What helps to understand the figures.
        minutes: How long it took.
        log: The file or directory to look at.
        inputs: What the result depends on.
    """
    wrong = [*wrong, *([] if wrong else failures(line, measured))]
    return LineResult(
        name=line.name,
        proves=line.proves,
        status="fail" if wrong else "pass",
        reason="; ".join([*wrong, *([notes] if notes else [])]),
        figures=tuple(_figure(figure, measured.get(figure.name)) for figure in line.figures),
        minutes=round(minutes, 2),
        log=log,
        ended=datetime.now(UTC).isoformat(timespec="seconds"),
        inputs=dict(inputs),
    )


def planned(
    before: Acceptance | None,
    setting: Setting,
    lines: tuple[Line, ...],
    *,
    data: str,
    versions: Mapping[str, str],
) -> Acceptance:
    """Return the record before anything is run: what earlier calls found, and empty lines.

    Why a line was not run in another setting says nothing here.
    """
    record = Acceptance(
        device_target=setting.device_target,
        cards=setting.cards,
        hosts=setting.hosts,
        miniature=setting.miniature,
        data=data,
        versions=dict(versions),
        lines=tuple(not_run(line, NOT_REACHED) for line in lines),
    )
    if before is None:
        return record
    is_same = before.model_copy(update={"versions": {}, "lines": ()}) == record.model_copy(
        update={"versions": {}, "lines": ()}
    )
    names = {line.name for line in lines}
    for result in before.lines:
        if result.name in names and (is_same or result.inputs is not None):
            record = record.with_line(result)
    return record


def summary(result: LineResult) -> str:
    """Return a line's result for a terminal, in one line."""
    measured = [
        f"{figure.name} {number(figure.measured)} {figure.unit}".strip()
        + (f" ({figure.limit})" if figure.limit else "")
        for figure in result.figures
        if figure.measured is not None
    ]
    minutes = "" if result.minutes is None else f"{result.minutes:.1f} min"
    text = result.reason if result.status != "pass" else "; ".join(measured)
    log = f"; see {result.log}" if result.status == "fail" and result.log else ""
    return f"{result.status:<8} {result.name:<14} {minutes:>9}  {text}{log}".rstrip()


def page(record: Acceptance) -> str:
    """Return the page as Markdown."""
    counts = dict.fromkeys(STATUSES, 0)
    for line in record.lines:
        counts[line.status] += 1
    minutes = sum(line.minutes or 0.0 for line in record.lines)
    what = "in miniature, on digits" if record.miniature else f"data: {escape(record.data)}"
    parts = [
        "# Acceptance",
        f"{record.device_target}, {record.cards} ranks on each of {record.hosts} hosts, {what}.",
        f"{', '.join(f'{count} {status}' for status, count in counts.items())}; in all "
        f"{minutes:.1f} minutes. Logs are named relative to this file. A figure without a limit is "
        "only reported, and what isn't known is left empty.",
        "## Lines",
        _table(
            ("line", "status", "minutes", "what it proves", "why, or notes", "log"),
            (
                (
                    line.name,
                    f"**{line.status}**" if line.status == "fail" else line.status,
                    "" if line.minutes is None else f"{line.minutes:.1f}",
                    line.proves,
                    escape(line.reason),
                    escape(line.log or ""),
                )
                for line in record.lines
            ),
        ),
        "## Figures",
        _table(
            ("line", "figure", "measured", "to compare with", "source", "limit", ""),
            (
                (
                    line.name,
                    f"{figure.name}, {figure.unit}" if figure.unit else figure.name,
                    number(figure.measured),
                    number(figure.compare),
                    escape(figure.source),
                    figure.limit,
                    {True: "holds", False: "**fails**", None: ""}[figure.holds],
                )
                for line in record.lines
                for figure in line.figures
                if not (figure.measured is None and figure.compare is None)
            ),
        ),
        "## Versions",
        _table(
            ("what", "version"),
            ((name, escape(version)) for name, version in record.versions.items()),
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _table(names: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a table; the cells are Markdown."""
    lines = [names, tuple("---" for _ in names), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _figure(figure: Figure, measured: float | None) -> FigureResult:
    return FigureResult(
        name=figure.name,
        unit=figure.unit,
        measured=measured,
        compare=figure.compare,
        source=figure.source if figure.compare is not None else "",
        limit=bound_text(figure),
        holds=figure.holds(measured),
    )
