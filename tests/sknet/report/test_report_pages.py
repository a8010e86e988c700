"""The written report: its bytes, its safety, its form."""

import base64
import csv
import hashlib
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib import resources
from xml.etree import ElementTree

import matplotlib
import pytest
from test_report_runs import COLUMNS, END, LOG, START, epoch_line, make_run, step_line

from sknet.recipe import Recipe
from sknet.report import ReportContents, write_report
from sknet.report.run_figures import learning_curve

TABLES = [
    "table",
    "runs",
    "epochs",
    "evaluations",
    "nights",
    "stages",
    "quarantine",
    "unreadable",
]
FILES = [
    "report.html",
    "report.md",
    "accuracy.svg",
    *(f"{name}.{form}" for name in TABLES for form in ("csv", "parquet")),
]
VOID = {"meta", "br", "hr", "img", "link", "input"}
OWN_SCRIPT = resources.files("sknet.report").joinpath("report.js").read_text("utf-8").strip()
EVIL = '<script>alert("x")</script>|`**&'


class Page(HTMLParser):
    """Refuses unbalanced tags and keeps what a test asks of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def evil_run():
    recipe = Recipe(name=EVIL, model=EVIL, batch_size=16, epoch_size=6, lr=0.05)
    return make_run(
        recipe=recipe,
        model=EVIL,
        device_target=EVIL,
        mindspore=EVIL,
        checkpoint_digest=EVIL,
        tasks=[{"task": EVIL, "seconds": 1}],
        evaluation=make_run().evaluation.model_dump() | {"split": EVIL},
        log=[START | {"jit_level": EVIL}, *LOG[1:]],
    )


@pytest.fixture(scope="module")
def runs():
    other = make_run(
        key="ab" * 32,
        log=[START, step_line(22, math.nan), step_line(44, 1.5), {"type": "start", "step": 44}],
        evaluation=make_run().evaluation.model_dump() | {"correct_top1": 340},
    )
    return ReportContents(runs=(other, make_run()))


@pytest.fixture(scope="module")
def folder(runs, tmp_path_factory):
    out_dir = tmp_path_factory.mktemp("report")
    assert write_report(runs, out_dir) == FILES
    return out_dir


def text_of_script(folder):
    (script,) = re.findall(r"<script>(.*?)</script>", read(folder, "report.html"), re.DOTALL)
    return script


def read(folder, name):
    return (folder / name).read_text("utf-8")


def test_equal_runs_give_equal_bytes_whatever_the_reader_styles(runs, folder, tmp_path):
    with matplotlib.rc_context({"font.size": 33, "axes.grid": True, "figure.dpi": 50}):
        write_report(runs, tmp_path / "new" / "folder")
    for name in FILES:
        assert (tmp_path / "new" / "folder" / name).read_bytes() == (folder / name).read_bytes()


def test_drawing_leaves_the_readers_style_alone():
    with matplotlib.rc_context({"font.size": 33}):
        learning_curve(make_run())
        assert matplotlib.rcParams["font.size"] == 33


def test_the_csv_has_the_13_columns_and_empty_unknown_cells(folder):
    rows = list(csv.reader(read(folder, "table.csv").splitlines()))
    assert rows[0] == COLUMNS
    assert dict(zip(COLUMNS, rows[1], strict=True))["ms/step"] == ""
    assert dict(zip(COLUMNS, rows[2], strict=True))["ms/step"] == "170.25"


def test_percentages_stand_beside_their_counts(folder):
    for name in ("report.html", "report.md"):
        text = read(folder, name)
        assert "97.50 % (351/360)" in text
        assert "99.72 % (359/360)" in text
        assert "94.44 % (340/360)" in text
        assert "95 % interval 95.32 … 98.68 % (best of 2 runs, digits, run 0123456789" in text


def test_unknown_cells_show_a_dash(folder):
    assert "<td>–</td>" in read(folder, "report.html")  # noqa: RUF001
    assert "<NA>" not in read(folder, "report.md")
    assert "nan " not in read(folder, "report.md").replace("is nan", "")


def test_the_page_is_balanced_and_its_tables_are_accessible(folder):
    page = Page(read(folder, "report.html"))
    assert page.all("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all(
        "meta"
    )
    assert all(cell.get("scope") in {"col", "row"} for cell in page.all("th"))
    scrolling = [each for each in page.all("div") if "scroll" in str(each.get("class")).split()]
    assert len(scrolling) == len(page.all("table"))
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in page.all("svg"))


def test_ids_are_unique_within_the_page(folder):
    ids = [attrs["id"] for _, attrs in Page(read(folder, "report.html")).tags if "id" in attrs]
    assert len(ids) == len(set(ids)) > 0


def test_references_within_curves_resolve(folder):
    text = read(folder, "report.html")
    targets = set(re.findall(r'(?:href="|url\()#([^")]+)', text))
    assert targets
    assert targets <= set(re.findall(r'\bid="([^"]+)"', text))


def test_the_page_loads_nothing(folder):
    text = read(folder, "report.html")
    page = Page(text)
    assert not {"link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert page.all("script") == [{}]
    assert all(picture["src"].startswith("data:image/png;base64,") for picture in page.all("img"))
    loads = [
        value
        for tag, attrs in page.tags
        for name, value in attrs.items()
        if tag != "img" and name in {"src", "href", "xlink:href", "srcset", "action", "data"}
    ]
    assert all(value is not None and value.startswith("#") for value in loads)
    assert "@import" not in text
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))


def test_only_the_reports_own_script_may_run(folder):
    (policy,) = re.findall(
        r'Content-Security-Policy" content="([^"]+)"', read(folder, "report.html")
    )
    digest = base64.b64encode(hashlib.sha256(text_of_script(folder).encode()).digest()).decode()
    assert policy.split("; ") == [
        "default-src 'none'",
        "style-src 'unsafe-inline'",
        "img-src data:",
        f"script-src 'sha256-{digest}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]


def test_the_page_knows_light_and_dark(folder):
    assert "prefers-color-scheme: dark" in read(folder, "report.html")


def test_names_stay_text(tmp_path):
    write_report(ReportContents(runs=(evil_run(),)), tmp_path)
    page = Page(read(tmp_path, "report.html"))
    assert page.all("script") == [{}]
    assert text_of_script(tmp_path) == OWN_SCRIPT
    assert "&lt;script&gt;" in read(tmp_path, "report.html")
    markdown, fence, recipe = read(tmp_path, "report.md").partition("```yaml\n")
    assert fence
    assert "\\<script\\>" in markdown
    assert not re.search(r"(?<!\\)<script", markdown)
    assert recipe.count("```") == 1
    # An escaped bar makes no cell of its own.
    table = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(re.findall(r"(?<!\\)\|", table[0])) == 14
    assert len(re.findall(r"(?<!\\)\|", table[2])) == 14


def test_no_name_can_close_the_markdown_fence(tmp_path):
    recipe = Recipe(model="a\n```\n# b", batch_size=1, epoch_size=1, lr=1)
    write_report(ReportContents(runs=(make_run(recipe=recipe),)), tmp_path)
    assert "````yaml\n" in read(tmp_path, "report.md")


def test_curves_are_valid_xml_without_metadata():
    for run in (make_run(), evil_run(), make_run(log=[])):
        svg = learning_curve(run).svg
        root = ElementTree.fromstring(svg)  # noqa: S314 (our own text)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert root.get("aria-label", "").startswith(f"Learning curve of {run.recipe.name}")
        assert "metadata" not in svg
        assert "#010203" not in svg


def test_a_curve_says_what_it_could_not_draw():
    log = [START, step_line(22, math.inf), step_line(44, 1.5), epoch_line(0), END]
    svg = learning_curve(make_run(log=log)).svg
    assert "Losses not drawn because they are not finite: 1." in svg
    assert "No loss was logged. No epoch was evaluated." in learning_curve(make_run(log=[])).svg


def test_without_runs_the_report_says_so(tmp_path):
    assert write_report(ReportContents(), tmp_path) == FILES
    for name in ("report.html", "report.md"):
        assert "There are no runs yet" in read(tmp_path, name)
        assert "published: MindCV" in read(tmp_path, name)
    Page(read(tmp_path, "report.html"))
    assert read(tmp_path, "epochs.csv").startswith("run,epoch,train loss,")


def test_the_report_is_imported_without_plots_and_without_any_framework():
    program = (
        "import sys, sknet.report; "
        "print({'mindspore', 'prefect', 'infra.artifacts', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
