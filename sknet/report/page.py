"""report.html: one page that loads nothing, with whatever a name contains staying text."""

import base64
import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from sknet.report import comparison as compared
from sknet.report import text as story
from sknet.report.comparison import Comparison
from sknet.report.figures import printed
from sknet.report.findings import Findings, TrainedRun
from sknet.report.markdown import FIGURE, render_comparison, render_markdown
from sknet.report.run_figures import (
    attention_figure,
    class_bars,
    describe_attention,
    describe_classes,
    describe_curve,
    describe_reliability,
    describe_times,
    learning_curve,
    lowest_classes,
    reliability,
    step_times,
)
from sknet.report.store_figures import (
    accuracy_figure,
    describe_accuracy,
    describe_nights,
    describe_speed,
    nightly_figure,
    speed_figure,
    speed_rows,
)
from sknet.report.tables import (
    all_frames,
    epochs_table,
    evaluations_table,
    nights_table,
    quarantine_table,
    shown,
    unreadable_table,
)

Pictures = Mapping[str, bytes]
"""Content of PNG files by sha256."""

MOST_ROWS = 100
"""Of a table of nights, quarantined samples or the like; the rest is in the CSV files."""

MOST_PAIRS = 8

MOST_EXAMPLES_OF_A_PAIR = 4

_PNG = b"\x89PNG\r\n\x1a\n"


def render_html(
    findings: Findings,
    detailed: Sequence[TrainedRun],
    accuracy: str,
    comparison: Comparison | None = None,
    pictures: Pictures | None = None,
) -> str:
    """The page; `detailed` runs have a section each, `accuracy` is the figure that comes first."""
    folder = resources.files("sknet.report")
    css, script = (
        folder.joinpath(name).read_text("utf-8").strip() for name in ("report.css", "report.js")
    )
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(folder.joinpath("report.html.j2").read_text("utf-8"))
    text = template.render(
        css=Markup(css),  # noqa: S704 (our own file)
        script=Markup(script),  # noqa: S704 (our own file)
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        headline=story.headline(findings),
        best=findings.best,
        tiles=story.tiles(findings),
        notes=story.NOTES,
        published=story.published_shown(findings),
        anchors=[f"run-{run.short}" if run in detailed else None for run in findings.runs],
        num_own=len(findings.runs),
        overview=list(_overview(findings, detailed, accuracy)),
        nights=_first(shown(nights_table(findings)).iloc[::-1], "nights.csv"),
        unreadable=_first(shown(unreadable_table(findings)), "unreadable.csv"),
        comparison=_comparison(comparison),
        runs=[_run(run, pictures or {}) for run in detailed],
    )
    return text.rstrip() + "\n"


def _overview(
    findings: Findings, detailed: Sequence[TrainedRun], accuracy: str
) -> Iterable[dict[str, Any]]:
    yield _figure(accuracy, describe_accuracy(findings))
    if speed_rows(detailed):
        yield _figure(speed_figure(detailed), describe_speed(detailed))
    if findings.nights:
        yield _figure(nightly_figure(findings.nights), describe_nights(findings.nights))


def _run(run: TrainedRun, pictures: Pictures) -> dict[str, Any]:
    return {
        "record": run,
        "title": run.title,
        "figures": list(_figures(run)),
        "pairs": list(_pairs(run, pictures)),
        "evaluations": shown(evaluations_table([run])).drop(columns=["run", "recipe"]),
        "stages": story.stages_shown(run),
        "criteria": story.criteria_frame(run),
        "epochs": shown(epochs_table([run])).drop(columns=["run"]),
        "quarantine": _first(
            shown(quarantine_table([run])).drop(columns=["data"]), "quarantine.csv"
        ),
        "facts": story.facts(run),
        "recipe": story.recipe_yaml(run),
    }


def _figures(run: TrainedRun) -> Iterable[dict[str, Any]]:
    yield _figure(learning_curve(run), describe_curve(run))
    yield _figure(step_times(run), describe_times(run))
    counts = run.evaluation
    if counts is not None and any(each.seen for each in counts.calibration):
        yield _figure(reliability(run, counts), describe_reliability(counts))
    if counts is not None and lowest_classes(counts):
        yield _figure(class_bars(run, counts), describe_classes(run, counts))
    if run.attention is not None:
        words = describe_attention(run.attention)
        yield _figure(attention_figure(run, run.attention), words)


def _pairs(run: TrainedRun, pictures: Pictures) -> Iterable[dict[str, Any]]:
    """The most confused pairs with their examples."""
    counts = run.evaluation
    for pair in counts.confused[:MOST_PAIRS] if counts else ():
        labels = (pair.label, pair.predicted)
        examples = (
            each for each in run.examples if (each.example.label, each.example.predicted) == labels
        )
        seen = (
            counts.class_seen[pair.label] if counts and pair.label < len(counts.class_seen) else 0
        )
        yield {
            "label": run.class_name(pair.label),
            "predicted": run.class_name(pair.predicted),
            "count": pair.count,
            "seen": seen,
            "examples": [
                {
                    "uri": _uri(pictures.get(each.sha256, b"")),
                    "key": each.example.key,
                    "sure": f"{100 * each.example.probability:.0f} %",
                }
                for each in itertools.islice(examples, MOST_EXAMPLES_OF_A_PAIR)
            ],
        }


def _uri(content: bytes) -> str | None:
    """Of a PNG; None for anything else."""
    if not content.startswith(_PNG):
        return None
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def _figure(svg: str, words: str) -> dict[str, Any]:
    return {"svg": Markup(svg), "words": words}  # noqa: S704 (matplotlib's, words escaped)


def _comparison(comparison: Comparison | None) -> dict[str, Any] | None:
    if comparison is None:
        return None
    return {
        "first": comparison.first.title,
        "second": comparison.second.title,
        "sentences": compared.sentences(comparison),
        "accuracy": compared.accuracy_frame(comparison),
        "changes": compared.changes_frame(comparison),
    }


def _first(frame: pd.DataFrame, rest: str) -> dict[str, Any]:
    left = len(frame) - MOST_ROWS
    note = f"{left:,} more rows stand in {rest}." if left > 0 else ""
    return {"frame": frame.head(MOST_ROWS), "note": note}


NUM_DETAILED = 8
"""Runs with a section of their own: a figure takes a tenth of a second and 20 kB."""


def write_report(
    findings: Findings,
    out_dir: Path,
    *,
    comparison: Comparison | None = None,
    pictures: Pictures | None = None,
) -> list[str]:
    """Writes the report into `out_dir` and returns the names of the files; equal findings give
    equal bytes.
    """
    detailed = shown_in_full(findings, comparison)
    accuracy = accuracy_figure(findings)
    texts = {
        "report.html": render_html(findings, detailed, accuracy, comparison, pictures),
        "report.md": render_markdown(findings, detailed, comparison),
        FIGURE: printed(accuracy),
    }
    if comparison is not None:
        texts["comparison.md"] = render_comparison(comparison)
    out_dir.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (out_dir / name).write_text(text, encoding="utf-8", newline="\n")
    names = list(texts)
    for name, frame in all_frames(findings).items():
        frame.to_csv(out_dir / f"{name}.csv", index=False, lineterminator="\n")
        frame.to_parquet(out_dir / f"{name}.parquet", index=False)
        names += [f"{name}.csv", f"{name}.parquet"]
    return names


def shown_in_full(findings: Findings, comparison: Comparison | None = None) -> Sequence[TrainedRun]:
    """The runs that have a section of their own."""
    named = () if comparison is None else (comparison.first, comparison.second)
    runs = {run.run: run for run in (*findings.detailed(NUM_DETAILED), *named)}
    return tuple(runs.values())
