"""docs/ascend.md: its table is that of the code, and its commands are understood."""

import re
import shlex

from flows.acceptance.__main__ import parser
from flows.acceptance.bench import FULL
from flows.acceptance.checks import CHECKS
from flows.acceptance.figures import Line, Setting, bound_text, number
from flows.acceptance.lines import lines_of, published
from sknet.recipe import load_recipe
from tests.processes import ROOT

PAGE = (ROOT / "docs/ascend.md").read_text("utf-8")
SETTING = Setting(device_target="Ascend", cards=8, hosts=2, miniature=False)


def row(line: Line) -> str:
    """Return the row of a line: what it proves, and the limits of its figures."""
    judged, reported = [], []
    for figure in line.figures:
        if figure.bound is None:
            reported.append(figure.name)
            continue
        compared = ""
        if figure.tolerance:
            whose = "published" if figure.source.startswith("MindCV") else "hosts"
            compared = f" ({number(figure.compare)} {whose})"
        judged.append(f"{figure.name}: {bound_text(figure)}{compared}")
    limits = "; ".join(judged)
    if reported:
        limits += f". Reported: {', '.join(reported)}"
    return f"| `{line.name}` | {line.proves} | {limits} |"


def table() -> str:
    """Return the table of all lines for eight cards and two hosts."""
    header = "| line | what it proves | what it is judged by |\n|---|---|---|\n"
    return header + "\n".join(map(row, lines_of(SETTING)))


def test_the_table_is_that_of_the_code() -> None:
    (shown,) = re.findall(r"^\| line \|.*?(?=\n\n)", PAGE, re.MULTILINE | re.DOTALL)
    assert shown == table(), f"replace the table in docs/ascend.md by\n{table()}"


def test_the_published_row_is_that_of_the_code() -> None:
    row = published()
    assert (
        f"| {row.model} | {row.cards} | {row.batch_size} | {row.resolution} | {row.jit_level} | "
        f"{row.compile_seconds:g} s | {row.ms_per_step} | {row.images_per_second:,} | "
        f"{row.top1} | {row.top5} |"
    ) in PAGE
    recipe = load_recipe(FULL.recipe, FULL.overrides)
    assert (recipe.model, recipe.batch_size, recipe.image_resize, recipe.jit_level) == (
        *(row.model, row.batch_size, row.resolution, row.jit_level),
    )


def test_the_steps_are_those_of_the_code() -> None:
    first, second, last = FULL.interval + 1, 2 * FULL.interval, 4 * FULL.interval
    assert f"train `{FULL.recipe}` for {last} steps" in PAGE
    assert f"from step {first} to step {second}" in PAGE
    assert f"those of steps {second} and {last}" in PAGE


def test_its_commands_are_understood() -> None:
    commands = re.findall(r"^python -m flows\.acceptance (.+)$", PAGE, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        parser().parse_args(shlex.split(command))
    named = set(re.findall(r"^- (`[^\n]*?`)(?:: |, or)", PAGE, re.MULTILINE))
    assert {name.strip("`") for name in named} <= CHECKS.keys()


def test_it_says_that_nothing_was_run_on_cards() -> None:
    assert "Nothing of this project has run on Ascend cards yet" in PAGE
